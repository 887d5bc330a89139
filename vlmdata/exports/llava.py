"""Export conversations in LLaVA's form, which the source `llava_json` reads back: one JSON list, with image files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from vlmdata.exporting.conversations import conversation_of, image_paths, with_placeholders
from vlmdata.exporting.draft import Draft, ShardRecord
from vlmdata.exporting.exporter import Exporter, Kind, Sample, Shard
from vlmdata.exporting.llava_turns import check_trained
from vlmdata.exporting.sharegpt import with_thoughts
from vlmdata.fields import FIELDS

LIST = "llava.json"
ROLES = {"user": "human", "assistant": "gpt", "tool": "observation"}


@dataclass(frozen=True, kw_only=True)
class Llava(Exporter):
    """Write llava.json, a list of records with `id`, `image` and `conversations`, and the images as files in `images/`.

    `image` is a path, or a list of paths for several images. Each turn has `from` (`human`, `gpt`, `system`) and `value`, with
    `<image>` at the place of each image. `form: trainer` leaves out what LLaVA's own trainer stops at or reads only in part,
    such as a conversation with several images, and writes reasoning into the text. With `prompt`, caption pairs are exported
    as conversations of one question, the prompt, and the caption as answer.
    """

    holds = ("conversations",)
    version = 2

    form: Literal["any", "trainer"] = "any"
    prompt: str = ""

    def kinds(self) -> tuple[Kind, ...]:
        return (*self.holds, "captions") if self.prompt else self.holds

    def advice(self, kind: Kind) -> str:
        return ". To ask for each caption, set a question: --set prompt='Describe the image.'" if kind == "captions" else ""

    def write_shard(self, shard: Shard, draft: Draft) -> None:
        with draft.part(shard.number).open("w", encoding="utf-8") as part:
            lines = shard.each(lambda sample: self._line(sample, draft))
            for number, line in enumerate(lines):
                part.write(f",\n{line}" if number else line)

    def finish(self, draft: Draft, records: Iterable[ShardRecord]) -> None:
        draft.join(LIST, sum(1 for _ in records), first=b"[\n", between=b",\n", last=b"\n]\n")

    def _line(self, sample: Sample, draft: Draft) -> str:
        facts, paths = conversation_of(sample, self.prompt), image_paths(sample)
        facts = with_thoughts(facts) if self.form == "trainer" else facts
        turns, images = with_placeholders(facts, paths, role="from", content="value", roles=ROLES, after="\n")
        if self.form == "trainer":
            check_trained(turns, images)
        record: dict[str, Any] = {"id": facts.get("id", sample.key)}
        record |= {"image": images[0] if len(images) == 1 else images} if images else {}
        record |= {"conversations": turns, **({"tools": facts["tools"]} if facts.get("tools") else {})}
        record |= {name: value for name, value in facts.items() if name not in FIELDS and name not in record}
        for name, path in paths.items():
            draft.write(path, sample.members[name])
        return json.dumps(record, ensure_ascii=False)
