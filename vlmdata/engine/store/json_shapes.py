"""The JSON records of a dataset. Each is checked against a declared shape before use, because it may come from strangers."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vlmdata.engine.store.store_protocol import Store
from vlmdata.step import RecipeError

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]
DEEPEST = 100  # levels of nested lists and objects; recursive readers allow about ten times as many
WORK_FIX = "Remove the folder work/ and build the dataset again"


class Shape(BaseModel):
    """The required fields of a record; other fields are allowed and not checked."""

    model_config = ConfigDict(strict=True)


class Drops(Shape):
    """The number of rows that a step dropped for one reason."""

    step: str
    reason: str | None
    rows: Count


class FileFacts(Shape):
    """A manifest's facts about a file. Files of the ledger have `rows`, tars have `samples`."""

    bytes: Count
    sha256: str
    rows: Count | None = None
    samples: Count | None = None


class ShardsRecord(Shape):
    """The fields of a recipe's `shards` that readers of a dataset use."""

    layout: Literal["captions", "documents"]


class RecipeRecord(Shape):
    """The recipe in a manifest."""

    source: dict[str, Any]
    steps: list[Any]
    shards: ShardsRecord


class Manifest(Shape):
    """manifest.json. Manifests of earlier commits lack the fields that have a default."""

    rows: Count
    kept: Count
    limit: Count | None = None
    dropped: list[Drops]
    other_records: dict[str, Count] = {}
    source: str
    recipe: RecipeRecord
    versions: dict[str, str] = {}
    models: dict[str, list[dict[str, Any]]] = {}
    provenance: dict[str, dict[str, Count]] = {}
    files: dict[str, FileFacts]

    @model_validator(mode="after")
    def _counts_ledgers(self) -> Manifest:
        for name, facts in self.files.items():
            if name.startswith("ledger/") and facts.rows is None:
                raise ValueError(f"files.{name}.rows is missing")
        return self


class Takedown(Shape):
    """forgotten/NNNNN.json: the tombstones of one takedown."""

    at: str
    rows: Count
    keys: list[str]
    hashes: list[Hex]
    likenesses: list[tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")], Annotated[int, Field(ge=0, le=64)]]]


class PendingTakedown(Takedown):
    """The record of a takedown that is not finished. `swap` maps each published file to its new file in `folder`, or to null.

    Null means that the published file is deleted.
    """

    folder: Annotated[str, Field(pattern=r"^forgotten/[0-9a-f]{32}$")]
    cells: dict[Annotated[str, Field(pattern=r"^\d{1,18}$")], list[Count]]
    swap: dict[str, str | None]
    manifest: Manifest

    @model_validator(mode="after")
    def _takes_its_own_files(self) -> PendingTakedown:
        for target, file in self.swap.items():
            if file not in (None, f"{self.folder}/{target}"):
                raise ValueError(f"swap.{target} is another file")
        return self


class Planned(Shape):
    """work/plan.json; see engine/partitions/plan.py."""

    source: str
    part_rows: Count
    parts: Count
    rows: Count | None
    files: list[str]
    pieces: list[dict[str, Any]]


class PartitionsRecord(Shape):
    """work/parts.json: the number of each partition, how many rows were taken (null: all), and its rows in the ledger."""

    decided: list[str]
    parts: list[tuple[Count, Count | None, Count]]


class Entry(Shape):
    """work/log/PART/NNNN.json; see engine/partitions/partition_log.py."""

    table: str
    measures: list[str]
    blobs: list[str]
    rows: bool
    others: dict[str, Count] = {}


def read_record(store: Store, name: str, shape: type[Shape], fix: str) -> dict[str, Any]:
    """Return a record, unchanged.

    Raises FileNotFoundError if there is none, and RecipeError if it is damaged; the message names the record and says `fix`.
    """
    try:
        record = json.loads(store.read(name))
        _check_plain(record, DEEPEST)
        shape.model_validate_json(json.dumps(record))  # as JSON, because strict mode accepts a list as a tuple only there
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{store.url}/{name} is damaged: {_fault(error)}. {fix}") from None
    return record


def _check_plain(value: Any, levels: int) -> None:
    """Raise ValueError for text that no file can hold (half a surrogate pair), and for deeper nesting than `levels`."""
    if not levels:
        raise ValueError(f"more than {DEEPEST} nested levels")
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict):
        for name, one in value.items():
            name.encode()
            _check_plain(one, levels - 1)
    elif isinstance(value, list):
        for one in value:
            _check_plain(one, levels - 1)


def _fault(error: Exception) -> str:
    """Return what is wrong, and in which field, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        return " ".join((f"{place}: {message}" if place else message).split())[:300]
    return " ".join(str(error).split())[:120]
