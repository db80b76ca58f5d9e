"""What each rank of a launch runs (`python -m hir_core.worker JOB_DIR`); no other package imports it."""
