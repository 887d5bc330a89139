"""Turn the columns of an MDS sample into a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmdata.loader.index.tar import Member, Read
from vlmdata.readers.dotted_paths import NO_TEXT, value_at
from vlmdata.readers.mds_values import images_in, value_in
from vlmdata.readers.nested import texts_in
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import captioned
from vlmdata.readers.source_images import keep_addresses
from vlmdata.readers.strings import clean


@dataclass(frozen=True)
class MdsColumns:
    """The columns that a recipe reads from a shard."""

    encodings: Mapping[str, str]  # of all columns, by name
    image: str
    url: str  # or ""
    captions: Sequence[str]  # columns, or dotted paths into them
    heads: Mapping[str, str]  # the column of each entry of `captions`
    extra: Sequence[str]

    def row(self, cells: Mapping[str, Member], blob: str | None, read: Read) -> dict[str, Any]:
        """Return the row of a sample. `blob` is as for `images_in`. Raises BadSample if a value cannot be decoded."""
        wanted = {*self.heads.values(), *self.extra, self.url} - {""}
        values = {name: value_in(cells[name], self.encodings[name], read) for name in self.encodings if name in wanted}
        captions: list[str] = []
        reason = None
        for name in self.captions:
            said, fault = texts_in(value_at(values, name, NO_TEXT))
            captions += said
            reason = reason or fault
        images = images_in(cells[self.image], self.encodings[self.image], blob, read)
        images = images or [{"drop": "source", "reason": "no_image"}]
        used = set(self.captions)
        if self.url and keep_addresses(images, {"url": values[self.url]}):
            used.add(self.url)
        extra = {name: values[name] for name in self.extra if name not in used}
        return captioned(images, captions, extra=clean(json_object(extra)) if extra else None, reason=reason)
