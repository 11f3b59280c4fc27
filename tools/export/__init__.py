"""Masks in the formats of labelling tools and trainers: one module for each family of formats.

`__main__` is the command; `labelled` is what every format is written from.
"""
