"""Defects that are planted to see that the laws would notice them (``make defects``)."""
