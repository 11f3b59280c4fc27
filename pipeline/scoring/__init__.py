"""Scores of masks against ground truth, and charts."""
