"""What every details file says of pixel labels."""

from __future__ import annotations

from pipeline.config.load import resolve
from pipeline.config.pixel_labels import pixel_labels
from pipeline.config.stages import stage_configs
from pipeline.scoring.artefacts import EVALUATED
from tests.support.knobs import shipped

CONSTANTS = "constants: scenes of another drawing seed, with their masks"


def test_compact_constants_and_chosen_thresholds_are_said() -> None:
    compact, paper = resolve(shipped()), resolve(shipped(profile="paper"))
    assert pixel_labels(compact, "masks") == CONSTANTS
    assert pixel_labels(paper, "masks") == "none of the constants"
    seeds = pixel_labels(compact, "seeds")
    assert seeds.startswith(f"{CONSTANTS}; the number oracle: ") and seeds.endswith("the masks of the tune photographs")
    assert "tuned" not in pixel_labels(paper, "seeds")
    assert "tuned" not in pixel_labels(resolve(shipped(data__validate_on="tune")), "seeds")


def test_every_details_file_is_told() -> None:
    told = stage_configs(resolve(shipped()))
    assert all(told[f"evaluate_{name}"]["protocol"]["pixel_labels"].startswith(CONSTANTS) for name in EVALUATED)
    protocol = told["train_classifier"]["protocol"]
    assert (protocol["split"], protocol["pixel_labels"]) == ("val", CONSTANTS)
