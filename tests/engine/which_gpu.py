"""A step that notes on which GPU it was done."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from vlmdata.step import Step, StepContext


@dataclass(frozen=True, kw_only=True)
class WhichGpu(Step):
    """Measure what CUDA would see."""

    reads: ClassVar = ("texts",)
    writes: ClassVar = {"": pa.string()}
    needs: ClassVar = ("model", "gpu")

    meet: str
    """A folder in which every GPU leaves a mark; none goes on before there are two, so that one alone cannot do all."""

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
        Path(self.meet, f"gpu-{gpu}").touch()
        while len(list(Path(self.meet).iterdir())) < 2:
            time.sleep(0.01)
        context.note({"model": "none"})
        return {"": pa.array([gpu] * len(rows))}
