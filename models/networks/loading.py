"""Loading checkpoints: names and shapes are compared first, and everything that does not fit is said at once."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

# Entries by which checkpoints of the same trunk may differ: the heads, and batch counters of old formats.
HEADS = ("classifier.*", "fc.*", "fc8.*", "f8_*", "f9.*", "*num_batches_tracked")


def check_and_load(model: nn.Module, state: Mapping[str, Tensor], allow_missing: Sequence[str] = ()) -> list[str]:
    """Load a checkpoint after comparing all its names and shapes with the model's.

    Args:
        model: changed in place, only if the checkpoint fits.
        state: names and tensors.
        allow_missing: patterns (`*` stands for anything) of the names by which the two may differ: entries
            that match may be missing, superfluous or of another shape, and are then left alone. `HEADS` fits
            ImageNet weights and switching between classifier and AffinityNet; the default allows nothing.

    Returns:
        Names of the model's entries that kept their initial values, sorted.

    Raises:
        ValueError: listing missing, unexpected and wrongly shaped names.
    """
    own = model.state_dict()
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    misshapen = sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)

    def optional(name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in allow_missing)

    shapes = {n: f"{n} {tuple(state[n].shape)} instead of {tuple(own[n].shape)}" for n in misshapen}
    complaints = [
        _complaint("missing", [n for n in missing if not optional(n)]),
        _complaint("unexpected", [n for n in unexpected if not optional(n)]),
        _complaint("wrongly shaped", [text for n, text in shapes.items() if not optional(n)]),
    ]
    if any(complaints):
        raise ValueError("the checkpoint does not fit the model: " + "; ".join(filter(None, complaints)))
    model.load_state_dict({n: state[n] for n in own.keys() & state.keys() if n not in shapes}, strict=False)
    return sorted({*missing, *misshapen})


def load_trunk(trunk: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load ImageNet weights into a trunk; only heads may differ, and what the trunk says that it leaves out.

    Raises:
        ValueError: listing missing, unexpected and wrongly shaped names.
    """
    check_and_load(trunk, state, (*HEADS, *getattr(trunk, "left_out", ())))


def _complaint(kind: str, names: Sequence[str], shown: int = 5) -> str:
    """`3 missing (a, b, c)`, cut after a few names; empty without names."""
    if not names:
        return ""
    return f"{len(names)} {kind} ({', '.join(names[:shown])}{', ...' if len(names) > shown else ''})"
