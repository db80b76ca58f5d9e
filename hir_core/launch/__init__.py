"""Launches: starting ranks under a supervisor, watching them, and the files through which they report."""
