"""A compiled recipe: the bound steps that the engine runs, each with the name under which its measurements are stored."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import xxhash

from vlmdata.engine.work.fit import Fit
from vlmdata.engine.work.ingest import Ingest
from vlmdata.recipe import Recipe, fingerprint
from vlmdata.row import flatten
from vlmdata.step import Step, id_of
from vlmdata.steps.download import Download
from vlmdata.steps.resize import Resize


@dataclass(frozen=True)
class BoundStep:
    """A step of a compiled recipe.

    `measure` is the name of the step's measurement, or None if the step measures nothing. The name contains a hash of all that
    affects the measurement: the step, its version, its parameters except thresholds, and the measurements that it reads.
    """

    step: Step
    measure: str | None

    @property
    def kind(self) -> str:
        """The kind of pass that runs the step. Consecutive steps of the same kind run in one pass."""
        if self.step.sees_all:
            return "all"
        if isinstance(self.step, Ingest):
            return "ingest"
        if "endpoint" in self.step.needed():
            return "ask"
        if "gpu" in self.step.needed():
            return "model"  # only workers with a GPU run it, if there are any
        return "rows" if self.measure else "free"


def compile_recipe(recipe: Recipe) -> list[BoundStep]:
    """Return the bound steps of a recipe. `download` and `resize` are joined into one `Ingest`, and `Fit` comes last."""
    bound_steps: list[BoundStep] = []
    writer: dict[str, str] = {}  # column -> the last measurement that writes it
    for step in _joined(recipe.steps):
        name = None
        if written := step.columns_written():
            parameters = {field: asdict(step)[field] for field in step.measured_by}
            above = sorted(writer[column] for column in step.columns_read() if column in writer)
            kind = id_of(step).rpartition(".")[2]
            name = f"{kind}-{fingerprint(id_of(step), step.version, parameters, step.identity(), above)}"
            writer.update((step.column(column), name) for column in written)
        bound_steps.append(BoundStep(step, name))
    return [*bound_steps, BoundStep(Fit(pairs_only=recipe.shards.layout == "captions"), None)]


def _joined(steps: tuple[Step, ...]) -> list[Step]:
    joined: list[Step] = []
    for step in steps:
        if isinstance(step, Download):
            joined.append(Ingest(download=step))
        elif isinstance(step, Resize):
            before = joined[-1] if joined else None
            if isinstance(before, Ingest) and before.resize is None:
                joined[-1] = Ingest(download=before.download, resize=step)
            else:
                joined.append(Ingest(resize=step, is_later=any(isinstance(one, Ingest) for one in joined)))
        else:
            joined.append(step)
    return joined


def pass_ends(bound_steps: list[BoundStep]) -> list[int]:
    """Return where the passes over the rows end: for each pass, the number of bound steps up to its end.

    A pass ends where the kind of the measuring steps changes, and before each global decision. Steps that measure nothing do
    not end a pass.
    """
    ends = []
    working = None  # the kind of the last step that measures
    for number, bound in enumerate(bound_steps):
        if bound.kind == "all":
            ends.append(number)
            working = None
        elif bound.kind != "free":
            if working not in (None, bound.kind):
                ends.append(number)
            working = bound.kind
    if working:
        ends.append(len(bound_steps))
    return sorted(set(ends) - {0})


def inputs(rows: pa.Table, columns: tuple[str, ...]) -> np.ndarray:
    """Return a hash of each row's inputs to a measurement, uint64 (N,). A stored value is valid while the hash is the same.

    Dropped images and texts do not count. So a document is measured again when a step rejects one of its images or texts. A
    column such as `texts.text` is one field of each image or text, so a new alternative does not change it. A text that is
    not grounded has the hash that it had in versions without grounding.
    """
    fields = [_words(rows, column) for column in columns if {column, column.partition(".")[0]} & set(rows.column_names)]
    return np.array(
        [xxhash.xxh3_64_intdigest("\x1e".join(words).encode("utf-8", "surrogatepass")) for words in zip(*fields, strict=True)],
        dtype=np.uint64,
    )


def _words(rows: pa.Table, column: str) -> list[str]:
    """Return one string for each row, which identifies the row's value in `column`. Dropped images and texts count as empty."""
    whole, _, name = column.partition(".")
    if name and whole in ("images", "texts") and column not in rows.column_names:
        flat = flatten(rows, whole)
        items = ["" if value is None else str(value) for value in flat.field(name).to_pylist()]
    elif column == "images":
        flat = flatten(rows, "images")
        names = ("sha256", "url", "blob", "offset")
        fields = zip(*(flat.field(name).to_pylist() for name in names), strict=True)
        items = [sha or f"{url}\x1d{blob}\x1d{offset}" for sha, url, blob, offset in fields]
    elif column == "texts":
        flat = flatten(rows, "texts")
        fields = zip(*(flat.field(name).to_pylist() for name in ("text", "alternatives", "grounding")), strict=True)
        items = ["\x1d".join([text or "", *(others or []), *([] if said is None else [said])]) for text, others, said in fields]
    else:
        return [repr(value) for value in rows[column].to_pylist()]
    words: list[list[str]] = [[] for _ in range(len(rows))]
    for item, row, is_alive in zip(items, flat.parents, flat.alive(), strict=True):
        words[row].append(item if is_alive else "")
    return ["\x1f".join(items) for items in words]
