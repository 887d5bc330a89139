"""A stream resumes exactly: for any ranks, workers and time of the kill, it yields the remaining samples and no other."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.loader.tars import caption_set, keys_of
from vlmdata import Packing, stream
from vlmdata.loader.samples import Samples
from vlmdata.loader.stream import ReadOptions

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return caption_set(tmp_path_factory.mktemp("tars"), [37, 1, 50, 112])  # 200 samples


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def give(tars: Path, cache: Path, world: int, batch: int, state: dict | None, steps: int | None) -> tuple[list[str], dict]:
    """Return the keys that `world` ranks yield in `steps` steps, in the order of positions, and the state after them."""
    ranks, states = [], []
    for rank in range(world):
        samples = stream(
            tars, batch_size=batch, epochs=2, rank=rank, world_size=world, reading=ReadOptions(cache=cache), torch=False
        )
        if state:
            samples.load_state_dict(json.loads(json.dumps(state)))
        batches = []
        for number, one in enumerate(samples):
            batches.append([sample["__key__"] for sample in one if "__pad__" not in sample])
            if number + 1 == steps:
                break
        ranks.append(batches)
        states.append(samples.state_dict())
    assert all(one == states[0] for one in states)
    assert len({len(batches) for batches in ranks}) == 1
    given = []
    for step in zip(*ranks, strict=True):
        for place in range(batch):
            given += [keys[place] for keys in step if place < len(keys)]
    return given, states[0]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 15)), min_size=1, max_size=4))
def test_any_kill_points_and_ranks_give_the_same_order(tars: Path, cache: Path, legs: list[tuple[int, int, int]]) -> None:
    whole, _ = give(tars, cache, 1, 1, None, None)
    assert sorted(whole[:200]) == sorted(whole[200:]) == sorted(set(whole))
    assert whole[:200] != whole[200:]
    given, state = [], None
    for world, batch, steps in legs:
        given_now, state = give(tars, cache, world, batch, state, steps)
        given += given_now
        if state["position"] == 400:
            break
        assert len(json.dumps(state)) <= 200
    else:
        given += give(tars, cache, 3, 4, state, None)[0]
    assert given == whole


def test_a_state_of_another_index_or_seed_is_refused(tars: Path, cache: Path, tmp_path: Path) -> None:
    state = stream(tars, reading=ReadOptions(cache=cache), torch=False).state_dict()
    other = caption_set(tmp_path, [37, 1, 50, 111])
    with pytest.raises(ValueError, match="another index"):
        stream(other, reading=ReadOptions(cache=cache), torch=False).load_state_dict(state)
    with pytest.raises(ValueError, match="another seed"):
        stream(tars, reading=ReadOptions(cache=cache), seed=1, torch=False).load_state_dict(state)
    with pytest.raises(ValueError, match="not the state of a stream: it has the keys '_steps_since_snapshot'"):
        stream(tars, reading=ReadOptions(cache=cache), torch=False).load_state_dict({"_steps_since_snapshot": 1})


def test_each_iteration_reads_the_next_epoch(tars: Path, cache: Path) -> None:
    samples = stream(tars, reading=ReadOptions(cache=cache), torch=False)
    assert isinstance(samples, Samples)
    first, second = keys_of(samples), keys_of(samples)
    assert sorted(first) == sorted(second) and first != second
    assert samples.epoch == 2
    samples.set_epoch(1)
    assert samples.epoch == 1 and samples.steps_left() == 200
    assert keys_of(samples) == second


def test_the_epoch_of_a_packed_stream_is_known(tars: Path, cache: Path) -> None:
    packing = Packing(tokens=64, measure=lambda sample: 20, name="twenty")
    packs = stream(tars, batch_size=1, packing=packing, reading=ReadOptions(cache=cache), torch=False)
    assert (packs.epoch, packs.steps_left()) == (0, len(packs))
    next(iter(packs))
    assert (packs.epoch, packs.steps_left()) == (0, len(packs) - 1)
    packs.set_epoch(3)
    assert packs.epoch == 3
