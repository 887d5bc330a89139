"""Export documents in Multimodal C4's form, which the source `mmc4` reads back: JSON lines, or tars for OpenFlamingo."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from vlmdata.engine.output.pack import BLOCK, RECORD, header
from vlmdata.engine.output.sample_counts import COUNTS, encode_counts
from vlmdata.exporting.draft import Draft, ShardRecord
from vlmdata.exporting.exporter import Exporter, Sample, Shard, Unsuitable
from vlmdata.fields import FIELDS, renamed

NO_MATCH = -1.0  # the lowest cosine: OpenFlamingo takes the text with the greatest similarity as the match of an image


@dataclass(frozen=True, kw_only=True)
class Mmc4(Exporter):
    """Write `url`, `text_list` and `image_info` of each document. Each image is matched to the text that comes after it.

    With `images: files`, each shard becomes a file docs_shard_N.jsonl, and image_info has the `image_name` of a file in
    `images/`. With `images: base64`, each shard becomes a tar of JSON with `image_base64`, and sizes.json has the number of
    samples of each tar; OpenFlamingo reads these tars. `matched_sim` is the similarity that the source stated, or 1, so that
    no threshold drops the image. `similarity_matrix` has this value at the matched text and -1 at all other texts. A document
    without a text, or without an image, is left out.
    """

    holds = ("documents",)
    version = 3

    images: Literal["files", "base64"] = "files"

    def write_shard(self, shard: Shard, draft: Draft) -> dict[str, Any]:
        if self.images == "base64":
            return self._write_tar(shard, draft)
        name = f"docs_shard_{shard.number:05d}.jsonl"
        with (draft.files / name).open("w", encoding="utf-8") as file:
            file.writelines(shard.each(lambda sample: self._line(sample, draft)))
        return {}

    def finish(self, draft: Draft, records: Iterable[ShardRecord]) -> None:
        if self.images == "base64":
            sizes = {record.notes["tar"]: record.samples for record in records}
            (draft.files / COUNTS).write_bytes(encode_counts(sizes))

    def _line(self, sample: Sample, draft: Draft) -> str:
        def stored(member: str) -> dict[str, Any]:
            name = f"{sample.key[:2]}/{sample.key}.{member}"
            draft.write(f"images/{name}", sample.members[member])
            return {"image_name": name}

        record = record_of(sample)
        for info in record["image_info"]:
            info |= stored(info.pop("member"))
        return json.dumps(record, ensure_ascii=False) + "\n"

    def _write_tar(self, shard: Shard, draft: Draft) -> dict[str, Any]:
        def body_of(sample: Sample) -> tuple[str, bytes]:
            record = record_of(sample)
            for info in record["image_info"]:
                member = info.pop("member")
                text = base64.b64encode(sample.members[member]).decode()
                info |= {"image_name": f"{sample.key}.{member}", "image_base64": text}
            return sample.key, json.dumps(record, ensure_ascii=False).encode()

        name = f"{shard.number:05d}.tar"
        with (draft.files / name).open("wb") as tar:
            for key, body in shard.each(body_of):
                tar.write(header(f"{key}.json", len(body)) + body + bytes(-len(body) % BLOCK))
            tar.write(bytes(2 * BLOCK) + bytes(-(tar.tell() + 2 * BLOCK) % RECORD))
        return {"tar": name}


def record_of(sample: Sample) -> dict[str, Any]:
    """Return a document as a record of MMC4. Instead of a file, each entry of `image_info` has the name of the `member`.

    An image after the last text is matched to an added empty text, because readers look up the text of each image. Raises
    Unsuitable for a document without a text or without an image.
    """
    facts = sample.facts
    texts: list[str] = []
    info: list[dict[str, Any]] = []
    for text, place, address in zip(facts["texts"], facts["metadata"], facts["images"], strict=True):
        if place is None:
            texts.append(text)
        else:
            info.append({"member": place["file"], "raw_url": address or "", "matched_text_index": len(texts)})
    if not info or not texts:
        raise Unsuitable("it has no image" if texts else "it has no text")
    if info[-1]["matched_text_index"] == len(texts):
        texts.append("")
    own = {name: value for name, value in facts.items() if name not in FIELDS}
    stated = own.pop("matched_sim") if _are_similarities(own.get("matched_sim"), len(info)) else [1.0] * len(info)
    for one, similarity in zip(info, stated, strict=True):
        one["matched_sim"] = similarity
    matrix = [[NO_MATCH] * len(texts) for _ in info]
    for one, row in zip(info, matrix, strict=True):
        row[one["matched_text_index"]] = one["matched_sim"]
    named = {"url": facts.get("url") or "", "text_list": texts, "image_info": info, "similarity_matrix": matrix}
    return {**renamed(own, {*named, "matched_sim"}), **named}


def _are_similarities(stated: Any, count: int) -> bool:
    """Return whether a column of the source has a similarity for each of `count` images."""
    return isinstance(stated, list) and len(stated) == count and all(isinstance(one, int | float) for one in stated)
