"""Rewards: scores of completions, one type per file; `registry` builds the reward that a config names."""
