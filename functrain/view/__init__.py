"""Room of view."""
