"""Launches: ranks started under a supervisor and monitored, and the files in which they report."""
