"""The optimizers themselves, one formula a file."""
