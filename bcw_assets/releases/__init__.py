"""Releases: what is in one, which one is current, whether a candidate may become it, and the way back."""
