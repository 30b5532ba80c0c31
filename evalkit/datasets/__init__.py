"""Data sets on disk and the builders that make them."""
