"""Planted defects, which the laws must detect (``make defects``)."""
