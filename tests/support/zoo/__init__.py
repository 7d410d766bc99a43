"""Models of other packages, built offline with random weights, and what every one of them shows."""
