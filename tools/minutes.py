"""How long the stages of a run took: read from what DVC prints while it runs, kept with the run, shown in a table.

A stage whose result comes from the run cache takes no time. The table then has the mean of the runs of the study in
which the same code of that stage did run, of the same method first.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from tools.kept import Run, setting

STARTS = re.compile(r"Running stage '(.+)':")
ENDS = re.compile(r"Updating lock file|Stage '.+' |Running stage ")
PARTS = {
    "classifier, localizer": ("train_classifier", "train_localizer"),
    "maps": ("extract_cams",),
    "refinement": ("train_affinity", "refine_cams", "choose_background"),
    "masks": ("make_masks",),
    "segmentation network": ("train_segmenter", "predict"),
}
TO_MASKS, CORES = "all up to masks", "cores"


def timed(command: Sequence[str]) -> tuple[int, dict[str, float]]:
    """Run a command of DVC, pass on what it prints, and take the time of its stages.

    Returns:
        Exit status, and the seconds of each stage that ran to its end.
    """
    found: dict[str, float] = {}
    stage, start = "", 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace", bufsize=1) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if stage and ENDS.match(line):
                found[stage] = round(time.monotonic() - start, 1)
                stage = ""
            if begins := STARTS.match(line):
                stage, start = begins[1], time.monotonic()
    return process.returncode, found


def seconds_record(stages: dict[str, float]) -> dict[str, Any]:
    """What a kept run says of its time: stages with seconds, and the cores that this process may use."""
    return {"cores": len(os.sched_getaffinity(0)), "stages": stages}


def minutes(run: Run, runs: Sequence[Run]) -> dict[str, float | None]:
    """The minutes of the parts of a run, among the runs of its study; None where the time of a stage is not known."""
    found: dict[str, float | None] = {CORES: run["seconds"]["cores"]}
    for part, stages in PARTS.items():
        seconds = [seconds_of(stage, run, runs) for stage in stages]
        found[part] = None if None in seconds else sum(s for s in seconds if s is not None) / 60
    before = [found[part] for part in PARTS if part != "segmentation network"]
    found[TO_MASKS] = None if None in before else sum(m for m in before if m is not None)
    return found


def seconds_of(stage: str, run: Run, runs: Sequence[Run]) -> float | None:
    """The seconds of a stage of a run: its own, else the mean of those that ran the same code, its method's first."""
    same = [other for other in runs if digest(other, stage) and digest(other, stage) == digest(run, stage)]
    own = [other for other in same if setting(other) == setting(run)]
    for group in ([run], own, same):
        if known := [s for other in group if (s := other.get("seconds", {}).get("stages", {}).get(stage)) is not None]:
            return statistics.mean(known)
    return None


def digest(run: Run, stage: str) -> str:
    """The digest of a stage's code that the scores of a run state; empty where they do not."""
    return next((code[stage] for scores in run.values() if stage in (code := scores.get("code", {}))), "")
