"""What commands print: tables, rows, versions and progress as text."""
