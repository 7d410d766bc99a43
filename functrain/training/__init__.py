"""Room of training."""
