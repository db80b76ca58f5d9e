"""Training inside a launch: batches, losses, checks before the first step, and the optimizer loop."""
