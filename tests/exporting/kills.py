"""Kills an export at each of its changes to the file system in turn, and exports again: python -m tests.exporting.kills.

Arguments: a dataset, a work folder, the format, and its options as JSON. Prints one line with the number of kills. Raises if a
resumed export differs from an uninterrupted one, or if a kill leaves a target that is not complete.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.exporting.made import content
from vlmdata.export_dataset import export

CHANGES = ("open", "os.rename", "os.mkdir", "shutil.rmtree", "os.remove", "os.rmdir")


def in_child(kill_at: int | None, *arguments: Any, **options: Any) -> int:
    """Export in a forked process, and return its exit status. The process ends itself before its change number `kill_at`."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    count = 0

    def watch(event: str, found: tuple[Any, ...]) -> None:
        nonlocal count
        if event in CHANGES and not (event == "open" and found[2] & os.O_ACCMODE == os.O_RDONLY):
            if count == kill_at:
                os._exit(9)
            count += 1

    if kill_at is not None:
        sys.addaudithook(watch)
    try:
        export(*arguments, **options)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)
    os._exit(0)


def main(out: str, folder: str, to: str, options: str) -> None:
    """Kill at every change until an export ends before it is killed."""
    same: dict[str, Any] = {"to": to, "options": json.loads(options)}
    whole, target = Path(folder) / "whole", Path(folder) / "target"
    export(out, whole, **same)  # here and not in a child, so that the children need not import anything
    expected = content(whole)
    at, status = 0, 9
    while status:
        shutil.rmtree(target, ignore_errors=True)
        status = in_child(at, out, target, **same)
        assert status in (0, 9)
        if not target.exists():
            assert in_child(None, out, target, **same) == 0
        found = content(target)
        assert found == expected, (at, [name for name in {**found, **expected} if found.get(name) != expected.get(name)])
        at += 1
    left = sorted(path.name for path in Path(folder).iterdir())
    assert left == ["target", "whole"], left
    print(f"{at - 1} kills")


if __name__ == "__main__":
    main(*sys.argv[1:])
