"""`vlmdata.stream`: reads samples from tars in a seeded order, with an exact resumable state."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, get_args, overload

from vlmdata.arguments import (
    check_bool,
    check_callable,
    check_choice,
    check_path,
    check_whole,
    check_whole_or_none,
    paths_of,
    wrong,
)
from vlmdata.errors import InputError
from vlmdata.extras import is_installed
from vlmdata.loader.decoding import Decode
from vlmdata.loader.index.build_index import OnError
from vlmdata.loader.index.find_tars import PathLike
from vlmdata.loader.index.open_dataset import CACHE, CACHE_BYTES, Dataset, open_dataset
from vlmdata.loader.lengths import check_named
from vlmdata.loader.packed import PackedPlan, Packing
from vlmdata.loader.read_samples import Reader, Sample, open_readers
from vlmdata.loader.samples import Samples
from vlmdata.loader.schedule import By, Schedule, make_plan

if TYPE_CHECKING:
    from vlmdata.loader.torch_stream import Stream


Weights = Mapping[str, float] | Mapping[Path, float]


@dataclass(frozen=True)
class Blend:
    """Several datasets in one stream: `weights` maps each path to its weight.

    `by` sets the meaning of a weight. With by="samples", it is a share of the samples. With by="tokens", it is a share of the
    tokens, which needs packing. With by="epochs", it is the number of epochs of the dataset in one epoch of the blend. `later`
    maps a position, counted in samples over all ranks, to the weights that apply from this position: {position: {path:
    weight}}.
    """

    weights: Weights
    by: By = "samples"
    later: Mapping[int, Weights] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice(get_args(By), by=self.by)
        if not isinstance(self.later, Mapping):
            raise wrong("later", "a mapping {position: {path: weight}}", self.later)
        for start in self.later:
            check_whole(0, **{"a position of later": start})
        for name, weights in (("weights", self.weights), *(("later", weights) for weights in self.later.values())):
            if not isinstance(weights, Mapping) or not weights:
                raise wrong(name, "a mapping {path: weight}", weights)
            for path, weight in weights.items():
                check_path(**{f"a path of {name}": path})
                if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= weight < float("inf"):
                    raise wrong(f"the weight of {path}", "a number, 0 or more", weight)
            if unknown := sorted(map(str, set(weights) - set(self.weights))):
                raise InputError(f"`later` has weights for {unknown}, but the blend has only {list(map(str, self.weights))}")

    def stages(self) -> dict[int, list[float]]:
        """Return `later` as {position: weights}, where `weights` is a list in the order of the datasets.

        A dataset for which `later` gives no weight at a position has the weight 0 there.
        """
        later: Mapping[int, Mapping[Any, float]] = self.later
        return {start: [weights.get(path, 0) for path in self.weights] for start, weights in later.items()}


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How `stream` reads tars. Raises ValueError (InputError) for a wrong option.

    `threads` is the number of threads that prefetch and decode; `.loader(num_workers=N)` uses processes. With on_error="skip",
    a sample that cannot be read or decoded is replaced by the next sample, and the stream's `.skipped` counts it. `cache` is a
    folder. It holds the indexes that the loader builds, measured lengths, packed windows, and up to `cache_bytes` bytes of
    remote tars.
    """

    threads: int = 0
    on_error: OnError = "raise"
    cache: PathLike = CACHE
    cache_bytes: int = CACHE_BYTES

    def __post_init__(self) -> None:
        check_whole(0, threads=self.threads, cache_bytes=self.cache_bytes)
        check_choice(get_args(OnError), on_error=self.on_error)
        check_path(cache=self.cache)


_READING = ReadOptions()
Paths = PathLike | Sequence[PathLike] | Weights | Blend


class Options(TypedDict, total=False):
    """The types of the options of `stream`. The docstring of `stream` has their meanings and defaults."""

    batch_size: int | None
    collate_fn: Callable[[list], Any] | None
    drop_last: bool
    epochs: int | None
    seed: int | None
    decode: Callable[[Sample], Any] | None
    packing: Packing | None
    rank: int | None
    world_size: int | None
    reading: ReadOptions


@overload
def stream(path: Paths, *, torch: Literal[True] = True, **options: Unpack[Options]) -> "Stream": ...


@overload
def stream(path: Paths, *, torch: Literal[False], **options: Unpack[Options]) -> Samples: ...


@overload
def stream(path: Paths, *, torch: bool, **options: Unpack[Options]) -> Samples: ...


def stream(
    path: Paths,
    *,
    batch_size: int | None = None,
    collate_fn: Callable[[list], Any] | None = None,
    drop_last: bool = False,
    epochs: int | None = 1,
    seed: int | None = 0,
    decode: Callable[[Sample], Any] | None = None,
    packing: Packing | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    reading: ReadOptions = _READING,
    torch: bool = True,
) -> Samples:
    """Return an iterable over the samples of WebDataset tars.

    A sample is a dict. It maps each extension to the bytes of that member, `__key__` and `__url__` to strings, and `__seed__`
    to a random number that depends only on the seed, the sample and the epoch. Each iteration yields `epochs` epochs and starts
    where the previous iteration ended. With epochs=None, an iteration never ends. In an epoch, every sample occurs exactly once
    over all ranks and workers.

    - `path`: a folder, a tar, a pattern, an address, a list of these, or {path: weight} for a blend. A `Blend` also
      sets what the weights mean, and can change the weights at given positions.
    - `batch_size`: the number of samples per step on each rank. A step is a list of samples, or the result of `collate_fn` for
      this list. None yields single samples.
    - `drop_last`: all ranks have the same number of steps. True leaves out a partial last step. False fills it with samples of
      the next epoch, which have the key `__pad__`. `tail_samples()` returns the number of these samples.
    - `seed`: sets the order; None keeps the order of the tars.
    - `decode`: a function that turns the dict of bytes into a sample, such as `Decode`.
    - `packing`: fills sequences of a fixed number of tokens. The stream then yields, batches and counts packs. A pack is a list
      of samples.
    - `rank`, `world_size`: by default the values of torch.distributed or of torchrun's environment.
    - `reading`: options for threads, damaged samples and the cache (see `vlmdata.loader.stream.ReadOptions`).
    - `torch`: True returns a `Stream`, a torch IterableDataset with `.loader()`. False returns `Samples`, which iterates in the
      same way without importing torch. If torch is not installed, the result is always `Samples`.

    Raises ValueError (InputError) if the tars, their index or the arguments are unusable or contradict each other.
    """
    check_whole_or_none(1, batch_size=batch_size, epochs=epochs, world_size=world_size)
    check_whole_or_none(0, rank=rank)
    check_whole_or_none(None, seed=seed)
    check_bool(drop_last=drop_last, torch=torch)
    check_callable(collate_fn=collate_fn, decode=decode)
    if packing is not None and not isinstance(packing, Packing):
        raise wrong("packing", "a Packing", packing)
    if packing is not None and isinstance(decode, Decode) and decode.captions != packing.captions:
        raise InputError("decode and packing have other weights in `captions`, so packs would not hold the planned tokens")
    if not isinstance(reading, ReadOptions):
        raise wrong("reading", "a ReadOptions", reading)
    if collate_fn is not None and batch_size is None:
        raise InputError("collate_fn needs batch_size, because it turns a list of samples into a batch")
    paths, blend = _datasets_of(path)
    cache = Path(reading.cache).expanduser()
    datasets = [open_dataset(one, cache, reading.on_error) for one in paths]
    readers = open_readers(datasets, cache, reading.cache_bytes, reading.on_error)
    kind: type[Samples] = Samples
    if torch and is_installed("torch"):
        from vlmdata.loader.torch_stream import Stream as kind
    return kind(
        _plan_of(datasets, readers, blend, packing, cache, seed),
        batch_size=batch_size,
        collate_fn=collate_fn,
        drop_last=drop_last,
        epochs=epochs,
        decode=decode,
        rank=rank,
        world_size=world_size,
        threads=reading.threads,
        on_error=reading.on_error,
        readers=readers,
    )


def _datasets_of(path: Any) -> tuple[list[Any], Blend | None]:
    """Return the paths of the datasets and their blend. The blend of a single dataset is None."""
    if isinstance(path, Mapping | Blend):
        blend = path if isinstance(path, Blend) else Blend(path)
        return list(blend.weights), blend
    paths_of(path=path)
    return [path], None


def _plan_of(
    datasets: list[Dataset],
    readers: list[Reader],
    blend: Blend | None,
    packing: Packing | None,
    cache: Path,
    seed: int | None,
) -> Schedule | PackedPlan:
    """Return the schedule of samples or, with packing, of packs. Lengths that are not in the cache are measured."""
    lengths = [packing.lengths(reader, cache) for reader in readers] if packing is not None else []
    if packing is not None and packing.captions is not None:
        check_named(packing.captions, lengths)
    by = "samples" if blend is None else blend.by
    samples = make_plan(
        datasets,
        [1] if blend is None else list(blend.weights.values()),
        by=by,
        later={} if blend is None else blend.stages(),
        seed=0 if seed is None else seed,
        shuffle=seed is not None,
        tokens=[known.mean() for known in lengths] if packing is not None and by == "tokens" else None,
    )
    return samples if packing is None else PackedPlan(samples, lengths, packing, cache)
