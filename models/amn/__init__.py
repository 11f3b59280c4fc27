"""The activation manipulation network (AMN, Lee et al., CVPR 2022)."""
