"""The library behind `hir`: tables, store, rewards, relabelers, and the DeepSpeed job that samples and trains.

Nothing here imports prefect; only `modeling`, `training`, `sampling` and `worker` import torch.
"""
