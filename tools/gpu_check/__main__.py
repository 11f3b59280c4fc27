"""`python -m tools.gpu_check`, or `make gpu-check`; see `tools.gpu_check.check` for what it takes."""

import sys

from tools.gpu_check.imports import missing

if __name__ == "__main__":
    if absent := missing():
        sys.exit(f"ERROR: not installed here: {', '.join(absent)}; pip install -r requirements.txt")
    from pipeline.run.stage import run_stage
    from tools.gpu_check.check import main

    run_stage(main)
