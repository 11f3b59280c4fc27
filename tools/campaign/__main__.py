"""What the pipeline stands, tried and counted: kills, full disks, damaged files, bad inputs, two runs at once.

`python -m tools.campaign` (or `make campaign`) runs all tasks, two at a time, in copies of the repository with a dozen
scenes, and prints a table; it ends with status 1 where something was wrong. Names of tasks choose some, such as
`kills-cam inputs`. What a task has tried is kept in `.campaign/<task>.json`. `--page docs/reliability.md` puts the
table of all that is kept into the page, between `<!-- campaign -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

from pipeline.run.errors import UserError
from pipeline.run.files import write_json, write_text
from pipeline.run.stage import run_stage
from tools.campaign import damage, disk, inputs, kills, together
from tools.campaign.project import STAGES, Project, new_project
from tools.campaign.running import environment, load
from tools.campaign.tries import Try, table
from tools.smoke import REPOSITORY

PLACE = Path(".campaign")
METHODS = ("cam", "affinitynet", "bao", "toco", "esol", "irn", "transcam")
KILLS = 8
"""Of each method."""

DAMAGING = {"unfinished": damage.unfinished, "artefacts": damage.artefacts, "dvc": damage.noticed_by_dvc}
"""Damaged unfinished work, artefacts read by hand, artefacts that DVC knows."""

MARKED = re.compile(r"(<!-- campaign -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Run tasks and print their table.

    Raises:
        UserError: a task is unknown or broke off, or something was wrong.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", help="some of the tasks: " + ", ".join(tasks(0, KILLS)))
    parser.add_argument("--seed", type=int, default=0, help="of all random moments and places (%(default)s)")
    parser.add_argument("--kills", type=int, default=KILLS, help="of each method (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="so many tasks at a time (%(default)s)")
    parser.add_argument("--page", type=Path, help="file whose table is rewritten from what is kept; nothing is run")
    arguments = parser.parse_args()
    if arguments.page is not None:
        write_text(arguments.page, with_table(arguments.page.read_text("utf-8"), kept()))
        return
    known = tasks(arguments.seed, arguments.kills)
    if unknown := {*arguments.tasks} - known.keys():
        raise UserError(f"no such task: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    names = arguments.tasks or list(known)
    if len(names) == 1:
        run_task(names[0], known[names[0]], arguments.seed)
    else:
        given = ["--seed", str(arguments.seed), "--kills", str(arguments.kills)]
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(lambda name: run_alone(name, given), names))
    report(names)


def tasks(seed: int, count: int) -> dict[str, Callable[[], Iterator[Try]]]:
    """What every task tries, by its name; the long ones first."""
    return {
        **{f"kills-{method}": partial(killing, method, count, seed) for method in METHODS},
        **{f"damage-{name}": partial(damaging, name, seed) for name in DAMAGING},
        "disk": lambda: filling(seed),
        "together": lambda: together.two_at_once(project_of("together", "cam", together.NEEDED)),
        "inputs": lambda: inputs.bad_inputs(REPOSITORY),
    }


def killing(method: str, count: int, seed: int) -> Iterator[Try]:
    """Kills of one method."""
    random_ = random.Random(f"{seed} {method}")
    return kills.kills(project_of(f"kills-{method}", method), count, random_)


def damaging(name: str, seed: int) -> Iterator[Try]:
    """Damage of one kind."""
    return DAMAGING[name](project_of(f"damage-{name}", "cam"), random.Random(f"{seed} {name}"))


def filling(seed: int) -> Iterator[Try]:
    """Full disks, where the system lets one have a disk of one's own."""
    if disk.own_names():
        yield from disk.full_disks(project_of("disk", "irn"), list(disk.KINDS), random.Random(f"{seed} disk"))


def project_of(name: str, method: str, stages: tuple[str, ...] = STAGES) -> Project:
    """A copy for a task, after an uninterrupted run."""
    load()
    shutil.rmtree(PLACE / name, ignore_errors=True)
    project = new_project((PLACE / name / "project").resolve(), stages)
    project.run(method)
    return project


def run_task(name: str, task: Callable[[], Iterator[Try]], seed: int) -> None:
    """Run one task in this process, print each try, and keep all of them."""
    tries: list[Try] = []
    for one in task():
        tries.append(one)
        print(f"{'wrong' if one.wrong else 'right'}: {one.kind}: {one.what} {one.wrong}".rstrip(), flush=True)
    write_json(PLACE / f"{name}.json", {"seed": seed, "tries": [asdict(one) for one in tries]})
    shutil.rmtree(PLACE / name, ignore_errors=True)


def run_alone(name: str, given: Sequence[str]) -> None:
    """Run one task in a process of its own.

    Raises:
        UserError: it broke off.
    """
    (PLACE / f"{name}.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "tools.campaign", name, *given]
    subprocess.run(command, env=environment(), check=False)
    if not (PLACE / f"{name}.json").exists():
        raise UserError(f"the task {name} broke off; what it says stands above")


def report(names: Sequence[str]) -> None:
    """Print the table of some tasks.

    Raises:
        UserError: something was wrong; it lists what.
    """
    tries = [one for name in names for one in kept().get(name, (0, []))[1]]
    print(f"\n{table(tries)}")
    if wrong := [one for one in tries if one.wrong]:
        raise UserError("\n".join(f"{one.kind}: {one.what}: {one.wrong}" for one in wrong))


def kept() -> dict[str, tuple[int, list[Try]]]:
    """Seed and tries of every task that is kept, in the order of the tasks."""
    found = {}
    for name in tasks(0, KILLS):
        if (path := PLACE / f"{name}.json").exists():
            content = json.loads(path.read_text("utf-8"))
            found[name] = content["seed"], [Try(**one) for one in content["tries"]]
    return found


def with_table(page: str, tasks_kept: dict[str, tuple[int, list[Try]]]) -> str:
    """A page with the table of what is kept in the marked place.

    Raises:
        UserError: nothing is kept, or the page has no such place.
    """
    tries = [one for _, some in tasks_kept.values() for one in some]
    if not tries or not MARKED.search(page):
        raise UserError(
            "nothing is kept in .campaign, or the page has no place between <!-- campaign --> and <!-- end -->"
        )
    seeds = ", ".join(map(str, sorted({seed for seed, _ in tasks_kept.values()})))
    return MARKED.sub(lambda found: f"{found[1]}Seed {seeds}.\n\n{table(tries)}\n{found[2]}", page)


if __name__ == "__main__":
    run_stage(main)
