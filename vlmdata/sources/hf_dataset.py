"""A Hugging Face dataset: by its name on the Hub, streamed or downloaded, or from a local folder or files."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from vlmdata.intake.find import find, is_remote
from vlmdata.intake.lists import check_columns
from vlmdata.intake.opened import raw_file
from vlmdata.intake.pairs import json_object
from vlmdata.intake.pictures import file_in_place, inline
from vlmdata.intake.rows import pair, tables
from vlmdata.intake.strings import clean
from vlmdata.step import RecipeError, Source

SLICE = 1000  # rows of a part
READERS = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".jsonl": "json", ".json": "json", ".tar": "webdataset"}


@dataclass(frozen=True, kw_only=True)
class HfDataset(Source):
    """Rows of a dataset whose images are inline (an Image feature or bytes) or stand at addresses.

    `path` is a name on the Hub, a folder that `save_to_disk` wrote, a folder or glob of Parquet or Arrow files, or an
    image folder. The undecoded bytes are taken, so that nothing is re-encoded. A row without its image is dropped as
    `no_image` or `no_address`.
    """

    path: str
    name: str = ""  # configuration, where a dataset has several
    split: str = "train"
    revision: str = ""  # branch, tag or commit on the Hub; name a commit to be sure of the same rows
    streaming: bool = False  # read shard by shard from where it lies; otherwise the library downloads and converts it once
    image: str = "image"  # column of inline images; unused with `url`
    url: str = ""  # column of addresses, in place of inline images
    caption: str | list[str] = "caption"  # columns of captions; a column of lists holds alternatives; "" for none
    extra: Literal["all"] | list[str] = "all"  # other columns that go into the sample's JSON; never bytes or images

    @property
    def shuffled(self) -> bool:  # type: ignore[override]
        """A list of addresses is planned as such; with inline images a slice of the dataset is a part."""
        return bool(self.url)

    def check(self) -> None:
        names = self._dataset().column_names  # of a stream unknown where the dataset does not say
        if names is not None:
            extra = [] if isinstance(self.extra, str) else self.extra
            check_columns(self.path, names, [self.url or self.image, *self._captions(), *extra])
        for name in self._captions():
            self._check_caption(name)

    def _check_caption(self, name: str) -> None:
        from datasets import ClassLabel, Value

        feature = (self._dataset().features or {}).get(name)
        inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
        if feature is not None and not isinstance(inner, Value | ClassLabel):
            raise RecipeError(f"{self.path}: the column '{name}' holds no texts or labels: {' '.join(str(feature).split())}")

    def files(self) -> Sequence[tuple[str, int]]:
        if _is_local(self.path):
            return find(self.path, ("",))
        data = self._dataset()
        return [(f"{self.path}/{self.name}/{self.split}@{self.revision}", 0 if self.streaming else len(data))]

    def pieces(self) -> list[dict[str, Any]]:
        data = self._dataset()
        if self.streaming:
            return [{"shard": number, "shards": data.num_shards} for number in range(data.num_shards)]
        return [{"start": start, "stop": min(start + SLICE, len(data))} for start in range(0, len(data), SLICE)]

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        from datasets.exceptions import DatasetsError

        try:
            yield from self._read(piece)
        except (OSError, DatasetsError, pa.ArrowException) as error:
            raise RecipeError(f"{self.path}: cannot be read as a dataset: {' '.join(str(error).split())}") from None

    def _read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        data = self._dataset()
        if self.streaming:
            rows = iter(data.shard(num_shards=piece["shards"], index=piece["shard"]))
        else:
            rows = (data[number] for number in range(piece["start"], piece["stop"]))
        yield from tables(map(functools.partial(self._row, labels=self._labels()), rows))

    def _labels(self) -> dict[str, list[str]]:
        """Return the words of those columns of captions that hold the numbers of labels."""
        features = self._dataset().features or {}
        return {name: features[name].names for name in self._captions() if hasattr(features.get(name), "int2str")}

    def _captions(self) -> list[str]:
        return [name for name in ([self.caption] if isinstance(self.caption, str) else self.caption) if name]

    def _dataset(self) -> Any:
        return _open(self.path, self.name, self.split, self.revision, self.streaming)

    def _row(self, row: Mapping[str, Any], labels: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        captions: list[str] = []
        for name in self._captions():
            value = row.get(name)
            if name in labels:
                value = labels[name][value] if value is not None and value >= 0 else None  # -1: without a label
            captions += [clean(one) for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
        used = {self.url or self.image, *self._captions()}
        carried = [name for name in row if name not in used] if self.extra == "all" else self.extra
        extra = {name: row[name] for name in carried if name in row and not _holds_bytes(row[name])}
        fields = {"extra": clean(json_object(extra)) if extra else None}
        if self.url:
            where = row.get(self.url)
            found = clean(where.strip()) if isinstance(where, str) else ""
            return pair({"url": found or None}, captions, reason=None if found else "no_address", **fields)
        return pair(self._inline(row.get(self.image)), captions, **fields)

    def _inline(self, value: object) -> dict[str, Any]:
        """Return the image of a row: {"bytes", "path"} of an Image feature that is not decoded, bytes, or a path."""
        if isinstance(value, Mapping):
            value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
        if isinstance(value, bytes):
            return inline(value)
        if not isinstance(value, str):
            return {"drop": "source", "reason": "no_image"}
        if value.startswith(("http://", "https://")):
            return {"url": value}
        if is_remote(value):  # inside an archive that the library streams
            with raw_file(value) as file:
                return inline(file.read())
        return file_in_place(value)


@functools.lru_cache(maxsize=4)
def _open(path: str, name: str, split: str, revision: str, streaming: bool) -> Any:
    """Return the split with its images left undecoded. Raises RecipeError for what cannot be opened."""
    import datasets

    try:
        data = _load(path, name, split, revision, streaming)
    except (OSError, ValueError, datasets.exceptions.DatasetsError, pa.ArrowException) as error:
        raise RecipeError(f"{path}: cannot be opened as a dataset: {' '.join(str(error).split())}") from None
    for column, feature in (data.features or {}).items():
        if isinstance(feature, datasets.Image):
            data = data.cast_column(column, datasets.Image(decode=False))
    return data


def _load(path: str, name: str, split: str, revision: str, streaming: bool) -> Any:
    import datasets

    if os.path.isdir(path) and {"state.json", "dataset_dict.json"} & set(os.listdir(path)):
        saved = datasets.load_from_disk(path)
        if isinstance(saved, datasets.DatasetDict):
            if split not in saved:
                raise ValueError(f"there is no split '{split}'; there is: {', '.join(saved)}")
            saved = saved[split]
        return saved.to_iterable_dataset(num_shards=max(1, len(saved) // SLICE)) if streaming else saved
    if _is_local(path) and not (os.path.isdir(path) and name):
        files = [file.path for file in find(path, tuple(READERS))] if _holds_readable(path) else []
        if files:
            reader = READERS[os.path.splitext(files[0])[1].lower()]
            return datasets.load_dataset(reader, data_files={split: files}, split=split, streaming=streaming)
    return datasets.load_dataset(path, name or None, split=split, revision=revision or None, streaming=streaming)


def _is_local(path: str) -> bool:
    return is_remote(path) or os.path.exists(path) or "*" in path


def _holds_readable(path: str) -> bool:
    """Say whether a path is of files in one of READERS' formats, and not a folder of images."""
    try:
        files = [file.path for file in find(path, ("",))]
    except RecipeError:
        return False
    images = sum(file.lower().endswith((".jpg", ".jpeg", ".png", ".webp")) for file in files)
    return not images


def _holds_bytes(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_bytes, value.values()))
    if isinstance(value, list):
        return any(map(_holds_bytes, value))
    return isinstance(value, bytes)
