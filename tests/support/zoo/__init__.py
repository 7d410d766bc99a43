"""Models of other packages, built offline with random weights."""
