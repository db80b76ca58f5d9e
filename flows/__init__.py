"""The application: flows, command line and recipes around `hir_core`; the only place that imports prefect."""
