"""Learned pairwise affinity: AffinityNet (Ahn & Kwak, CVPR 2018) and IRN (Ahn, Cho & Kwak, CVPR 2019)."""
