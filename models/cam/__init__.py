"""Class activation maps of a multi-label classifier (CAM, Zhou et al., CVPR 2016)."""
