"""The base classes of steps and sources, the two parts of a recipe.

A step is a frozen dataclass; its fields are its parameters in YAML. Class attributes declare what it reads, writes and
needs. It has a measurement, a decision, or both:

* `measure` takes living rows and returns columns. The engine stores them under the step's name and the parameters in
  `measured_by`, so a later run can change thresholds without measuring again.
* `decide` sets `drop` from stored columns. It is cheap; every run repeats it.

A step never removes a row or moves a position.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlmdata.errors import RecipeError as RecipeError  # steps of users import it from here
from vlmdata.row import ROW, alive, set_column

T = TypeVar("T")
Gives = Literal["pairs", "documents", "conversations"]
StoredArray = str | NDArray  # the path or address of an .npy file, or the array itself
MapTasks = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]  # like the builtin `map`, in order


class StepContext(Protocol):
    """The worker's services for a step that measures one partition."""

    def image_bytes(self, blob: str, offset: int, size: int) -> bytes:
        """Return the encoded bytes of an image in a blob."""
        ...

    def kept(self, name: str, make: Callable[[], T]) -> T:
        """Return an object that the worker keeps across partitions, such as a loaded model; `make` creates it at first use."""
        ...

    def note(self, facts: Mapping[str, Any]) -> None:
        """Record facts about the measurement in the manifest, such as the hash of the weights."""
        ...


@dataclass(frozen=True)
class DistributedSearch:
    """The input of a distributed decision. `pieces` holds what `Step.piece` returned for each partition, in order; `run` maps
    a function over tasks on the workers; `keep` stores an array where every worker can read it."""

    pieces: list[dict[str, StoredArray]]
    run: MapTasks
    keep: Callable[[NDArray], StoredArray]

    def named(self, name: str) -> list[StoredArray]:
        """Return the array of this name from every partition."""
        return [piece[name] for piece in self.pieces]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step takes rows and returns the same rows with columns added or `drop` set."""

    # Names the measurements on disk, independent of the file's path. A shipped step never changes it; a user's step needs
    # none as long as its module keeps its name (`id_of`). Subclasses do not inherit it.
    id: ClassVar[str] = ""

    # Columns it reads: columns of ROW, or columns that earlier steps measure. `images.sha256` is one field of `images`: a
    # global decision should name fields, because all that it reads is sent to one machine.
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[Mapping[str, pa.DataType]] = {}  # columns that it measures; a column of ROW is rewritten
    measured_by: ClassVar[tuple[str, ...]] = ()  # parameters on which the measurement depends; never a threshold
    version: ClassVar[int] = 1  # raise it when the same parameters give other values
    sees_all: ClassVar[bool] = False  # global decision (dedup, top fraction); it sees only the columns in `reads`
    changes: ClassVar[tuple[str, ...]] = ()  # columns of ROW that a global decision rewrites
    distribute_above: ClassVar[int] = 0  # with more rows than this, `decide_distributed` replaces `decide`; 0: never
    needs: ClassVar[tuple[str, ...]] = ()  # "model": one partition at a time; "gpu": uses a GPU if there is one
    is_private: ClassVar[bool] = False  # the report counts rejected rows but never shows them

    label: str = ""  # prefix of its columns and name in its verdicts; needed when a step occurs twice in a recipe

    @property
    def name(self) -> str:
        """The label, or without one the name of the step's file."""
        return self.label or file_name(self)

    def columns_read(self) -> tuple[str, ...]:
        """Return `reads`. Override it if parameters name columns."""
        return self.reads

    def columns_changed(self) -> tuple[str, ...]:
        """Return `changes`. Override it if parameters name the columns to rewrite."""
        return self.changes

    def check(self) -> None:
        """Raise RecipeError for invalid parameters, before any row is read."""

    def identity(self) -> str:
        """Return what the measurement depends on besides `measured_by`, such as a hash of weights or of a word list."""
        return ""

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        """Return the columns in `writes`, one value per row; all rows are alive."""
        raise NotImplementedError

    def decide(self, rows: pa.Table) -> pa.Table:
        """Return the rows with `drop` set on those that the step rejects, judged by stored columns."""
        return rows

    def piece(self, rows: pa.Table) -> tuple[pa.Table, dict[str, np.ndarray]]:
        """Return one partition's rows for `decide_distributed`, and the arrays that only its search needs."""
        return rows, {}

    def decide_distributed(self, rows: pa.Table, spread: DistributedSearch) -> pa.Table:
        """Decide like `decide`, with the search split into tasks for workers (`similarity/distributed.py`)."""
        raise NotImplementedError

    def column(self, name: str) -> str:
        """Return the full name of a measured column: `name` for a column of ROW, else `name` prefixed by the step's name."""
        if name in ROW.names:
            return name
        return f"{self.name}.{name}" if name else self.name

    def run(self, rows: pa.Table, context: StepContext | None = None) -> pa.Table:
        """Measure every living row, then decide. For tests and notebooks: it runs the step without the engine."""
        if self.writes:
            living = alive(rows)
            measured = self.measure(rows.filter(pa.array(living)), context)  # type: ignore[arg-type]
            for name, values in measured.items():
                old = rows[self.column(name)] if self.column(name) in rows.column_names else None
                rows = set_column(rows, self.column(name), scatter(values, living, old))
        return self.decide(rows)


def id_of(context: Step | Source) -> str:
    """Return the id that names a step or source on disk: the class's own `id`, else its module's name.

    The class name is appended if the module holds several steps or several sources, and in a script, because its module is
    always `__main__`.
    """
    cls, base = type(context), Source if isinstance(context, Source) else Step
    if declared := vars(cls).get("id"):
        return declared
    known = [one for one in vars(sys.modules[cls.__module__]).values() if isinstance(one, type) and issubclass(one, base)]
    alone = all(one is cls for one in known if one.__module__ == cls.__module__) and cls.__module__ != "__main__"
    return cls.__module__ if alone else f"{cls.__module__}.{cls.__qualname__}"


def file_name(context: Step | Source) -> str:
    """Return the recipe's name for a shipped step or source; for a user's class, the last part of its module's name."""
    return (vars(type(context)).get("id") or type(context).__module__).rpartition(".")[2]


def scatter(values: pa.Array, where: Any, old: pa.Array | pa.ChunkedArray | None) -> pa.Array:
    """Put `values` at the positions where `where` is true; other positions keep the value in `old`, or are null without it."""
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    take = np.where(where, np.cumsum(where) - 1, -1)
    if old is None:
        return values.take(pa.array(take, mask=take < 0))
    old = old.combine_chunks() if isinstance(old, pa.ChunkedArray) else old
    both = pa.concat_arrays([values, old.cast(values.type)])
    return both.take(pa.array(np.where(where, take, len(values) + np.arange(len(take)))))


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source produces the rows: from a list of addresses, a dataset or archives."""

    id: ClassVar[str] = ""  # as in Step

    gives: ClassVar[Gives] = "pairs"  # kind of its rows; "pairs" also covers sources that mix pairs and documents
    by_address: ClassVar[bool] = False  # every image is given by its address, so `download` must fetch it
    states_hashes: ClassVar[bool] = False  # rows have `stated_hashes`
    shuffled: ClassVar[bool] = True  # True (lists): partitions follow the order of keys; False (archives): a piece is one

    def check(self) -> None:
        """Raise RecipeError if the source does not fit the recipe, for example if a file or column is missing."""
        self.files()

    def files(self) -> Sequence[tuple[str, int]]:
        """Return the path and size of every file, sorted; they identify the source. Raises RecipeError if there is none."""
        raise NotImplementedError

    def pieces(self) -> list[dict[str, Any]]:
        """Return the independently readable ranges of the source, in order, as plain JSON values. By default, its files."""
        return [{"path": path} for path, _ in self.files()]

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        """Yield the rows of a piece: any columns of ROW except `key`, and `id` if records have identifiers.

        An unreadable record becomes a row with `drop` "source" and `reason` "bad_record".
        """
        raise NotImplementedError

    def warning(self) -> str | None:
        """Return a warning for `check` about a readable source that is probably a mistake, or None."""
        return None

    def carries(self) -> Sequence[str]:
        """Return the columns that go into the sample's JSON, as far as the start of the source shows them."""
        return ()

    def read_counting(self, piece: dict[str, Any], others: Counter[str]) -> Iterator[pa.Table]:
        """Yield like `read`, and count in `others`, by kind, the records of the piece that produce no row."""
        return self.read(piece)
