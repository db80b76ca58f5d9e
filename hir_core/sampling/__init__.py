"""Sampling engines, one per file: prompt ids and row seeds in, completions and log-probabilities out."""
