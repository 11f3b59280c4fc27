"""What `evaluate` scores."""

from pathlib import Path

ARTEFACTS = ("seeds", "refined", "masks", "segmenter")
"""The pipeline's products, each with numbers to compare."""

EVALUATED = ("localizer", "rules", *ARTEFACTS)
"""Also BAO's maps after each epoch (`localizer`) and the compared propagation rules (`rules`), in details alone."""

VALIDATION = Path("data/validation")
"""The folder of the validation photographs' maps: `seeds` and `refined`, which are empty where none are asked for."""
