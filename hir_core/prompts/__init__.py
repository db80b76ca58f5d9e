"""Prompts: files, benchmarks, hub datasets and synthetic tasks, read into one Prompts table by `load`."""
