"""Photographs, masks and tags on disk, and what trainings read of them."""
