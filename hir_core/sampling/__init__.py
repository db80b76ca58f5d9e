"""Sampling engines, one a file: prompt ids and row seeds in, completions and log-probabilities out."""
