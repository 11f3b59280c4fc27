"""A trained segmentation network on photographs: those of the data set, and any others."""
