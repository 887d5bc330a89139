"""Export conversations as chat messages, which the source `messages` reads back: JSON lines with image files, or Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from vlmdata.exporting import messages_parquet
from vlmdata.exporting.conversations import conversation_of, image_paths, record_of, with_placeholders
from vlmdata.exporting.draft import Draft, ShardRecord
from vlmdata.exporting.exporter import Exporter, Kind, Published, Sample, Shard
from vlmdata.exporting.image_columns import FILES
from vlmdata.exporting.sharegpt import check_turns, with_thoughts
from vlmdata.fields import FIELDS

LIST = "messages.jsonl"
ROLES = {"tool": "observation"}  # LLaMA-Factory's names, where they differ from ours
TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}


@dataclass(frozen=True, kw_only=True)
class Messages(Exporter):
    """Write messages.jsonl with one conversation a line, and the images as files in the folder `images` next to it.

    `form: parts` writes OpenAI's messages, where an image is a part of the content; ms-swift reads them too. `form:
    placeholders` writes `<image>` in the texts and a dataset_info.json, as LLaMA-Factory reads them, and leaves out what it
    would skip. `form: parquet` writes Parquet with the columns `messages` and `images`, as TRL reads them. With `prompt`,
    caption pairs are exported as conversations of one question, the prompt, and the caption as answer.
    """

    holds = ("conversations",)
    version = 3

    form: Literal["parts", "placeholders", "parquet"] = "parts"
    prompt: str = ""

    def kinds(self) -> tuple[Kind, ...]:
        return (*self.holds, "captions") if self.prompt else self.holds

    def advice(self, kind: Kind) -> str:
        return ". To ask for each caption, set a question: --set prompt='Describe the image.'" if kind == "captions" else ""

    def published(self, layout: str) -> Published | None:
        return Published(FILES, messages_parquet.COLUMNS) if self.form == "parquet" else None

    def write_shard(self, shard: Shard, draft: Draft) -> dict[str, Any]:
        if self.form == "parquet":
            return messages_parquet.write_shard(shard, draft, self.prompt)
        notes = {"images": False, "tools": False}

        def line_of(sample: Sample) -> str:
            record = self._record(sample)
            for name in notes:
                notes[name] |= name in record
            for name, path in image_paths(sample).items():
                draft.write(path, sample.members[name])
            return json.dumps(record, ensure_ascii=False) + "\n"

        with draft.part(shard.number).open("w", encoding="utf-8") as part:
            part.writelines(shard.each(line_of))
        return notes

    def finish(self, draft: Draft, records: Iterable[ShardRecord]) -> None:
        if self.form == "parquet":
            messages_parquet.finish(draft, records)
            return
        found = {"messages"}
        count = 0
        for record in records:
            count += 1
            found |= {name for name, is_there in record.notes.items() if is_there}
        draft.join(LIST, count)
        if self.form == "placeholders":
            columns = {name: name for name in ("messages", "images", "tools") if name in found}
            info = {"vlmdata": {"file_name": LIST, "formatting": "sharegpt", "columns": columns, "tags": TAGS}}
            (draft.files / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n")

    def _record(self, sample: Sample) -> dict[str, Any]:
        facts, paths = conversation_of(sample, self.prompt), image_paths(sample)
        if self.form == "parts":
            return record_of(facts, paths)
        facts = with_thoughts(facts)
        turns, images = with_placeholders(facts, paths, role="role", content="content", roles=ROLES, after="")
        check_turns(turns, len(images))
        record: dict[str, Any] = {"messages": turns}
        record |= {"images": images} if images else {}
        record |= {"tools": json.dumps(facts["tools"], ensure_ascii=False)} if facts.get("tools") else {}
        return record | {name: value for name, value in facts.items() if name not in FIELDS and name not in record}
