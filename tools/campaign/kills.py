"""Kills at random moments: afterwards the same command ends with the bytes of an uninterrupted run."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

from tools.campaign.project import Project
from tools.campaign.running import Ended, Session, children, dvc_command, forked, living, run
from tools.campaign.tries import Try

SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "INT": signal.SIGINT}
VICTIMS = ("stage", "DVC", "process group", "worker")
"""A worker loads images or makes masks for a stage; where there is none at the moment, the stage is killed."""

WITH_WORKERS = ("train_classifier", "make_masks", "train_segmenter")
"""Stages that have workers with every method."""

STAGE_UNDER_DVC = 0.2
"""Share of the runs whose stage or worker is killed that DVC runs; the others run without it."""

EARLY = 0.25
"""Share of the kills that fall into the start; the others fall into the work."""

START_UP = 4.0
"""Seconds in which DVC and a stage start, about."""

AGAIN = 3
"""So often a moment is drawn again for a run that ended before it."""


@dataclass
class Moment:
    """When to kill: so many seconds after the start, or after the work has begun."""

    early: bool
    seconds: float
    since: float | None = None

    def reached(self, begun: Callable[[], bool]) -> bool:
        """Whether it is there; asked again and again."""
        if self.since is None and (self.early or begun()):
            self.since = time.monotonic()
        return self.since is not None and time.monotonic() - self.since >= self.seconds

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s after the {'start' if self.early else 'beginning of its work'}"


def kills(project: Project, count: int, random_: random.Random) -> Iterator[Try]:
    """Kill stages of the project's method in a random order, by all ways in turn."""
    ways = random_.sample(list(product(SIGNALS, VICTIMS)), len(SIGNALS) * len(VICTIMS))
    stages = random_.sample(project.stages[1:], len(project.stages) - 1)
    for number in range(count):
        signal_name, victim = ways[number % len(ways)]
        some = [stage for stage in WITH_WORKERS if stage in stages] if victim == "worker" else stages
        yield kill(project, some[number % len(some)], signal_name, victim, random_)
        project.restore()


def kill(project: Project, stage: str, name: str, victim: str, random_: random.Random) -> Try:
    """Kill one run of a stage, run it again, and compare."""
    under_dvc = victim in ("DVC", "process group") or random_.random() < STAGE_UNDER_DVC
    attempt = killed_under_dvc if under_dvc else killed_by_hand
    share, killed, wrong = 1.0, "", ""
    for _ in range(AGAIN):
        early = random_.random() < EARLY and victim != "worker"
        longest = START_UP if early and under_dvc else project.seconds[stage]
        moment = Moment(early, random_.uniform(0, longest * share))
        project.forget(stage)
        if killed := attempt(project, stage, SIGNALS[name], victim, moment):
            break
        share /= 2  # it had ended
    ended = once_more(project, stage, under_dvc)
    if ended.status:
        wrong = f"the next run failed: {ended.output.strip()[-300:]}"
    what = f"{project.method}, {stage}{' under DVC' if under_dvc else ''}, {moment}"
    found = ", ".join(living(project.folder))
    problems = [wrong, f"processes were left: {found}" if found else "", "" if wrong else project.difference(stage)]
    return Try(f"{name} to the {killed}" if killed else "run that ended first", what, "; ".join(filter(None, problems)))


def once_more(project: Project, stage: str, under_dvc: bool) -> Ended:
    """Run a stage to its end."""
    if under_dvc:
        return run(project.folder, dvc_command(stage))
    return forked(project.folder, stage.replace("@", " "))


def killed_by_hand(project: Project, stage: str, number: int, victim: str, moment: Moment) -> str:
    """Who was killed in a run of the stage without DVC; nobody where it had ended before."""
    found: list[str] = []

    def watch(process: int) -> bool:
        workers = children(process) if victim == "worker" else []
        if reached := moment.reached(lambda: bool(workers) if victim == "worker" else has_begun(project, stage)):
            found.append(send(workers[-1] if workers else process, number, "worker" if workers else "stage"))
        return reached

    forked(project.folder, stage.replace("@", " "), watch, workers=victim == "worker")
    return found[0] if found else ""


def killed_under_dvc(project: Project, stage: str, number: int, victim: str, moment: Moment) -> str:
    """Who was killed in a run of the stage by DVC; nobody where it had ended before."""
    session = Session(project.folder, dvc_command(stage))
    killed = ""
    while session.process.poll() is None:
        if moment.reached(lambda: has_begun(project, stage)):
            leader = session.process.pid
            if victim == "process group":
                killed = send(-leader, number, victim)
            else:
                killed = send(*chosen(session.members(), leader, victim, number))
            break
        time.sleep(0.01)
    session.ended()
    return killed


def has_begun(project: Project, stage: str) -> bool:
    """Whether a stage works: it has unfinished work, or writes what it will leave."""
    places = {(project.folder / path).parent for path in project.outputs[stage]}
    return (project.folder / ".resume" / stage).exists() or any(any(place.glob(".*.unfinished*")) for place in places)


def chosen(members: dict[int, tuple[int, str]], leader: int, victim: str, number: int) -> tuple[int, int, str]:
    """The process to kill, the signal, and who it is: the victim that is wanted, or the nearest that there is."""
    stages = [process for process, (_, command) in members.items() if " -m pipeline." in command]
    workers = [process for process, (parent, _) in members.items() if parent in stages and process not in stages[:1]]
    if victim == "worker" and workers:
        return workers[-1], number, "worker"
    if victim in ("worker", "stage") and stages:
        return stages[0], number, "stage"
    return leader, number, "DVC"


def send(process: int, number: int, name: str) -> str:
    """Send a signal; who got it, or nobody where the process had ended."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return ""
    return name
