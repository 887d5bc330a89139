"""Kill runs at random, for as long as one likes, and compare every byte with an undisturbed run.

    make chaos            or    python -m bench.chaos --minutes 60 --seed 1

Each round builds a dataset from a served list of hostile and good pictures; its driver or one of its workers is killed with
SIGKILL at random moments, the same command is started again, until it ends by itself. Prints rounds, kills, rows lost,
rows doubled and files that differ; the last three must be 0.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.engine.site import Site, hashes, ledger, site
from tests.engine.test_killed import start, workers_of
from vlmdata import run

EVERY_S = 3.0  # between kills: often enough to hit every stage, seldom enough that a run can end


def disturbed(web: Site, out: Path, dice: random.Random) -> int:
    """Build a dataset under fire and return how many processes were killed."""
    kills = 0
    while True:
        driver = start(web, out, workers=dice.choice([1, 2, 3]))
        while driver.poll() is None:
            time.sleep(dice.expovariate(1 / EVERY_S))
            if driver.poll() is None and dice.random() < 0.8:
                kills += _kill(driver, dice)
        if driver.returncode == 0:
            return kills


def _kill(driver: subprocess.Popen, dice: random.Random) -> int:
    victims = [driver.pid, *workers_of(driver.pid)]
    try:
        os.kill(dice.choice(victims), signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    folder = Path(tempfile.mkdtemp(prefix="vd-chaos-"))
    total: Counter[str] = Counter()
    deadline = time.monotonic() + 60 * arguments.minutes
    with site(folder, arguments.rows, part_rows=10) as web:
        run(web.recipe, folder / "undisturbed", local=True, workers=2)
        expected = hashes(folder / "undisturbed")
        while time.monotonic() < deadline:
            out = folder / "out"
            total["kills"] += disturbed(web, out, dice)
            keys = Counter(line["key"] for line in ledger(out))
            found = hashes(out)
            total["rounds"] += 1
            total["lost"] += arguments.rows - len(keys)
            total["doubled"] += sum(count - 1 for count in keys.values())
            total["differing"] += sum(expected.get(name) != digest for name, digest in found.items()) + len(
                set(expected) - set(found)
            )
            said = ", ".join(f"{name} {total[name]}" for name in ("rounds", "kills", "lost", "doubled", "differing"))
            print(said, flush=True)
            shutil.rmtree(out)
    shutil.rmtree(folder)
    raise SystemExit(bool(total["lost"] or total["doubled"] or total["differing"]))


if __name__ == "__main__":
    main()
