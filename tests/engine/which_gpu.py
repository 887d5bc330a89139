"""A step that records on which GPU it ran."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from vlmdata.step import Step, StepContext


@dataclass(frozen=True, kw_only=True)
class WhichGpu(Step):
    """Record the value of CUDA_VISIBLE_DEVICES for each row."""

    reads: ClassVar = ("texts",)
    writes: ClassVar = {"": pa.string()}
    needs: ClassVar = ("model", "gpu")

    meet: str
    """Folder in which every GPU leaves a mark. A worker waits until there are two marks, so that one worker cannot process
    all rows."""

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
        Path(self.meet, f"gpu-{gpu}").touch()
        while len(list(Path(self.meet).iterdir())) < 2:
            time.sleep(0.01)
        context.note({"model": "none"})
        return {"": pa.array([gpu] * len(rows))}
