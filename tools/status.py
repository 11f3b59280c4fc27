"""Which stages would run, and why: which change of knob, code or data.

`python -m tools.status` (or `make status`) runs `configure` (seconds), asks `dvc status`, and compares what a stage is
told now with what it was told when it last ran. A stage runs too when one before it writes something else. DVC's lock
file and git stay as they are.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline import configure
from pipeline.run.errors import UserError
from pipeline.run.files import dvc_cache
from pipeline.run.stage import run_stage
from pipeline.run.told import CONFIG

FILES, LOCK = Path("files/md5"), Path("dvc.lock")
Json = dict[str, Any]


def main() -> None:
    """Print one line for each stage that would run."""
    configure.main()
    changed: dict[str, list[Any]] = json.loads(dvc("status", "--json") or "{}")
    stages = recorded()
    reasons = {
        stage: list(own_reasons(stage, items)) if stage in stages else []
        for stage, items in changed.items()
        if stage != "configure"
    }
    if not reasons:
        print("nothing would run: every stage's knobs, code and data are those of its last run")
        return
    for stage, why in reasons.items():
        print(f"{stage}: {'; '.join(why) or 'it has not run here'}")
    if after := sorted(downstream(set(reasons))):
        print(f"after these, where they write something else: {', '.join(after)}")


def dvc(*arguments: str) -> str:
    """What a DVC command prints.

    Raises:
        UserError: it failed.
    """
    done = subprocess.run(["dvc", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"dvc {' '.join(arguments)} failed:\n{(done.stdout + done.stderr).strip()}")
    return done.stdout


def own_reasons(stage: str, items: list[Any]) -> Iterator[str]:
    """What differs from the last run of a stage, in words."""
    for item in items:
        if item == "changed command":
            yield "its command changed"
            continue
        for kind in ("changed deps", "changed outs"):
            for path, state in (item.get(kind, {}) if isinstance(item, dict) else {}).items():
                yield from told_differences(stage, path) if path.startswith(str(CONFIG)) else [f"{path} is {state}"]


def told_differences(stage: str, path: str) -> Iterator[str]:
    """Which knobs, and whether the code, differ from what the stage was told when it last ran."""
    before, now = last_told(stage, path), json.loads(Path(path).read_text(encoding="utf-8"))
    if before is None:
        yield "what it was told last time is not in DVC's cache"
        return
    old, new = leaves(before), leaves(now)
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            if name == "code" or name.startswith("code."):
                yield f"code of {name.partition('.')[2] or 'this stage'} changed"
            else:
                yield f"{name}: {old.get(name, 'unset')} -> {new.get(name, 'unset')}"


def recorded() -> Json:
    """What DVC keeps of the last run of every stage, by its name; nothing where none has run."""
    stages: Json = yaml.safe_load(LOCK.read_text(encoding="utf-8"))["stages"] if LOCK.exists() else {}
    return stages


def last_told(stage: str, path: str) -> Json | None:
    """What a stage was told when it last ran, from DVC's cache."""
    for dependency in recorded().get(stage, {}).get("deps", []):
        if dependency["path"] == path:
            digest: str = dependency["md5"]
            cached = dvc_cache(Path.cwd()) / FILES / digest[:2] / digest[2:]
            told: Json | None = json.loads(cached.read_text(encoding="utf-8")) if cached.exists() else None
            return told
    return None


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Json:
    """Dotted names and values."""
    found: Json = {}
    for key, value in tree.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def downstream(stages: set[str]) -> set[str]:
    """Stages that read what some stages write, at any distance."""
    lock = recorded()
    found: set[str] = set()
    waiting = list(stages)
    while waiting:
        made = [output["path"] for output in lock.get(waiting.pop(), {}).get("outs", [])]
        for name, facts in lock.items():
            reads = [dependency["path"] for dependency in facts.get("deps", [])]
            if name not in found | stages and any(within(path, output) for path in reads for output in made):
                found.add(name)
                waiting.append(name)
    return found


def within(path: str, output: str) -> bool:
    """Whether a dependency is an output, lies in it, or holds it."""
    one, other = Path(path), Path(output)
    return one == other or other in one.parents or one in other.parents


if __name__ == "__main__":
    run_stage(main)
