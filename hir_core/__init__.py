"""The library behind `hir`: tables, store, rewards, relabelers, and the DeepSpeed job that samples and trains.

Nothing here imports prefect; the driver side (everything a `stages` function reaches) imports no torch.
"""
