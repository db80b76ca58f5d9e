"""The command line `hir`; `app` is the entry point."""
