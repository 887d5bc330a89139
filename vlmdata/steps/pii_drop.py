"""Reject texts that contain mail addresses, IP addresses or telephone numbers."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.row import drop_texts, flatten
from vlmdata.step import Step
from vlmdata.text.personal import Kind, find_personal


@dataclass(frozen=True, kw_only=True)
class PiiDrop(Step):
    """Reject a text if it or one of its alternatives contains personal data.

    The reason is the kind of data: `mail`, `ip` or `telephone`. The step `pii_remove` keeps the text without the personal data.
    """

    id: ClassVar = "vlmdata.steps.pii_drop"
    example: ClassVar = "- pii_drop: {kinds: [mail, telephone]}"
    reads: ClassVar = ("texts",)
    is_private: ClassVar = True
    limits: ClassVar = {"*": "in kinds"}

    kinds: Annotated[list[Kind], Doc("Kinds of personal data that reject a text.")] = field(
        default_factory=lambda: ["mail", "ip", "telephone"]
    )

    def decide(self, rows: pa.Table) -> pa.Table:
        flat = flatten(rows, "texts")
        pairs = zip(flat.field("text").to_pylist(), flat.field("alternatives").to_pylist(), strict=True)
        found = [self._kind("\n".join([text or "", *(others or [])])) for text, others in pairs]
        bad = np.array([kind is not None for kind in found], dtype=bool)
        return drop_texts(rows, bad, self.name, reason=np.array(found, dtype=object))

    def _kind(self, text: str) -> str | None:
        return next((one.kind for one in find_personal(text, self.kinds)), None)
