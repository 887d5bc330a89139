"""The base classes of steps and sources, the two parts of a recipe.

A step is a frozen dataclass whose fields are its parameters in YAML. A `Doc` at a field says what it does. Class attributes
declare what the step reads, writes and needs. A step has a measurement, a decision, or both:

* `measure` takes the rows that no step has rejected, and returns columns. The engine stores the columns for later runs. A
  later run may change parameters that are not in `measured_by`, such as thresholds, without measuring again.
* `decide` sets `drop` from stored columns. It is cheap, so every run repeats it.

A step never removes a row and never moves an image or text to another position.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlmdata.errors import RecipeError as RecipeError  # users' steps import RecipeError from here
from vlmdata.generator import Answer, Generator, Prompt, Sampling
from vlmdata.parameters import Doc
from vlmdata.row import ROW, alive, set_column

T = TypeVar("T")
Gives = Literal["pairs", "documents", "conversations"]
StoredArray = str | NDArray  # the path or address of an .npy file, or the array itself
MapTasks = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]  # like the built-in `map`, with results in order


class StepContext(Protocol):
    """The interface to the worker that runs a step: image bytes, objects that are kept, and notes for the manifest."""

    again: tuple[str, ...]  # reasons of failures that a retry asks for again; empty in a run

    def image_bytes(self, blob: str, offset: int, size: int) -> bytes:
        """Return the encoded bytes of an image: `size` bytes from `offset` in the file `blob`."""
        ...

    def store_image(self, data: bytes) -> tuple[str, int]:
        """Store the encoded bytes of an image that the step changed. Return their `blob` and `offset`, for the column `images`.

        The bytes are committed together with the measurement. Without a commit they are deleted.
        """
        ...

    def kept(self, name: str, make: Callable[[], T]) -> T:
        """Return an object, such as a loaded model, that the worker keeps across partitions. `make` creates it at first use."""
        ...

    def note(self, facts: Mapping[str, Any]) -> None:
        """Record facts about the measurement in the manifest, such as the hash of the weights."""
        ...

    def ask(self, generator: Generator, sampling: Sampling, questions: Sequence[Question]) -> list[Answer]:
        """Return the generator's answer to each question, in order. Each answer is stored at once, and a stored one is reused.

        Raises GeneratorStopped if the model or endpoint cannot go on.
        """
        ...


@dataclass(frozen=True)
class Question:
    """A prompt that is made when it is sent, because images take memory.

    `id` identifies the question among those of the measurement, also in a later run. `key` is the key of its row. `make`
    returns the prompt, or the reason why it cannot be made, such as bad_image.
    """

    id: str
    key: str
    make: Callable[[], Prompt | str]


@dataclass(frozen=True)
class DistributedSearch:
    """The input of `Step.decide_distributed`, which decides about all rows with the help of all workers.

    `pieces` holds the arrays that `Step.piece` returned for each partition, in order. `run` maps a function over tasks on the
    workers. `keep` stores an array where every worker can read it.
    """

    pieces: list[dict[str, StoredArray]]
    run: MapTasks
    keep: Callable[[NDArray], StoredArray]

    def named(self, name: str) -> list[StoredArray]:
        """Return the array called `name` of every partition, in order."""
        return [piece[name] for piece in self.pieces]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step takes rows and returns the same rows with columns added or `drop` set."""

    # The name of the step's measurements on disk, which does not depend on the file's path. A shipped step never changes its
    # id. A user's step needs no id as long as its module is not renamed (see `id_of`). Subclasses do not inherit the id.
    id: ClassVar[str] = ""

    example: ClassVar[str] = ""  # lines of YAML: a list of steps, one of them this step

    # Columns that the step reads: columns of ROW, or columns that earlier steps measure. `images.sha256` is one field of
    # `images`. A global decision should name fields, because everything that it reads is sent to one machine.
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[Mapping[str, pa.DataType]] = {}  # columns that `measure` returns; they may replace columns of ROW
    measured_by: ClassVar[tuple[str, ...]] = ()  # parameters on which the measurement depends; never a threshold
    version: ClassVar[int] = 1  # increase this when the code gives other values for the same parameters
    sees_all: ClassVar[bool] = False  # True: `decide` gets all rows at once, with only the columns in `reads`
    changes: ClassVar[tuple[str, ...]] = ()  # columns of ROW that a global decision rewrites
    distribute_above: ClassVar[int] = 0  # number of rows above which `decide_distributed` replaces `decide`; 0: never
    # "model": the step loads a model; "gpu": the step uses a GPU if there is one, so only workers that have one run it;
    # "web": the step uses the web client;
    # "endpoint": one worker asks a server, with several requests at the same time
    needs: ClassVar[tuple[str, ...]] = ()
    # Fields of `images` without which the step does nothing, such as `phash` or `size`, or `blob` for the image's bytes.
    # `download` and `resize` set them. `check` refuses the step before `download` if the source does not give them.
    fetched: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ()  # modules that the core does not install; checked before work starts
    gives: ClassVar[Gives | None] = (
        None  # the kind that rows become, if the step changes it; `check` compares it with the layout
    )
    # True: the step copies texts into the JSON of samples, where later steps do not see them. `pii_remove` must come before it.
    copies_texts: ClassVar[bool] = False
    marks_pictures: ClassVar[bool] = False  # True: texts refer to marks that the step draws, so no resize may follow
    adds_texts: ClassVar[bool] = False  # True: the step adds texts to rows; steps with `gives` do so too
    needs_all_texts: ClassVar[bool] = False  # True: `check` refuses steps behind this one that add texts
    is_private: ClassVar[bool] = False  # the report counts rejected rows but never shows them
    # The comparison that rejects, by reason, so that a user can be told which setting keeps a row. `"flat": "< min_entropy"`:
    # the value was below the parameter; also <=, > and >=. `"format_*": "not in formats"`: `*` is not in the parameter.
    # `"banned_*": "in banned"`: `*` is in the parameter. `"two_images": "= layout documents"`: this value of the parameter
    # keeps the row. Reasons that are named like their parameter, such as `min_side` and `max_bytes`, need no entry.
    limits: ClassVar[Mapping[str, str]] = {}

    label: Annotated[
        str, Doc("Name of the step in verdicts and columns. Needed if a recipe uses a step twice. Empty: the step's name.")
    ] = ""

    @property
    def name(self) -> str:
        """The label, or the name of the step's file if there is no label."""
        return self.label or file_name(self)

    def columns_read(self) -> tuple[str, ...]:
        """Return the columns that the step reads. Override this method if parameters name columns."""
        return self.reads

    def fields_fetched(self) -> tuple[str, ...]:
        """Return the fields of `images` without which the step does nothing. Override this if they depend on parameters."""
        return self.fetched

    def columns_written(self) -> Mapping[str, pa.DataType]:
        """Return the columns that `measure` returns. Override this method if they depend on parameters.

        They are some of `writes`. A step that changes pictures returns the column `images` (see `StepContext.store_image`).
        """
        return self.writes

    def columns_changed(self) -> tuple[str, ...]:
        """Return the columns of ROW that the step rewrites when it makes a global decision (`sees_all`).

        Override this method if parameters name columns.
        """
        return self.changes

    def columns_decided(self) -> tuple[str, ...]:
        """Return the full names of columns that `decide` adds, which later steps may read. Default: none.

        They are computed in each run from what is stored, such as scores from the answers of a model.
        """
        return ()

    def fields_added(self) -> tuple[str, ...] | None:
        """Return the fields that `decide` adds to `extra`, or None if they are not known before a run."""
        return None if "extra" in self.columns_changed() else ()

    def needed(self) -> tuple[str, ...]:
        """Return what the step needs, as `needs` lists it. Override this method if it depends on parameters."""
        return self.needs

    def packages_needed(self) -> tuple[str, ...]:
        """Return the modules that the core does not install. Override this method if they depend on parameters."""
        return self.packages

    def check(self) -> None:
        """Raise RecipeError for invalid parameters, before any row is read."""

    def check_rows(self, rows: pa.Table) -> None:
        """Raise RecipeError if the source's first rows show that the step cannot do what its parameters say.

        `rows` are at most 1000 rows as the source gives them, without those that it drops. They may be too few to be sure of
        anything that depends on values.
        """

    def check_steps(self, before: Sequence[Step]) -> None:
        """Raise RecipeError if the step cannot use what the steps before it measure. They have passed their own checks."""

    def clip_weights(self) -> tuple[tuple[str, str], ...]:
        """Return (model, pretrained) of each model of open_clip that the step loads, so that `check` can look for the files."""
        return ()

    def embedding_files(self) -> tuple[str, ...]:
        """Return the .npy files of shape (N, D) that are compared with embeddings of a column which the step reads."""
        return ()

    def identity(self) -> str:
        """Return a string that identifies the inputs of the measurement that are not parameters, such as a hash of weights."""
        return ""

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        """Return a column of one value per row for each name in `columns_written`.

        `rows` holds only rows that no step has rejected.
        """
        raise NotImplementedError

    def decide(self, rows: pa.Table) -> pa.Table:
        """Return the rows, with `drop` set on each row that the step rejects. Only stored columns are used."""
        return rows

    def failed(self, rows: pa.Table, reasons: Collection[str]) -> np.ndarray:
        """Return a bool per row: true if the row's stored measurement failed for one of these reasons and can be repeated.

        `vlmdata retry` measures these rows again. `measure` then finds the stored columns in its rows.
        """
        return np.zeros(len(rows), bool)

    def spent(self, rows: pa.Table) -> dict[str, float]:
        """Return sums over the rows that the manifest adds up, such as tokens, or an empty dict."""
        return {}

    def piece(self, rows: pa.Table) -> tuple[pa.Table, dict[str, np.ndarray]]:
        """Return what `decide_distributed` needs from one partition: rows, and arrays for its search.

        The engine passes the rows of all partitions to `decide_distributed` as `rows`, and the arrays as `spread.pieces`.
        """
        return rows, {}

    def decide_distributed(self, rows: pa.Table, spread: DistributedSearch) -> pa.Table:
        """Return the same rows as `decide`, but split the search into tasks for workers (see `similarity/distributed.py`)."""
        raise NotImplementedError

    def column(self, name: str) -> str:
        """Return the full name of a column that the step measures.

        A column of ROW, the schema of a row, keeps its name. The full name of any other column is the step's name, a dot and
        `name`. If `name` is empty, the full name is only the step's name.
        """
        if name in ROW.names:
            return name
        return f"{self.name}.{name}" if name else self.name

    @classmethod
    def limit(cls, reason: str) -> tuple[str, str, str] | None:
        """Return the comparison that rejects a row for this reason: (sign, parameter, what `*` stands for), or None.

        For `= layout documents`, the last item is the value that keeps the row.
        """
        for pattern, rule in cls.limits.items():
            if pattern == reason or (pattern.endswith("*") and reason.startswith(pattern[:-1])):
                sign, parameter, *value = rule.replace("not in", "not-in").split()
                return sign.replace("-", " "), parameter, value[0] if value else reason[len(pattern.rstrip("*")) :]
        if reason[:4] in ("min_", "max_") and reason in {field.name for field in fields(cls)}:
            return "<" if reason.startswith("min_") else ">", reason, ""
        return None

    def run(self, rows: pa.Table, context: StepContext | None = None) -> pa.Table:
        """Measure all rows that are not rejected, then decide. Tests and notebooks can call this without an engine."""
        if self.columns_written():
            is_alive = alive(rows)
            measured = self.measure(rows.filter(pa.array(is_alive)), context)  # type: ignore[arg-type]
            for name, values in measured.items():
                old = rows[self.column(name)] if self.column(name) in rows.column_names else None
                rows = set_column(rows, self.column(name), scatter(values, is_alive, old))
        return self.decide(rows)


def id_of(context: Step | Source) -> str:
    """Return the id that names a step or source on disk: the `id` that the class declares, or the name of its module.

    The class name is appended to the module's name if the module holds several steps or several sources. It is also
    appended for a class in a script, because the module of a script is always `__main__`.
    """
    cls, base = type(context), Source if isinstance(context, Source) else Step
    if declared := vars(cls).get("id"):
        return declared
    known = [one for one in vars(sys.modules[cls.__module__]).values() if isinstance(one, type) and issubclass(one, base)]
    alone = all(one is cls for one in known if one.__module__ == cls.__module__) and cls.__module__ != "__main__"
    return cls.__module__ if alone else f"{cls.__module__}.{cls.__qualname__}"


def file_name(context: Step | Source) -> str:
    """Return the name that a shipped class has in recipes. For a user's class, return the last part of its module's name."""
    return (vars(type(context)).get("id") or type(context).__module__).rpartition(".")[2]


def scatter(values: pa.Array, where: Any, old: pa.Array | pa.ChunkedArray | None) -> pa.Array:
    """Return a column with the items of `values`, in order, where `where` is true, and with the items of `old` elsewhere.

    `where` is a bool array with as many true items as there are values. If `old` is None, the column is null elsewhere.
    """
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    take = np.where(where, np.cumsum(where) - 1, -1)
    if old is None:
        return values.take(pa.array(take, mask=take < 0))
    old = old.combine_chunks() if isinstance(old, pa.ChunkedArray) else old
    both = pa.concat_arrays([values, old.cast(values.type)])
    return both.take(pa.array(np.where(where, take, len(values) + np.arange(len(take)))))


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source produces the rows from a list of addresses, a dataset or archives."""

    id: ClassVar[str] = ""  # see `Step.id`
    example: ClassVar[str] = ""  # lines of YAML, the entry `source` of a recipe

    gives: ClassVar[Gives] = "pairs"  # kind of the rows; "pairs" also covers a mix of pairs and documents
    by_address: ClassVar[bool] = False  # every image is given by its address, so `download` must fetch it
    packages: ClassVar[tuple[str, ...]] = ()  # see `Step.packages`
    states_hashes: ClassVar[bool] = False  # rows have `stated_hashes`
    images_in: ClassVar[str] = ""  # the parameter that holds the folder of the image files which rows name
    # True (lists): rows are divided into partitions in the order of their keys. False (archives): each piece is a partition.
    shuffled: ClassVar[bool] = True

    def check(self) -> None:
        """Raise RecipeError if the source does not fit the recipe, for example if a file or column is missing."""
        self.files()

    def files(self) -> Sequence[tuple[str, int]]:
        """Return the path and size in bytes of every file, sorted. They identify the source.

        Raises RecipeError if there is no file.
        """
        raise NotImplementedError

    def pieces(self) -> list[dict[str, Any]]:
        """Return the parts of the source that can be read independently, in order, as JSON values. Default: the files."""
        return [{"path": path} for path, _ in self.files()]

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        """Yield the rows of a piece as tables.

        A table may have any columns of ROW, the schema of a row, except `key`. It has a column `id` if the records have ids.
        An unreadable record becomes a row with `drop` "source" and `reason` "bad_record".
        """
        raise NotImplementedError

    def warning(self) -> str | None:
        """Return a warning that `check` shows, for a source that can be read but is probably a mistake. Default: None."""
        return None

    def carries(self) -> Sequence[str]:
        """Return the names of the source's columns that are copied to each sample's JSON.

        Only the start of the source is read.
        """
        return ()

    def read_counting(self, piece: dict[str, Any], others: Counter[str]) -> Iterator[pa.Table]:
        """Yield the tables of `read`, and count in `others` the records that give no row, by kind of record.

        By default, nothing is counted.
        """
        return self.read(piece)
