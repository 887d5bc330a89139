"""Run every benchmark that needs nothing but this machine, one after the other: `make bench`, or `python -m bench NAME …`.

Those that take hours, a GPU or other projects' environments are run by name: tiny_clip, learns_captions, learns_nlvr,
train_h200. A benchmark whose peer is not installed says so and goes on without it.
"""

import subprocess
import sys
from pathlib import Path

BY_NAME_ONLY = {"tiny_clip", "learns_captions", "learns_nlvr", "train_h200"}
NO_BENCHMARK = {"__init__", "__main__", "curves", "measure"}


def main(names: list[str]) -> int:
    """Run benchmarks by name, or all that stand for themselves. Returns how many failed."""
    here = Path(__file__).parent
    every = sorted(path.stem for path in here.glob("*.py") if path.stem not in BY_NAME_ONLY | NO_BENCHMARK)
    failed = 0
    for name in names or every:
        print(f"\n== {name} ==", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"bench.{name}"], cwd=here.parent, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
