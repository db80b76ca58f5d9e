"""Formulas in what a model writes: where the final one stands, how it is written, and whether two say the same."""
