"""Formulas in what a model writes: how they are written, what they stand for, and whether two say the same."""
