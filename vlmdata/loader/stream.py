"""`vlmdata.stream`: from tars to samples in a seeded order, with exact state."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from vlmdata.errors import InputError
from vlmdata.loader.build import OnError
from vlmdata.loader.dataset import CACHE, CACHE_BYTES, open_dataset
from vlmdata.loader.find import PathLike
from vlmdata.loader.packed import PackedPlan, Packing
from vlmdata.loader.plan import By, make_plan
from vlmdata.loader.read import Sample, open_readers
from vlmdata.loader.samples import Samples, Tail

if TYPE_CHECKING:
    from vlmdata.loader.torch_stream import Stream

Paths = PathLike | Sequence[PathLike] | Mapping[str, float]


def stream(
    path: Paths,
    *,
    batch: int | None = None,
    epochs: int | None = 1,
    seed: int = 0,
    shuffle: bool = True,
    decode: Callable[[Sample], Any] | None = None,
    collate: Callable[[list], Any] | None = None,
    by: By = "samples",
    later: Mapping[int, Mapping[str, float]] | None = None,
    pack: Packing | None = None,
    tail: Tail = "pad",
    rank: int | None = None,
    world: int | None = None,
    threads: int = 0,
    on_error: OnError = "raise",
    cache: PathLike = CACHE,
    cache_bytes: int = CACHE_BYTES,
    torch: bool = True,
) -> "Stream":
    """Iterate over WebDataset tars: a folder, a tar, a pattern, an address, a list of these, or {path: weight} for a blend.

    A sample is a dict of its members' bytes by extension, with `__key__`, `__url__`, and `__seed__`, a random number that
    belongs to this sample in this epoch. Each iteration gives `epochs` epochs (None: no end) from where the last one ended;
    every sample comes exactly once per epoch over all ranks and workers.

    - `batch`: samples a step on each rank, handed out as a list, or as `collate` makes it; None gives single samples.
    - `decode`: makes a sample from the dict of bytes; see `vlmdata.loader.decoding`.
    - `by`: what weights mean: shares of the samples, of the tokens (with `pack`), or epochs of each dataset in one epoch of
      the blend. `later`: other weights from a position on, {samples given over all ranks: {path: weight}}.
    - `pack`: fill sequences of so many tokens; what is handed out, batched and counted are then packs, lists of samples.
    - `tail`: ranks have equal steps, so the last step is filled with samples of the next epoch, which have `__pad__`, or
      dropped; `tail_samples()` says how many.
    - `rank`, `world`: of torch.distributed, or torchrun's environment, unless given.
    - `threads`: read and decode ahead in this many threads (`.loader(workers=N)` does it in processes).
    - `on_error`: "skip" replaces what cannot be read or decoded by the next sample, and counts in `.skipped`.
    - `cache`: where indexes of others' tars, plans of packs, and up to `cache_bytes` of remote tars are kept.
    - `torch`: False gives the same without torch, which is then not imported.

    Raises ValueError where the tars, their index, or the arguments do not fit together.
    """
    _check(batch=batch, epochs=epochs, threads=threads, by=by, tail=tail, on_error=on_error)
    paths = list(path) if isinstance(path, Mapping) else [path]
    datasets = [open_dataset(one, cache, on_error) for one in paths]
    folder = Path(cache).expanduser()
    readers = open_readers(datasets, folder, cache_bytes, on_error)
    lengths = [pack.lengths(reader, folder) for reader in readers] if pack is not None else []
    samples = make_plan(
        datasets,
        list(path.values()) if isinstance(path, Mapping) else [1],
        by=by,
        later={start: _weights(paths, values) for start, values in (later or {}).items()},
        seed=seed,
        shuffle=shuffle,
        tokens=[known.mean() for known in lengths] if pack is not None and by == "tokens" else None,
    )
    plan = samples if pack is None else PackedPlan(samples, lengths, pack, folder)
    kind: type[Samples] = Samples
    if torch:
        from vlmdata.loader.torch_stream import Stream as kind
    return kind(  # type: ignore[return-value]
        plan,
        batch=batch,
        epochs=epochs,
        tail=tail,
        decode=decode,
        collate=collate,
        rank=rank,
        world=world,
        threads=threads,
        on_error=on_error,
        readers=readers,
    )


def _check(*, batch: int | None, epochs: int | None, threads: int, by: str, tail: str, on_error: str) -> None:
    """Raise ValueError for an argument that would be taken for another one, or for nothing."""
    for name, number, least in (("batch", batch, 1), ("epochs", epochs, 1), ("threads", threads, 0)):
        if number is not None and (not isinstance(number, Integral) or number < least):
            raise InputError(f"{name} is a whole number, {least} or more, not {number!r}")
    for name, value, kind in (("by", by, By), ("tail", tail, Tail), ("on_error", on_error, OnError)):
        if value not in get_args(kind):
            raise InputError(f"{name} is one of {', '.join(get_args(kind))}, not {value!r}")


def _weights(paths: Sequence[Any], values: Mapping[str, float]) -> list[float]:
    """The weights of one stage, in the order of the datasets; a dataset it does not name has none."""
    unknown = set(values) - set(paths)
    if unknown:
        raise InputError(f"later weights name {sorted(unknown)}, but the blend is of {list(map(str, paths))}")
    return [values.get(path, 0) for path in paths]
