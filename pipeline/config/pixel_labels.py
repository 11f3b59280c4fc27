"""What owes its value to masks: the sentence that stands as `pixel_labels` in every details file."""

from __future__ import annotations

from pipeline.config.params import Params

WITH_MAPS = ("seeds", "refined", "rules")
OWE = {"masks": {"maps", "masks"}, "segmenter": {"maps", "masks"}} | {name: {"maps"} for name in WITH_MAPS}
"""What an artefact may be made of."""


def imported(params: Params) -> set[str]:
    """What comes from other programs: maps, masks."""
    sources = {"maps": params.cams.source, "masks": params.masks.source}
    return {what for what, source in sources.items() if source == "import"}


def pixel_labels(params: Params, artefact: str) -> str:
    """What pixel labels chose of an artefact and of its numbers; the only place where this is decided.

    Args:
        params: the whole configuration.
        artefact: what the details file is of, `classifier` included.
    """
    constants = "constants: scenes of another drawing seed, with their masks"
    chosen = [constants if params.profile == "compact" else "none of the constants"]
    if params.profile == "compact" and artefact == "segmenter":
        chosen.append("rates of the segmenter: also training photographs of six animals, with their masks")
    chosen += [f"imported {what}: not known" for what in sorted(imported(params) & OWE.get(artefact, set()))]
    if params.masks.source == "truth" and artefact in ("masks", "segmenter"):
        chosen.append("full supervision: the segmenter learns from the ground-truth masks of the training photographs")
    if artefact in WITH_MAPS:
        chosen.append("the number oracle: the masks that it is scored on")
        if params.data.tune and params.data.validate_on == "val":
            chosen.append("the number tuned: the masks of the tune photographs")
    if artefact == "refined" and params.masks.by_threshold:
        chosen.append("the best threshold of mask_curve: the masks that it is scored on")
    return "; ".join(chosen)
