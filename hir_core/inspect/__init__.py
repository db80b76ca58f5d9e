"""Looking at a run: rows, differences, lineage, SQL, export, verification and the report's numbers."""
