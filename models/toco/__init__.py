"""Token contrast (ToCo, Ru et al., CVPR 2023): the one-stage training of a transformer and its decoder."""
