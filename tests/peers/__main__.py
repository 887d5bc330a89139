"""Read exports back with the real libraries, and print a Markdown table: python -m tests.peers [NAME...].

The exit status is 1 if a check fails or a library cannot be installed. The other checks run all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers import made
from tests.peers.check_files import Check, Wanted, names, read
from tests.peers.environments import NotInstalled, environment
from vlmdata.export_dataset import export
from vlmdata.exporting.draft import LEFT_OUT

HEAD = ("peer", "version", "export", "samples", "images", "result", "seconds")
LIMIT_S = 900  # for one run of a check, so that a check that waits forever does not stop the others


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    peer: str
    export: str
    result: str  # "read", or what is wrong
    is_ok: bool
    version: str = ""
    samples: int | str = ""
    images: int | str = ""
    seconds: float | str = ""

    @property
    def line(self) -> str:
        """The row as a line of Markdown."""
        result = " ".join(self.result.split()).replace("|", "\\|")
        cells = (self.peer, self.version, self.export, self.samples, self.images, result, self.seconds)
        return f"| {' | '.join(map(str, cells))} |"


class Work:
    """The folder with datasets, exports and files of EXPECTED, each of which is made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def dataset(self, data: str) -> Path:
        """Return the folder of the dataset `data`."""
        out = self.folder / "data" / data
        if not out.exists():
            made.make(data, out)
        return out

    def exported(self, wanted: Wanted) -> tuple[Path, Path]:
        """Return an export and its file of EXPECTED."""
        out = self.dataset(wanted.data)
        title = "-".join((wanted.data, wanted.to or "as-built", *(f"{name}-{value}" for name, value in wanted.options.items())))
        name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in title)
        target, listed = self.folder / "exports" / name, self.folder / "expected" / f"{name}.jsonl"
        if wanted.to is None:
            target = out
        elif not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings(action="ignore"):
                export(out, target, to=wanted.to, options=wanted.options)
        missing = target / LEFT_OUT
        left_out = {line.partition("\t")[0] for line in missing.read_text().splitlines()} if missing.exists() else set()
        listed.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            json.dumps(made.expected(sample)) + "\n" for sample in made.samples_of(wanted.data) if sample[0] not in left_out
        ]
        listed.write_text("".join(lines))
        return target, listed


def run(check: Check, work: Work) -> list[Row]:
    """Run a check on each of its exports."""
    print(f"{check.name}: environment", file=sys.stderr)
    try:
        python = environment(check)
    except NotInstalled as reason:
        return [Row(check.name, "", f"not installed: {reason}", False, version=" ".join(check.requirements[:1]))]
    return [_row(check, python, wanted, work) for wanted in check.exports]


def _row(check: Check, python: Path, wanted: Wanted, work: Work) -> Row:
    print(f"{check.name}: {wanted.title}", file=sys.stderr)
    target, listed = work.exported(wanted)
    with tempfile.TemporaryDirectory(dir=work.folder) as empty:
        command = [str(python), str(check.path), str(target), str(listed), str(work.dataset(wanted.data))]
        try:
            done = subprocess.run(
                command, cwd=empty, env=_variables(python, empty), capture_output=True, text=True, timeout=LIMIT_S
            )
        except subprocess.TimeoutExpired:
            return Row(check.name, wanted.title, f"FAILED: it did not end within {LIMIT_S} s", False)
    if done.returncode == 0:
        found = _last(done.stdout)
        if found and found["samples"] > 0:
            result = f"read; {found['note']}" if found.get("note") else "read"
            facts = {name: found[name] for name in ("version", "samples", "images")}
            return Row(check.name, wanted.title, result, True, **facts, seconds=round(found["seconds"], 1))
    print(done.stderr[-3000:], file=sys.stderr)
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it printed no line of JSON with samples"]
    return Row(check.name, wanted.title, f"FAILED: {lines[-1][:300]}", False)


def _last(printed: str) -> dict[str, Any] | None:
    lines = [line for line in printed.splitlines() if line.startswith('{"')]
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError):
        return None


def _variables(python: Path, home: str) -> dict[str, str]:
    """Return the variables of a check's process: no hub, no GPU, a separate home, and no import from the check's folder."""
    own = {"HOME": home, "HF_HOME": f"{home}/hf", "MODELSCOPE_CACHE": f"{home}/modelscope", "TMPDIR": home}
    own |= {"HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_", "XDG_"))}
    return {**kept, **own, "PATH": f"{python.parent}{os.pathsep}{kept.get('PATH', '')}"}


def main(arguments: list[str]) -> int:
    """Run the named checks, or all, and print the table. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(names())}; all by default")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep datasets and exports in this new folder")
    options = parser.parse_args(arguments)
    try:
        checks = [read(name) for name in options.names or names()]
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep.absolute() if options.keep else Path(scratch)
        rows = [row for check in checks for row in run(check, Work(folder))]
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for row in rows:
        print(row.line)
    return 0 if all(row.is_ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
