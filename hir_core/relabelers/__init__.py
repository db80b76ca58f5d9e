"""Relabelers: the instruction that each scored sample demonstrates, one type per file; see `registry`."""
