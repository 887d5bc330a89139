"""Measure the cost of a command with all its processes: CPU seconds, wall seconds, largest sum of resident memory."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
MARK = "VLMDATA_BENCH_MARK"


@dataclass(frozen=True)
class Cost:
    """The cost of a command: CPU and wall time in seconds, memory in MB, and the command's exit status."""

    cpu_s: float
    wall_s: float
    memory_mb: float
    status: int


def cost(command: list[str], **environment: str) -> Cost:
    """Run a command and return its cost, summed over all processes that inherit a mark in its environment. Sampled ten times
    a second."""
    mark = uuid.uuid4().hex
    began = time.monotonic()
    process = subprocess.Popen(
        command, env={**os.environ, **environment, MARK: mark}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    cpu: dict[int, float] = {}
    known: dict[int, bool] = {}
    memory = 0.0
    while process.poll() is None:
        memory = max(memory, _sample(mark, cpu, known))
        time.sleep(0.1)
    return Cost(sum(cpu.values()), time.monotonic() - began, memory, process.returncode)


def _sample(mark: str, cpu: dict[int, float], known: dict[int, bool]) -> float:
    resident = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            if pid not in known:
                known[pid] = f"{MARK}={mark}".encode() in (folder / "environ").read_bytes()
            if not known[pid]:
                continue
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        cpu[pid] = (int(fields[11]) + int(fields[12])) / TICK
        resident += int(fields[21]) * PAGE / 1e6
    return resident
