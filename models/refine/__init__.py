"""Refinement of maps by random walks on an affinity, or by the colours of the photograph (PAR)."""
