"""The store: the result of every stage of a run as an immutable version in Parquet or safetensors, with a manifest."""
