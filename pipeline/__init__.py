"""Stages of the pipeline, one module each, and what they share."""

import sys
from multiprocessing import parent_process

# Of `python -m pipeline.<stage>` and of a pool's process the parent may be killed in the seconds that imports take.
if sys.argv[:1] == ["-m"] or parent_process() is not None:
    from pipeline.run.parent import end_like_others

    end_like_others(getattr(parent_process(), "pid", None))
