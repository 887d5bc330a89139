"""The step and the source: what a recipe is made of.

A step is a frozen dataclass; its fields are its parameters in YAML. It declares as data what it reads, writes and needs,
and consists of a measurement and a decision, either of which may be absent:

* `measure` looks at living rows and returns columns. The engine commits them under the step's name and the parameters
  in `measured_by`, so thresholds can move later without measuring again.
* `decide` sets `drop` from stored columns. It is cheap and is done anew in every run.

No step removes a row or moves a position.
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
    """What a step may ask of the worker while it measures one part."""

    def image_bytes(self, blob: str, offset: int, size: int) -> bytes:
        """Return the encoded bytes of an image that lies in a blob."""
        ...

    def kept(self, name: str, make: Callable[[], T]) -> T:
        """Return what the worker keeps under this name from part to part (a loaded model), made at first use."""
        ...

    def note(self, facts: Mapping[str, Any]) -> None:
        """Let the manifest say this of what is being measured: which weights, say."""
        ...


@dataclass(frozen=True)
class DistributedSearch:
    """What a decision that is spread over workers is given. `pieces` are what `Step.piece` made of each part, in order;
    `keep` puts an array where every worker reads it."""

    pieces: list[dict[str, StoredArray]]
    run: MapTasks
    keep: Callable[[NDArray], StoredArray]

    def named(self, name: str) -> list[StoredArray]:
        """Return one array of every part."""
        return [piece[name] for piece in self.pieces]


@dataclass(frozen=True, kw_only=True)
class Step:
    """Rows in, the same rows out, with columns added or `drop` set."""

    # What names its measurements on disk, wherever its file lies. Of a shipped step it never changes; a user's own step
    # needs none while its module keeps its name (`id_of`). It is not inherited.
    id: ClassVar[str] = ""

    # Columns it looks at: of ROW, or measured by steps before it. `images.sha256` is one field of what `images` holds: a
    # decision over all rows should name fields, for what it reads is carried to one machine.
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[Mapping[str, pa.DataType]] = {}  # columns it measures, or rewrites where they are ROW's
    measured_by: ClassVar[tuple[str, ...]] = ()  # parameters that the measurement depends on; never a threshold
    version: ClassVar[int] = 1  # raise it when the same parameters come to measure something else
    sees_all: ClassVar[bool] = False  # decides over all rows at once (dedup, top fraction), on the columns it reads alone
    changes: ClassVar[tuple[str, ...]] = ()  # columns of ROW that a decision over all rows rewrites
    distribute_above: ClassVar[int] = 0  # with more rows than this `decide_distributed` decides over all of them; 0: never
    needs: ClassVar[tuple[str, ...]] = ()  # "model" for one part at a time; "gpu" where one is used if there is one
    is_private: ClassVar[bool] = False  # what it rejects is counted in the report, but never shown there

    label: str = ""  # what its columns and verdicts are called; give one when a step stands twice in a recipe

    @property
    def name(self) -> str:
        """The label, or else the name of the file that holds the step."""
        return self.label or file_name(self)

    def columns_read(self) -> tuple[str, ...]:
        """Return `reads`; a step whose parameters name columns says here which."""
        return self.reads

    def columns_changed(self) -> tuple[str, ...]:
        """Return `changes`; a step whose parameters say what it rewrites says it here."""
        return self.changes

    def check(self) -> None:
        """Raise RecipeError for parameters that cannot work, before any row is read."""

    def identity(self) -> str:
        """Return what else the measurement depends on besides `measured_by`: a hash of a model's weights, of a word list."""
        return ""

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        """Return the columns in `writes`, one value for each row; all rows given are alive."""
        raise NotImplementedError

    def decide(self, rows: pa.Table) -> pa.Table:
        """Return the rows with `drop` set where the stored columns call for it."""
        return rows

    def piece(self, rows: pa.Table) -> tuple[pa.Table, dict[str, np.ndarray]]:
        """Return a part's rows as `decide_distributed` is shown them, and as arrays what only its search looks at."""
        return rows, {}

    def decide_distributed(self, rows: pa.Table, spread: DistributedSearch) -> pa.Table:
        """Decide as `decide` does, with the search cut into tasks for workers (`similarity/distributed.py`)."""
        raise NotImplementedError

    def column(self, name: str) -> str:
        """Return the full name of a measured column: `name` itself for ROW's, else prefixed by the step's label."""
        if name in ROW.names:
            return name
        return f"{self.name}.{name}" if name else self.name

    def run(self, rows: pa.Table, context: StepContext | None = None) -> pa.Table:
        """Measure every living row, then decide: the step alone, as tests and notebooks use it."""
        if self.writes:
            living = alive(rows)
            measured = self.measure(rows.filter(pa.array(living)), context)  # type: ignore[arg-type]
            for name, values in measured.items():
                old = rows[self.column(name)] if self.column(name) in rows.column_names else None
                rows = set_column(rows, self.column(name), scatter(values, living, old))
        return self.decide(rows)


def id_of(context: Step | Source) -> str:
    """Return the id that stands on disk for a step or source: the one its class declares, else its module's name.

    The name of the class is added where its module holds several steps, or several sources, and in a script, whose module
    is always called `__main__`.
    """
    cls, base = type(context), Source if isinstance(context, Source) else Step
    if declared := vars(cls).get("id"):
        return declared
    known = [one for one in vars(sys.modules[cls.__module__]).values() if isinstance(one, type) and issubclass(one, base)]
    alone = all(one is cls for one in known if one.__module__ == cls.__module__) and cls.__module__ != "__main__"
    return cls.__module__ if alone else f"{cls.__module__}.{cls.__qualname__}"


def file_name(context: Step | Source) -> str:
    """Return the name by which a recipe calls a shipped step or source; of a user's own the last part of its module."""
    return (vars(type(context)).get("id") or type(context).__module__).rpartition(".")[2]


def scatter(values: pa.Array, where: Any, old: pa.Array | pa.ChunkedArray | None) -> pa.Array:
    """Spread values over the places where `where` is true; elsewhere stands what was there, or null."""
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    take = np.where(where, np.cumsum(where) - 1, -1)
    if old is None:
        return values.take(pa.array(take, mask=take < 0))
    old = old.combine_chunks() if isinstance(old, pa.ChunkedArray) else old
    both = pa.concat_arrays([values, old.cast(values.type)])
    return both.take(pa.array(np.where(where, take, len(values) + np.arange(len(take)))))


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where rows begin: a list of addresses, a dataset, archives. Only a source makes rows."""

    id: ClassVar[str] = ""  # as a step's

    gives: ClassVar[Gives] = "pairs"  # what its rows are: pairs, or both kinds; documents; conversations
    by_address: ClassVar[bool] = False  # whether every image stands at an address, so that `download` has to fetch it
    states_hashes: ClassVar[bool] = False  # whether its rows have `stated_hashes`
    shuffled: ClassVar[bool] = True  # lists: rows are cut into parts in the order of their keys; archives: a piece is a part

    def check(self) -> None:
        """Raise RecipeError when the source cannot be read as the recipe says: no file, no such column."""
        self.files()

    def files(self) -> Sequence[tuple[str, int]]:
        """Return path and size of every file, sorted: what tells one source from another. RecipeError: there is none."""
        raise NotImplementedError

    def pieces(self) -> list[dict[str, Any]]:
        """Return the ranges of the source that can be read alone, as plain JSON values, in order: by default, its files."""
        return [{"path": path} for path, _ in self.files()]

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        """Yield the rows of a piece: any columns of ROW but `key`, and `id` where a record has an identity of its own.

        A record that cannot be read is a row with `drop` "source" and `reason` "bad_record".
        """
        raise NotImplementedError

    def warning(self) -> str | None:
        """Return what `check` tells of a source that can be read and is perhaps not meant so; None: nothing."""
        return None

    def carries(self) -> Sequence[str]:
        """Return the columns that go into the sample's JSON, as far as the source's beginning tells at once."""
        return ()

    def read_counting(self, piece: dict[str, Any], others: Counter[str]) -> Iterator[pa.Table]:
        """Yield as `read` does, and count in `others`, by kind, the records of the piece that make no row of their own."""
        return self.read(piece)
