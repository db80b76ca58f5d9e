"""Constraints on a text that a program can check (HiR, arXiv 2512.23457): their kinds, wording and parsing."""
