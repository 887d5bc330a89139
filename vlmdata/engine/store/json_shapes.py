"""The shapes of the JSON records of a dataset. Each record is checked before use, because it may come from strangers."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vlmdata.engine.store.store_protocol import Store
from vlmdata.step import RecipeError

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]
DEEPEST = 100  # maximum levels of nested lists and objects; recursive readers fail at about ten times as many
WORK_FIX = "Remove the folder work/ and build the dataset again"


class Shape(BaseModel):
    """The required fields of a record. Other fields are allowed and are not checked."""

    model_config = ConfigDict(strict=True)


class Drops(Shape):
    """The number of rows that a step dropped for one reason."""

    step: str
    reason: str | None
    rows: Count


class FileFacts(Shape):
    """The facts about a file in a manifest. Files of the ledger have `rows`, and tars have `samples`."""

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


class Generation(Shape):
    """What the answers of one step took. `generation/totals.py` describes the fields."""

    answers: Count
    failed: dict[str, Count]
    accepted: Count | None
    rejected: dict[str, Count]
    prompt_tokens: Count
    tokens: Count
    seconds: Amount
    money: Amount | None


class Manifest(Shape):
    """The content of manifest.json. Manifests of earlier versions lack the fields that have a default."""

    rows: Count
    kept: Count
    limit: Count | None = None
    dropped: list[Drops]
    other_records: dict[str, Count] = {}
    source: str
    recipe: RecipeRecord
    versions: dict[str, str] = {}
    models: dict[str, list[dict[str, Any]]] = {}
    generations: dict[str, Generation] = {}
    provenance: dict[str, dict[str, Count]] = {}
    files: dict[str, FileFacts]

    @model_validator(mode="after")
    def _counts_ledgers(self) -> Manifest:
        for name, facts in self.files.items():
            if name.startswith("ledger/") and facts.rows is None:
                raise ValueError(f"files.{name}.rows is missing")
        return self


class Takedown(Shape):
    """The content of forgotten/NNNNN.json: the tombstones of one takedown."""

    at: str
    rows: Count
    keys: list[str]
    hashes: list[Hex]
    likenesses: list[tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")], Annotated[int, Field(ge=0, le=64)]]]


class PendingTakedown(Takedown):
    """The record of a takedown that is not finished.

    `swap` maps each published file to its new file in `folder`, or to null if the published file is to be deleted.
    """

    folder: Annotated[str, Field(pattern=r"^forgotten/[0-9a-f]{32}$")]
    cells: dict[Annotated[str, Field(pattern=r"^\d{1,18}$")], list[Count]]
    swap: dict[str, str | None]
    manifest: Manifest

    @model_validator(mode="after")
    def _takes_its_own_files(self) -> PendingTakedown:
        for target, file in self.swap.items():
            if file not in (None, f"{self.folder}/{target}"):
                raise ValueError(f"swap.{target} must be {self.folder}/{target} or null")
        return self


class Planned(Shape):
    """The content of work/plan.json. engine/partitions/plan.py describes the fields."""

    source: str
    part_rows: Count
    parts: Count
    rows: Count | None
    files: list[str]
    pieces: list[dict[str, Any]]
    others: dict[str, Count] = {}  # plans of earlier versions lack it


class PartitionsRecord(Shape):
    """The content of work/parts.json.

    Each item of `parts` holds the number of a partition, the number of rows that were taken (null: all), and the number of
    rows in the ledger. `decided` names the files of the global decisions.
    """

    decided: list[str]
    parts: list[tuple[Count, Count | None, Count]]


class Entry(Shape):
    """The content of work/log/PART/NNNN.json. engine/partitions/partition_log.py describes it."""

    table: str
    measures: list[str]
    blobs: list[str]
    rows: bool
    others: dict[str, Count] = {}


def read_record(store: Store, name: str, shape: type[Shape], fix: str) -> dict[str, Any]:
    """Return a record as it is stored, after checking its shape.

    Raises FileNotFoundError if there is none, and RecipeError if it is damaged. The message names the record and ends with
    `fix`.
    """
    try:
        return record_of(store.read(name), shape)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{store.url}/{name} is damaged: {_fault(error)}. {fix}") from None


def record_of(data: bytes, shape: type[Shape]) -> dict[str, Any]:
    """Return the record in a JSON file, after checking its shape. Raises ValueError or RecursionError if it is another."""
    record = json.loads(data)
    _check_plain(record, DEEPEST)
    shape.model_validate_json(json.dumps(record))  # as JSON, because strict mode accepts a list for a tuple only in JSON
    assert isinstance(record, dict)  # the shape is that of an object
    return record


def _check_plain(value: Any, levels: int) -> None:
    """Raise ValueError for a string that UTF-8 cannot encode (half a surrogate pair), or for nesting deeper than `levels`."""
    if not levels:
        raise ValueError(f"lists and objects are nested more than {DEEPEST} levels deep")
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
    """Return one line that says what is wrong and in which field."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        return " ".join((f"{place}: {message}" if place else message).split())[:300]
    return " ".join(str(error).split())[:120]
