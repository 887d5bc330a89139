"""Kill runs, starve them and feed them random bytes for a chosen time, and compare every byte with an undisturbed run.

    make chaos            or    python -m tests.chaos --minutes 60 --seed 1

Each round is one of six kinds, chosen at random: `random` kills the driver and workers of a run at any moment; `points` ends
a run, with driver and worker in one process, before a chosen change to the file system, several times; `worker` ends one
worker of a run in this way; `actors` kills Ray actors; `forget` ends takedowns before a chosen change; `trouble` takes away
the disk, permissions, memory or a steady clock. After each, the same command is repeated until it ends by itself. Between
rounds, `fuzz` feeds damaged lists, recipes, tars, archives, images and pages to the code that reads them. The counts of
lost, doubled and differing files must be 0 at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.engine.dying import DIED, die_before, dying_forget, dying_run, jumping_clock, little_memory, spoiled_run
from tests.engine.site import Site, download, hashes, ledger, site
from tests.engine.test_killed import start, workers_of
from vlmdata.audit import audit
from vlmdata.engine.drive.processes import CONTEXT
from vlmdata.takedown import Request, finish, take_down

EVERY_S = 3.0  # seconds between kills at first; each kill adds a fifth, so that a run ends on a slow machine too
# how often each kind occurs, relative to the others
KINDS = {"points": 8, "worker": 4, "random": 4, "forget": 3, "trouble": 3, "actors": 1}
MOST_DEATHS = 12  # in one run, if a round chooses them; then the run may end


@dataclass
class Ground:
    """The input of a round: a served list, the bytes that an undisturbed run makes of it, and a finished dataset to forget
    from."""

    web: Site
    folder: Path
    rows: int
    changes: int  # changes that an undisturbed run makes to the file system
    expected: dict[str, str]

    @property
    def out(self) -> Path:
        return self.folder / "out"


def random_kills(ground: Ground, dice: random.Random) -> int:
    """Kill any process of a run at any moment."""
    kills = 0
    while True:
        driver = start(ground.web, ground.out, workers=dice.choice([1, 2, 3]))
        while driver.poll() is None:
            time.sleep(dice.expovariate(1 / (EVERY_S * (1 + kills / 5))))
            if driver.poll() is None and dice.random() < 0.8:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(dice.choice([driver.pid, *workers_of(driver.pid)]), signal.SIGKILL)
                    kills += 1
        if driver.returncode == 0:
            return kills


def chosen_points(ground: Ground, dice: random.Random) -> int:
    """End a run before one of its changes several times, each time at a random point of the remaining changes."""
    for kills in range(MOST_DEATHS):
        change = int(ground.changes * dice.random() ** 2)  # early changes more often, because finished work is not repeated
        if dying_run(ground.web.recipe, ground.out, change) != DIED:
            return kills
    assert dying_run(ground.web.recipe, ground.out, None) == 0
    return MOST_DEATHS


def chosen_points_of_workers(ground: Ground, dice: random.Random) -> int:
    """End one worker of a run before one of its changes. The run continues."""
    mark = ground.folder / "died"
    mark.unlink(missing_ok=True)
    death = functools.partial(die_before, dice.randrange(ground.changes // 3), ground.out, mark)
    assert spoiled_run(ground.web.recipe, ground.out, death, ground.folder / "output") == 0
    return int(mark.exists())


def actors(ground: Ground, dice: random.Random) -> int:
    """Kill Ray actors at any moment. The run continues."""
    command = [sys.executable, "-m", "vlmdata.cli", "run", str(ground.web.recipe), "--out", str(ground.out), "--workers", "2"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kills = 0
    while driver.poll() is None:
        time.sleep(dice.expovariate(1 / (EVERY_S * (1 + kills / 5))))
        if victims := [pid for pid, name in below(driver.pid) if name.startswith("ray::_Actor")]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(dice.choice(victims), signal.SIGKILL)
                kills += 1
        if kills > MOST_DEATHS:
            driver.wait()
    if driver.returncode:  # more deaths than the driver tolerates
        assert start(ground.web, ground.out).wait() == 0
    return kills


def below(pid: int) -> Iterator[tuple[int, str]]:
    """Yield all descendants of a process with their names."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    for one in parents:
        above = one
        while (above := parents.get(above, 0)) > 1:
            if above == pid:
                yield one, names[one]
                break


def takedowns(ground: Ground, dice: random.Random) -> int:
    """End takedowns before one of their changes. The dataset must be as before or as after, and a later run must restore
    nothing."""
    out = ground.out
    shutil.copytree(ground.folder / "undisturbed", out)
    lines = dice.sample([line for line in ledger(out) if line["outcome"] == "kept"], 3)
    request = Request(urls=[line["url"] for line in lines])
    kills = 0
    while dying_forget(out, request, dice.randrange(60)) == DIED and kills < MOST_DEATHS:
        kills += 1
        finish(out)
        assert audit(out, read_bytes=True) == []
    take_down(out, request)
    words = [line["url"].encode() for line in lines]
    assert not [path for path in out.rglob("*") if path.is_file() and any(word in path.read_bytes() for word in words)]
    shutil.rmtree(out / "work")
    (out / "manifest.json").unlink()
    assert dying_run(ground.web.recipe, out, None) == 0
    back = {line["key"] for line in ledger(out) if line["outcome"] == "kept"} & {line["key"] for line in lines}
    assert not back, f"forgotten rows came back: {back}"
    shutil.rmtree(out)
    shutil.copytree(ground.folder / "undisturbed", out)  # the round is compared with these
    return kills


def trouble(ground: Ground, dice: random.Random) -> int:
    """Take a resource away during a run, give it back, and run again."""
    kind = dice.choice(["disk", "memory", "clock", "permissions"])
    if kind in ("disk", "permissions") and not _can_mount():
        kind = "clock"
    if kind in ("disk", "permissions"):
        _on_a_disk_of_its_own(ground, dice, kind)
        return 0
    spoil = jumping_clock if kind == "clock" else functools.partial(little_memory, dice.randrange(150_000_000, 400_000_000))
    status = spoiled_run(ground.web.recipe, ground.out, spoil, ground.folder / "output")
    if kind == "clock":  # without memory, a library may fail with its own message
        assert status == 0, (ground.folder / "output").read_text()
    if status:
        assert start(ground.web, ground.out).wait() == 0
    return 0


def _on_a_disk_of_its_own(ground: Ground, dice: random.Random, kind: str) -> None:
    disk = ground.folder / "disk"
    disk.mkdir(exist_ok=True)
    size = f"{dice.randrange(40, 2000)}k" if kind == "disk" else "500m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "vlmdata-chaos", disk], check=True)
    try:
        if kind == "disk":
            start(ground.web, disk / "out").wait()
        else:
            dying_run(ground.web.recipe, disk / "out", dice.randrange(ground.changes))
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            start(ground.web, disk / "out").wait()
        subprocess.run(["mount", "-o", "remount,rw,size=500m", disk], check=True)
        assert start(ground.web, disk / "out").wait() == 0
        shutil.copytree(disk / "out", ground.out)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@functools.lru_cache(maxsize=1)
def _can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True).returncode == 0
        if mounted:
            subprocess.run(["umount", folder], check=True)
        return mounted


ROUNDS = {
    "points": chosen_points,
    "worker": chosen_points_of_workers,
    "random": random_kills,
    "forget": takedowns,
    "trouble": trouble,
    "actors": actors,
}


def faults(ground: Ground) -> dict[str, int]:
    """Compare the result of a round with an undisturbed run."""
    keys = Counter(line["key"] for line in ledger(ground.out))
    found = hashes(ground.out)
    other = sorted(name for name in {*ground.expected, *found} if ground.expected.get(name) != found.get(name))
    if other:
        kept = tempfile.mkdtemp(prefix="vd-chaos-failed-")
        shutil.copytree(ground.out, kept, dirs_exist_ok=True)
        print(f"differing: {', '.join(other)}; kept in {kept}", flush=True)
    return {
        "lost": ground.rows - len(keys),
        "doubled": sum(count - 1 for count in keys.values()),
        "differing": len(other),
    }


def fuzz(seed: int) -> int:
    """Run the fuzzing tests with new examples. Return 1 if a test failed; pytest prints which test and its example."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "fuzz",
        "--hypothesis-profile=chaos",
        f"--hypothesis-seed={seed}",
        "tests",
    ]
    return int(subprocess.run(command).returncode != 0)


def count_changes(web: Site, folder: Path) -> int:
    """Return the number of changes that an undisturbed run makes, found by the first number at which a run can no longer be
    ended."""
    low, high = 0, 4096
    while low < high:
        middle = (low + high) // 2
        status = dying_run(web.recipe, folder, middle)
        shutil.rmtree(folder, ignore_errors=True)
        low, high = (middle + 1, high) if status == DIED else (low, middle)
    return low


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--fuzz", type=float, default=0.2, help="share of the time that goes into fuzzing")
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    CONTEXT.set_forkserver_preload(["tests.engine.dying", "tests.engine.test_killed"])  # a process is started for each death
    folder = Path(tempfile.mkdtemp(prefix="vd-chaos-"))
    total: Counter[str] = Counter()
    steps = [{"text_length": {}}, download(), {"resize": {"size": 48}}, "dedupe_phash", {"image_size": {"min_side": 32}}]
    with site(folder, arguments.rows, steps=steps, part_rows=12) as web:
        assert dying_run(web.recipe, folder / "undisturbed", None) == 0
        changes = count_changes(web, folder / "counted")
        ground = Ground(web, folder, arguments.rows, changes, hashes(folder / "undisturbed"))
        print(f"{arguments.rows} rows, {changes} changes to the file system in a run", flush=True)
        began, fuzzed = time.monotonic(), 0.0
        while (now := time.monotonic()) < began + 60 * arguments.minutes:
            if fuzzed < arguments.fuzz * (now - began):
                total["fuzz_failed"] += fuzz(dice.randrange(1 << 30))
                fuzzed += time.monotonic() - now
                continue
            kind = dice.choices(arguments.kinds, [KINDS[name] for name in arguments.kinds])[0]
            kills = ROUNDS[kind](ground, dice)
            total.update({"rounds": 1, "kills": kills, f"kills_by_{kind}": kills, **faults(ground)})
            shown = ("rounds", "kills", "lost", "doubled", "differing")
            by = ", ".join(f"{name[9:]} {count}" for name, count in sorted(total.items()) if name.startswith("kills_by_"))
            print(", ".join(f"{name} {total[name]}" for name in shown) + f" ({by})", flush=True)
            shutil.rmtree(ground.out)
    shutil.rmtree(folder)
    raise SystemExit(any(total[name] for name in ("lost", "doubled", "differing", "fuzz_failed")))


if __name__ == "__main__":
    main()
