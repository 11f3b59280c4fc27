"""Stages of the pipeline, one module each, and what they share."""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m pipeline.<stage>`: DVC may be killed in the seconds that its imports take
    from pipeline.run.parent import end_like_others

    end_like_others()
