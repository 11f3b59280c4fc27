"""What `evaluate` scores."""

ARTEFACTS = ("seeds", "refined", "masks", "segmenter")
"""The pipeline's products, each with numbers to compare."""

EVALUATED = ("localizer", "rules", *ARTEFACTS)
"""Also BAO's maps after each epoch (`localizer`) and the compared propagation rules (`rules`), in details alone."""

VALIDATION = "val"
"""The folder inside seeds and refined maps that holds those of the validation photographs, where there are some."""
