"""Whether the code of this project is still that which `configure` took the digest of."""

from __future__ import annotations

import sys

from pipeline.config.code import code_digest
from pipeline.run.errors import UserError
from pipeline.run.files import read_json
from pipeline.run.told import CONFIG

RECORDS = CONFIG / "code.json"
"""For each module of a stage its digest and what the configuration chose; no stage depends on it."""


def check_code(when: str) -> None:
    """Compare the code of the stage that this process runs with what `configure` saw; other programs are not checked.

    DVC would keep the result of edited code under the digest of the code before.

    Args:
        when: the code was edited, in words.

    Raises:
        UserError: it differs.
    """
    module = started_module()
    record = read_json(RECORDS, "configure").get(module) if RECORDS.exists() else None
    if record is not None and code_digest(module, record["chosen"]) != record["digest"]:
        raise UserError(
            f"the code of {module} was edited {when}, so that its result would be taken for that of the code before; "
            "run `dvc repro` again (without DVC: `python -m pipeline.configure` first)"
        )


def started_module() -> str:
    """The module that `python -m` started; empty for other programs."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec else ""
