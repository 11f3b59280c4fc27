"""PyTorch's torchrun without its own report of a failure: what its processes said stands last.

`python -m pipeline.run.torchrun` takes torchrun's arguments.
"""

from __future__ import annotations

import logging
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run


def main() -> None:
    """Run, and end with status 1 where a process has failed or was stopped."""
    logging.disable(logging.ERROR)  # of the one that failed it would say number, file, time and signal
    try:
        run(parse_args(sys.argv[1:]))
    except (ChildFailedError, SignalException):
        sys.exit(1)


if __name__ == "__main__":
    main()
