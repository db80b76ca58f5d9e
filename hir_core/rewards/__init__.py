"""Rewards: scores of completions, one type a file; `registry` builds the one that a config names."""
