"""Generators of tasks with exact answers, one task per file; `registry` maps a task's name to its generator."""
