"""Run every benchmark that needs nothing but this machine, one after the other: `make bench`, or `python -m bench NAME …`.

Benchmarks that take hours, a GPU or other projects' environments run only by name: tiny_clip, learns_captions, learns_nlvr,
train_h200. A benchmark whose peer is not installed reports this and continues without the peer.
"""

import subprocess
import sys
from pathlib import Path

BY_NAME_ONLY = {"tiny_clip", "learns_captions", "learns_nlvr", "train_h200"}
NO_BENCHMARK = {"__init__", "__main__", "curves", "measure"}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all that need nothing but this machine, and return how many failed."""
    here = Path(__file__).parent
    every = sorted(path.stem for path in here.glob("*.py") if path.stem not in BY_NAME_ONLY | NO_BENCHMARK)
    failed = 0
    for name in names or every:
        print(f"\n== {name} ==", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"bench.{name}"], cwd=here.parent, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
