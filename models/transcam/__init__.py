"""TransCAM (Li et al., JVCIR 2023), and its compact stand-in for CPUs."""
