"""Remove mail addresses, IP addresses and telephone numbers from texts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.errors import RecipeError
from vlmdata.fields import aligned_origins
from vlmdata.grounding.current import found_again
from vlmdata.grounding.spans import read_grounding
from vlmdata.parameters import Doc
from vlmdata.row import ROW, TEXT, flatten, in_one
from vlmdata.step import Step, StepContext
from vlmdata.text.personal import Kind, find_personal


@dataclass(frozen=True, kw_only=True)
class PiiRemove(Step):
    """Replace personal data in texts and their alternatives with `mark`. With an empty mark, extra spaces are removed.

    A tool call is JSON. Only the strings in its arguments are cleaned, so that the JSON stays valid.

    The column `removed` counts the replacements in each text. Only patterns are detected, so names and postal addresses stay.
    """

    id: ClassVar = "vlmdata.steps.pii_remove"
    example: ClassVar = '- pii_remove: {kinds: [mail, telephone], mark: "<pii>"}'
    reads: ClassVar = ("texts", "turns")
    writes: ClassVar = {"texts": ROW.field("texts").type, "removed": pa.list_(pa.int32())}
    measured_by: ClassVar = ("kinds", "mark")
    version: ClassVar = 4  # since version 3, "telephone" in fifty languages is found and DOIs stay; since 4, calls are cleaned

    kinds: Annotated[list[Kind], Doc("Kinds of personal data to replace.")] = field(
        default_factory=lambda: ["mail", "ip", "telephone"]
    )
    mark: Annotated[str, Doc("Replacement, such as `<pii>`. Empty: the data and extra spaces are removed.")] = ""

    def check_steps(self, before: Sequence[Step]) -> None:
        for step in before:
            if isinstance(step, PiiRemove):
                return
            if step.copies_texts:
                raise RecipeError(
                    f"{self.name} does not clean the texts that {step.name}, a step before it, copies into the JSON of "
                    f"samples. Put a pii_remove before {step.name}"
                )

    def measure(self, rows: pa.Table, context: StepContext | None) -> dict[str, pa.Array]:
        flat = flatten(rows, "texts")
        is_alive = flat.alive()
        items = flat.items.to_pylist()
        calls = set(_calls(rows, flat.offsets.to_pylist()))
        counts: list[int | None] = [None] * len(items)
        for at, (item, lives) in enumerate(zip(items, is_alive, strict=True)):
            if lives:
                counts[at] = self._clean_call(item) if at in calls else self._clean(item)
        return {
            "texts": flat.rebuild(pa.array(items, TEXT)),
            "removed": flat.rebuild(pa.array(counts, pa.int32())),
        }

    def _clean(self, item: dict[str, Any]) -> int:
        """Clean a text and its alternatives in place and return the number of replacements."""
        grounding = read_grounding(item["grounding"], item["text"])
        item["text"], count = remove_personal(item["text"] or "", self.kinds, self.mark)
        if grounding is not None and count:
            left = found_again(grounding, item["text"])
            item["grounding"] = None if left is None else left.dump()
        if item["alternatives"]:
            cleaned = [remove_personal(other or "", self.kinds, self.mark) for other in item["alternatives"]]
            origins = aligned_origins(item["alternatives"], item["origins"])
            kept = [(text, origin) for (text, _), origin in zip(cleaned, origins, strict=True) if text]
            item["alternatives"] = [text for text, _ in kept]
            item["origins"] = [origin for _, origin in kept] if any(origin for _, origin in kept) else None
            count += sum(number for _, number in cleaned)
        return count

    def _clean_call(self, item: dict[str, Any]) -> int:
        call = json.loads(item["text"])
        call["arguments"], count = self._clean_value(call["arguments"])
        item["text"] = json.dumps(call, ensure_ascii=False)
        return count

    def _clean_value(self, value: Any) -> tuple[Any, int]:
        """Return a JSON value in which every string except field names is cleaned, and the number of replacements."""
        if isinstance(value, str):
            return remove_personal(value, self.kinds, self.mark)
        if isinstance(value, dict):
            values, counts = zip(*map(self._clean_value, value.values()), strict=True) if value else ((), ())
            return dict(zip(value, values, strict=True)), sum(counts)
        if isinstance(value, list):
            found = [self._clean_value(one) for one in value]
            return [one for one, _ in found], sum(count for _, count in found)
        return value, 0


def _calls(rows: pa.Table, starts: list[int]) -> Iterator[int]:
    """Yield the positions of tool calls in the flattened texts. `starts` holds the position of each row's first text."""
    turns = in_one(rows["turns"])
    for row in np.flatnonzero(turns.is_valid().to_numpy(zero_copy_only=False)).tolist():
        for position, said in enumerate(turns[row].as_py()):
            if said and json.loads(said).get("kind") == "tool_call":
                yield starts[row] + position


def remove_personal(text: str, kinds: list[Kind], mark: str) -> tuple[str, int]:
    """Return the text with personal data replaced by `mark`, and the number of replacements.

    If `mark` is empty, extra spaces and empty brackets are removed too.
    """
    found = find_personal(text, kinds)
    if not found:
        return text, 0
    for one in reversed(found):
        text = text[: one.start] + mark + text[one.end :]
    if not mark:
        text = re.sub(r"[ \t]{2,}", " ", re.sub(r"[(\[<]\s*[)\]>]", "", text))
        text = re.sub(r"[ \t]+([,.;!?])", r"\1", text).strip()
    return text, len(found)
