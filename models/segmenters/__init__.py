"""Segmentation networks that learn from pseudo masks."""
