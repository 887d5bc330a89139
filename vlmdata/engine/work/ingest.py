"""Ingest: `download` and `resize` as one pass (fetch, decode, resize, store), so that no original is written to disk.

Each image is decoded when it arrives and appended to the partition's blob. Rows point into the blob. A slow host delays only
the partition that waits for it, because a worker has several partitions open.
"""

from __future__ import annotations

import functools
import hashlib
import queue
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.engine.partitions.tombstones import REASON, STEP
from vlmdata.engine.work.row_costs import RowCosts
from vlmdata.images import img2dataset_resize
from vlmdata.images.box_geometry import composed, has_only_fractions, has_place, pixels
from vlmdata.images.header import ImageError, read_header
from vlmdata.images.process import process, processing_cost
from vlmdata.process.thread import Thread, attempt
from vlmdata.row import IMAGE, ROW, Flat, alive, drop_rows, flatten, numbers
from vlmdata.step import Step, StepContext
from vlmdata.steps.download import Download
from vlmdata.steps.resize import Resize

if TYPE_CHECKING:
    from vlmdata.engine.work.open_partition import OpenPartition
    from vlmdata.web.client import Client, Fetched

LOOK_S = 1.0  # seconds between checks that the client is alive
DONE = ["format", "width", "height", "original_width", "original_height", "sha256", "phash"]  # fields of `Processed`
ORIGINAL = ["original_width", "original_height", "original_format", "sha256"]  # facts about the image as fetched
PLACED = ["boxes", "original_boxes", "view"]  # what is known about boxes and the part of the original
MEASURED = [*DONE, "original_format", *PLACED]
FACTS = ["blob", "offset", "size", *MEASURED, "drop", "reason", "value", "threshold"]


@dataclass(frozen=True, kw_only=True)
class Ingest(Step):
    """Turns images, given by address or as bytes, into measured images in a blob.

    An image that fails keeps its position and gets a reason.
    """

    id: ClassVar = "vlmdata.engine.ingest"
    reads: ClassVar = ("images",)
    writes: ClassVar = {"images": ROW.field("images").type}
    version: ClassVar = 3  # since version 2, the original format is kept; since version 3, memory and cost are limited
    measured_by: ClassVar = ("resize",)  # not `download`, because the outcome of a fetch is final once committed

    download: Download | None = None
    resize: Resize | None = None
    is_later: bool = False  # whether an earlier step has stored the images, so that ORIGINAL is known
    label: str = field(default="ingest", init=False)

    def identity(self) -> str:
        """Return the settings of `download` that change its result: the engine and the kind of hash to verify.

        The string is empty for the default: the engine `vlmdata`, and no hash to verify. If the string changes, all images are
        fetched again. The engine is included because engines produce different pixels.
        """
        words = [self._engine(), f"verify {self._verified()}"] if self._verified() else [self._engine()]
        words += ["later"] if self.is_later else []
        return " ".join(word for word in words if word != "vlmdata")

    def _engine(self) -> str:
        return self.download.engine if self.download else "vlmdata"

    def _verified(self) -> str:
        return self.download.verify if self.download else ""

    def columns_read(self) -> tuple[str, ...]:
        return ("images", "stated_hashes") if self._verified() else self.reads

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        flat = flatten(rows, "images")
        before = {name: flat.field(name).to_pylist() for name in FACTS}
        stated: list[str | None] = _stated(rows, flat) if self._verified() else [None] * len(flat.items)
        columns = {name: list(values) for name, values in before.items()}
        done = np.zeros(len(flat.items), bool)
        for positions, facts in self._outcomes(flat, before, stated, context):  # type: ignore[arg-type]
            done[positions] = True
            for name, value in facts.items():
                for position in positions:
                    if not (self.is_later and name in ORIGINAL and before["sha256"][position]):
                        columns[name][position] = value
        arrays = [pa.array(columns[f.name], f.type) if f.name in columns else flat.field(f.name) for f in IMAGE]
        data = IMAGE.get_field_index("data")
        arrays[data] = pc.if_else(pa.array(done), pa.scalar(None, pa.binary()), arrays[data])
        items = pa.StructArray.from_arrays(arrays, fields=list(IMAGE), mask=flat.items.is_null())
        return {"images": flat.rebuild(items)}

    def _outcomes(
        self, flat: Flat, before: dict[str, list[Any]], stated: list[str | None], context: OpenPartition
    ) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """Yield the outcome of each image, with the positions that hold this image. An outcome maps fields to their new values.

        Rejections of images that exceed the cost limit of their row come last, because they depend on all images of the row.
        """
        rule, twins = self._rule(), self._twins(flat, stated)
        given = [dict(zip(MEASURED, values, strict=True)) for values in zip(*map(before.get, MEASURED), strict=True)]
        costs = RowCosts(twins, flat.parents, rule.max_cost)
        for position, body, failure in self._bodies(flat, list(twins), stated, context):
            given[position] = self._in_pixels(given[position], body)
            if failure is not None:
                yield twins[position], failure
            elif context.journal(position):
                yield twins[position], self._verdict("decoder_crash")
            elif costs.admits(position, self._price(body, given[position]["boxes"])):
                yield twins[position], self._process(body, given[position], context)
            else:
                costs.park(position, body)
        beyond = costs.beyond()
        for position, body in costs.parked(beyond):
            context.journal(position)
            yield twins[position], self._process(body, given[position], context)
        for position, cost in beyond.items():  # the blob and offset stay, so that a takedown can erase the bytes there
            yield [position], {**given[position], **self._verdict("too_costly", cost, rule.max_cost)}

    def _verdict(self, reason: str, value: float | None = None, threshold: float | None = None) -> dict[str, Any]:
        """Return the rejection of an image whose bytes were received."""
        name = (self.resize or self.download or self).name
        return {"drop": name, "reason": reason, "value": value, "threshold": threshold}

    def _rule(self) -> Resize:
        return self.resize or Resize(mode="no", skip_reencode=True)

    def _price(self, body: bytes, boxes: Any) -> float:
        """Return the cost of decoding and blurring an image, or 0 for bytes without a header, which are not decoded."""
        rule = self._rule()
        try:
            return processing_cost(body, rule, self._shares(body, boxes) if rule.blur_boxes and boxes else ())
        except ImageError:
            return 0.0

    def _twins(self, flat: Flat, stated: list[str | None]) -> dict[int, list[int]]:
        """Map the first position of each image that is not dropped to all positions that hold the same image."""
        fields = zip(*(flat.field(name).to_pylist() for name in ("url", "blob", "offset", *PLACED)), stated, strict=True)
        bodies = flat.field("data")
        groups: dict[Any, list[int]] = {}
        for position, (identity, is_alive) in enumerate(zip(fields, flat.alive(), strict=True)):
            if is_alive:
                data = bodies[position].as_py()
                digest = None if data is None else hashlib.sha256(data).digest()
                groups.setdefault(repr((*identity, digest)), []).append(position)
        return {positions[0]: positions for positions in groups.values()}

    def _bodies(
        self, flat: Flat, positions: list[int], stated: list[str | None], context: OpenPartition
    ) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
        """Yield the position, encoded bytes and rejection (or None) of every image.

        Local images are first. The others follow in the order in which hosts answer.
        """
        most = self._rule().max_memory_mb * 1e6
        step, kind = self.download.name if self.download else self.name, self._verified()
        bodies = flat.field("data")
        fields = {name: flat.field(name).to_pylist() for name in ("blob", "offset", "size", "url")}
        addresses = {}
        for position in positions:
            blob, offset, size, url = (values[position] for values in fields.values())
            if bodies[position].is_valid:
                yield position, bodies[position].as_py(), None
            elif blob is not None and size > most:
                yield position, b"", self._verdict("too_large", size / 1e6, most / 1e6)
            elif blob is not None:
                yield position, context.image_bytes(blob, offset, size), None
            elif self.download is None or url is None:
                yield position, b"", {"drop": step, "reason": "no_address" if url is None else "not_downloaded"}
            elif kind and stated[position] is None:
                yield position, b"", {"drop": step, "reason": "no_hash"}
            else:
                addresses[position] = url
        if addresses and self.download:
            for position, body, failure in self._fetched(addresses, self.download, context):
                if body is not None and kind and _hash(kind, body) != stated[position]:
                    body, failure = None, f"wrong_{kind}"
                yield position, body or b"", None if failure is None else {"drop": step, "reason": failure}

    def _fetched(
        self, addresses: dict[int, str], download: Download, context: OpenPartition
    ) -> Iterator[tuple[int, bytes | None, str | None]]:
        if download.engine == "vlmdata":
            return fetch(addresses, context.client(download))
        from vlmdata.web.img2dataset_download import Fetcher

        return context.kept(download.engine, lambda: Fetcher(download)).fetch(addresses)

    def _process(self, body: bytes, given: dict[str, Any], context: OpenPartition) -> dict[str, Any]:
        """Decode, resize and store one image. Return its place and measurements, or its rejection.

        `given` are the fields of the image in the row.
        """
        rule, boxes = self._rule(), given["boxes"] or []
        limits = {name: getattr(rule, name) for name in ("max_pixels", "max_memory_mb", "max_cost")}
        blocks = context.tombstones.blocks
        if blocks and (reason := blocks.match(body, rule.max_memory_mb)):
            return {"drop": blocks.name, "reason": reason}
        if rule.blur_boxes and not all(box is None or has_place(box) for box in boxes):
            return self._verdict("bad_box")
        try:
            blur = self._shares(body, boxes) if rule.blur_boxes and boxes else ()
            resized = process if self._engine() == "vlmdata" else img2dataset_resize.process
            with context.decoding:
                done = resized(body, rule, **limits, boxes=boxes, blur=blur)
        except ImageError as error:
            return self._verdict(error.reason, error.value, error.threshold)
        if context.tombstones.holds_image(done.sha256, done.phash):
            return {"drop": STEP, "reason": REASON}
        return {
            "blob": context.blob.name,
            "offset": context.blob.add(done.data),
            "size": len(done.data),
            **{name: getattr(done, name) for name in DONE},
            "original_format": done.source_format,
            "boxes": done.boxes,
            **composed(given, done.original_boxes, done.view),
        }

    def _shares(self, body: bytes, boxes: list[list[float] | None]) -> list[tuple[float, float, float, float]]:
        """Convert boxes from pixels to fractions of the image's sides, 0 to 1, without those that are None.

        Boxes are in pixels of the upright image or, because img2dataset applies no orientation, of the image as it is encoded.
        Raises ImageError for a bad header.
        """
        width, height = self._size(body)
        return [(box[0] / width, box[1] / height, box[2] / width, box[3] / height) for box in boxes if box is not None]

    def _in_pixels(self, given: dict[str, Any], body: bytes) -> dict[str, Any]:
        """Return the fields of an image, with `boxes` if its source knew them only as fractions of an image of unknown size."""
        if not has_only_fractions(given):
            return given
        try:
            return {**given, "boxes": pixels(given["original_boxes"], *self._size(body))}
        except ImageError:
            return given

    def _size(self, body: bytes) -> tuple[int, int]:
        """Return the width and height for the boxes of an encoded image. Raises ImageError for a bad header."""
        header = read_header(body)
        return header.upright_size if self._engine() == "vlmdata" else (header.width, header.height)

    def failed(self, rows: pa.Table, reasons: Collection[str]) -> np.ndarray:
        """Return for each row whether one of its images failed for one of these reasons, bool (N,)."""
        flat = flatten(rows, "images")
        hit = np.isin(np.array(flat.field("reason").to_pylist(), dtype=object), list(reasons))
        return np.bincount(flat.parents[hit], minlength=len(rows)) > 0

    def decide(self, rows: pa.Table) -> pa.Table:
        """Drop the rows whose images have all failed, with the reason of the first image."""
        flat = flatten(rows, "images")
        is_alive = flat.alive()
        left = np.bincount(flat.parents[is_alive], minlength=len(rows))
        first = flat.first(flat.items.is_valid().to_numpy(zero_copy_only=False) & ~is_alive)
        bad = (left == 0) & (first >= 0) & alive(rows)
        at = pa.array(first, mask=first < 0)
        names = np.array(flat.field("drop").take(at).to_pylist(), dtype=object)
        verdict = {field: flat.field(field).take(at) for field in ("reason", "value", "threshold")}
        own = {"reason": np.array(verdict["reason"].to_pylist(), dtype=object)}
        own |= {field: numbers(verdict[field]) for field in ("value", "threshold")}
        for name in sorted(set(names[bad])):
            rows = drop_rows(rows, bad & (names == name), name, **own)
        return rows


def _stated(rows: pa.Table, flat: Flat) -> list[str | None]:
    """Return the hash that the source states for each position of `images`, or None where it states none."""
    lists = zip(rows["stated_hashes"].to_pylist(), np.bincount(flat.parents, minlength=len(rows)).tolist(), strict=True)
    return [one for hashes, count in lists for one in (hashes or [None] * count)]


def _hash(kind: str, body: bytes) -> str:
    return hashlib.new(kind, body, usedforsecurity=False).hexdigest()


def fetch(addresses: dict[int, str], client: Client) -> Iterator[tuple[int, bytes | None, str | None]]:
    """Yield the position of each image with the fetched bytes or the failure, in the order of completion.

    If the client itself fails, raise its error.
    """
    ended: queue.SimpleQueue[tuple[int, Fetched] | BaseException] = queue.SimpleQueue()

    def end(position: int, fetched: Fetched) -> None:
        client.hold(len(fetched.body or b""))
        ended.put((position, fetched))

    def submit_all() -> None:  # runs in another thread, because `submit` blocks while too much is in flight
        for position, url in addresses.items():
            client.submit(url, functools.partial(end, position))

    Thread(attempt, submit_all, ended.put, name="ask").start()
    for _ in addresses:
        answer = _next(ended, client)
        if isinstance(answer, BaseException):
            raise answer
        position, fetched = answer
        if fetched.failure == "closed":  # the client broke; the image may be good, so the failure must not be committed
            _raise_why(client)
        yield position, fetched.body, fetched.failure
        client.release(len(fetched.body or b""))


def _next(ended: queue.SimpleQueue[tuple[int, Fetched] | BaseException], client: Client) -> tuple[int, Fetched] | BaseException:
    """Return the next answer. Raises the client's error if the client's thread has stopped and no answer can follow."""
    while True:
        over = client.has_ended  # read before the wait: if True, the client's last answer is already in the queue
        try:
            return ended.get(timeout=0.0 if over else LOOK_S)
        except queue.Empty:
            if over:
                _raise_why(client)


def _raise_why(client: Client) -> NoReturn:
    try:
        client.close()  # raises the error that broke the client
    except RuntimeError as error:
        if isinstance(error.__cause__, OSError):  # a fault of the machine: report it as such, not as a bug
            raise error.__cause__ from None
        raise
    raise RuntimeError("the web client was closed while rows waited for it")
