"""Generators of tasks with exact answers, one task a file; `registry` holds them by name."""
