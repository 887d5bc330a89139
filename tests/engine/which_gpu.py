"""A step that notes on which GPU it was done."""

import os
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from vlmdata.step import Part, Step


@dataclass(frozen=True, kw_only=True)
class WhichGpu(Step):
    """Measure what CUDA would see."""

    reads: ClassVar = ("texts",)
    writes: ClassVar = {"": pa.string()}
    needs: ClassVar = ("model", "gpu")

    def measure(self, rows: pa.Table, part: Part) -> dict[str, pa.Array]:
        part.note({"model": "none"})
        return {"": pa.array([os.environ.get("CUDA_VISIBLE_DEVICES")] * len(rows))}
