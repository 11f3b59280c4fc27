"""Knobs of the second training: what all methods share, and a group of each method's own."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import model_validator

from models.amn.knobs import AmnKnobs
from models.bao.knobs import BaoKnobs
from models.dual_branch.knobs import DualBranchKnobs
from models.esol.knobs import EsolKnobs
from models.knobs import Augmentation, Knobs, MethodKnobs, OneOf, Optimisation, knob
from models.registry import METHODS
from models.toco.knobs import TocoKnobs


class LocalizerKnobs(Knobs):
    """The second training of methods that have one."""

    network: Annotated[str, OneOf(("none", *METHODS))] = knob(
        "none", "none (the classifier is the localizer), or the method whose second training runs"
    )
    optimisation: Optimisation
    augmentation: Augmentation
    amn: AmnKnobs = AmnKnobs()
    bao: BaoKnobs = BaoKnobs()
    toco: TocoKnobs = TocoKnobs()
    dual_branch: DualBranchKnobs = DualBranchKnobs()
    esol: EsolKnobs = EsolKnobs()

    @model_validator(mode="after")
    def _groups_fit(self) -> LocalizerKnobs:
        for group in self.groups().values():
            group.check_training(self.optimisation, self.augmentation)
        return self

    def groups(self) -> dict[str, MethodKnobs]:
        """The groups that the chosen training reads, by name."""
        names = METHODS[self.network].groups if self.network in METHODS else ()
        return {name: getattr(self, name) for name in names}

    def told(self) -> dict[str, Any]:
        """What train_localizer is told of all this: nothing of other methods' groups."""
        if self.network not in METHODS:
            return {"network": self.network}
        shared = self.model_dump(mode="json", include={"network", "optimisation", "augmentation"})
        return shared | {"groups": {name: group.model_dump(mode="json") for name, group in self.groups().items()}}
