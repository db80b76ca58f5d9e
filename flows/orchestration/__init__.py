"""What connects a run to Prefect: its server, artifacts, cancellation and flow runs."""
