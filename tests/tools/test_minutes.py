"""Minutes of a study: what DVC prints is timed, and stages that came from the run cache have the time of other runs."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tools.kept import Run
from tools.minutes import TO_MASKS, minutes, timed

DIGESTS = {
    "train_classifier": "aaaa",
    "train_localizer": "bbbb",
    "extract_cams": "cccc",
    "train_affinity": "dddd",
    "refine_cams": "eeee",
    "choose_background": "ffff",
    "make_masks": "0000",
}
DVC = """
import time
for stage in ("one", "two"):
    print(f"Running stage '{stage}':", flush=True)
    time.sleep(0.3)
    print("Updating lock file 'dvc.lock'", flush=True)
    time.sleep(0.3)
print("Stage 'three' is cached - skipping run, checking out outputs")
print("Running stage 'four':", flush=True)
raise SystemExit(3)
"""


def run(method: str, **seconds: float) -> Run:
    protocol: dict[str, Any] = {"method": method, "bg_thresh": 0.3, "seed": 0}
    scores = {"protocol": protocol, "code": DIGESTS}
    return {"seeds": scores, "masks": scores, "seconds": {"cores": 2, "stages": seconds}}


def test_stages_that_ran_to_their_end_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    status, seconds = timed([sys.executable, "-c", DVC])
    assert status == 3 and seconds.keys() == {"one", "two"}
    assert all(second > 0.25 for second in seconds.values())
    assert "Running stage 'four'" in capsys.readouterr().out


def test_cached_stages_have_the_time_of_runs_of_the_same_code() -> None:
    whole = run("cam", **dict.fromkeys(DIGESTS, 60.0))
    assert minutes(whole, [whole])[TO_MASKS] == 7
    cached = run("irn", train_affinity=180.0)
    assert minutes(cached, [whole, cached])["refinement"] == 5
    assert minutes(cached, [cached])[TO_MASKS] is None, "nobody knows"
    other = run("irn", **dict.fromkeys(DIGESTS, 240.0))
    assert minutes(cached, [whole, cached, other])["maps"] == 4, "its own method's come first"
    assert minutes(cached, [whole, cached, other])["segmentation network"] is None
