"""Two runs at once, in five ways: one is refused in a sentence or both end well, and the bytes are the same."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from tools.campaign.project import STAGES, Project
from tools.campaign.running import Ended, Session, dvc_command, hand_command, run
from tools.campaign.tries import Try

STAGE, LIGHT = "train_classifier", "evaluate@localizer"
NEEDED = (*STAGES[: STAGES.index("train_localizer") + 1], LIGHT)
"""The stages that an uninterrupted run needs for both."""


def two_at_once(project: Project) -> Iterator[Try]:
    """Start two runs of a stage together in each way, and then the stage once more."""
    dvc, hand = dvc_command(STAGE), hand_command(STAGE)
    ways = {
        "`dvc repro` twice": (STAGE, dvc, dvc),
        "`dvc repro` and the stage by hand": (STAGE, dvc, hand),
        "a stage by hand twice": (STAGE, hand, hand),
        "a stage of scores by hand twice": (LIGHT, hand_command(LIGHT), hand_command(LIGHT)),
    }
    for what, (stage, first, second) in ways.items():
        project.forget(stage)
        one, other = Session(project.folder, first, "one.log"), Session(project.folder, second, "other.log")
        yield Try("two runs at once", what, judged(project, stage, [one.ended(), other.ended()]))
        project.restore()
    yield Try("two runs at once", "other knobs by hand beside `dvc repro`", other_knobs(project))
    project.restore()


def other_knobs(project: Project) -> str:
    """Start a stage by hand with another seed, and DVC beside it; what is wrong."""
    project.forget(STAGE)
    told = project.folder / f"data/config/{STAGE}.json"
    own = told.read_text(encoding="utf-8")
    told.write_text(json.dumps(json.loads(own) | {"seed": 7}), encoding="utf-8")
    by_hand = Session(project.folder, hand_command(STAGE), "one.log")
    while not (project.folder / ".resume" / STAGE).exists() and by_hand.process.poll() is None:
        time.sleep(0.01)
    told.write_text(own, encoding="utf-8")
    by_dvc = Session(project.folder, dvc_command(STAGE), "other.log")
    return judged(project, STAGE, [by_hand.ended(), by_dvc.ended()])


def judged(project: Project, stage: str, both: list[Ended]) -> str:
    """What is wrong after two runs: a traceback, none that ended well, or other bytes after one more run."""
    wrong = ["a traceback"] if any("Traceback" in ended.output for ended in both) else []
    wrong += ["neither ended well"] if all(ended.status for ended in both) else []
    again = run(project.folder, dvc_command(stage))
    wrong.append(f"the next run failed: {again.output[-300:]}" if again.status else project.difference(stage))
    return "; ".join(filter(None, wrong))
