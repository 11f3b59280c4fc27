"""Activation maps: their store, how they are made, and how they become labels."""
