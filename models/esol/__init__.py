"""Expansion and shrinkage of localization (ESOL, Li et al., NeurIPS 2022), reconstructed."""
