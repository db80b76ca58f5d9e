"""Prompts: files, benchmarks, datasets of the hub and synthetic tasks, read into one Prompts table by `load`."""
