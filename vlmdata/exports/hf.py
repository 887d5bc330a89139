"""Export as a Hugging Face dataset on disk."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vlmdata.exporting.draft import Draft, ShardRecord
from vlmdata.exporting.exporter import Exporter, Published, Shard
from vlmdata.exporting.image_columns import schema_of, tables
from vlmdata.exports.parquet import COLUMNS, features, row_of

# The state of a dataset that was saved unchanged, as `datasets.Dataset.save_to_disk` writes it.
STATE: dict[str, Any] = {
    "_format_columns": None,
    "_format_kwargs": {},
    "_format_type": None,
    "_output_all_columns": False,
    "_split": None,
}


@dataclass(frozen=True, kw_only=True)
class Hf(Exporter):
    """Write a folder that `datasets.load_from_disk` opens, with one Arrow file for each shard."""

    version = 2

    def published(self, layout: str) -> Published:
        loading = "from datasets import load_dataset, load_from_disk\n\n"
        loading += 'load_dataset("USER/NAME", split="train")  # from the Hub\nload_from_disk("PATH")  # from a local folder'
        return Published("data-*.arrow", COLUMNS[layout], loading)

    def write_shard(self, shard: Shard, draft: Draft) -> dict[str, Any]:
        name = f"data-{shard.number:05d}-of-{shard.count:05d}.arrow"
        schema = schema_of(features(shard.layout))
        with pa.OSFile(str(draft.files / name), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            for table in tables(shard.each(row_of), schema):
                writer.write_table(table)
        return {"file": name, "layout": shard.layout}

    def finish(self, draft: Draft, records: Iterable[ShardRecord]) -> None:
        notes = [record.notes for record in records]
        files = [{"filename": note["file"]} for note in notes]
        state = {"_data_files": files, "_fingerprint": draft.folder.name.rpartition("-")[2], **STATE}
        (draft.files / "state.json").write_text(json.dumps(state, indent=2, sort_keys=True))
        info = {"citation": "", "description": "", "features": features(notes[0]["layout"]), "homepage": "", "license": ""}
        (draft.files / "dataset_info.json").write_text(json.dumps(info, indent=2, sort_keys=True))
