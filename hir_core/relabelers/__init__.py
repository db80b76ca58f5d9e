"""Relabelers: the instruction that a scored sample is a correct demonstration of, one type a file; see `registry`."""
