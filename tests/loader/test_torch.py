"""DataLoader, StatefulDataLoader and process groups of PyTorch give the samples that the plain iterator gives."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils.data import DataLoader

from tests.loader.tars import caption_set, keys_of
from vlmdata import stream
from vlmdata.loader.index.build_index import build_index
from vlmdata.loader.map_style import Rows
from vlmdata.loader.stream import ReadOptions
from vlmdata.loader.stream_batch import position_of
from vlmdata.loader.torch_stream import to_device

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return caption_set(tmp_path_factory.mktemp("tars"), [37, 1, 62])  # 100 samples


def plain(tars: Path, tmp_path: Path, **options: Any) -> list[str]:
    return keys_of(stream(tars, reading=ReadOptions(cache=tmp_path), torch=False, **options))


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_any_number_of_workers_yields_batches_in_order(tars: Path, tmp_path: Path, workers: int) -> None:
    wanted = plain(tars, tmp_path, batch_size=8)
    samples = stream(tars, batch_size=8, reading=ReadOptions(cache=tmp_path))
    loader = DataLoader(samples, batch_size=None, num_workers=workers)
    assert len(loader) == 13
    assert keys_of(loader) == wanted
    own = stream(tars, batch_size=8, reading=ReadOptions(cache=tmp_path))
    assert keys_of(own.loader(workers)) == wanted
    assert own.position == 100
    assert keys_of(own.loader(workers)) == plain(tars, tmp_path, batch_size=8, epochs=3)[100 : 100 + 104]


@pytest.mark.parametrize(("workers", "then"), [(0, 2), (2, 0), (2, 3)])
def test_prefetched_batches_do_not_advance_the_position(tars: Path, tmp_path: Path, workers: int, then: int) -> None:
    wanted = plain(tars, tmp_path, batch_size=8)
    samples = stream(tars, batch_size=8, reading=ReadOptions(cache=tmp_path))
    given = list(islice(samples.loader(workers, prefetch_factor=4), 5))
    state = json.loads(json.dumps(samples.state_dict()))
    assert state["position"] == 40
    again = stream(tars, batch_size=8, reading=ReadOptions(cache=tmp_path))
    again.load_state_dict(state)
    assert keys_of(given) + keys_of(again.loader(then)) == wanted
    by_hand = stream(tars, batch_size=8, reading=ReadOptions(cache=tmp_path))
    batches = list(islice(DataLoader(by_hand, batch_size=None, num_workers=workers), 3))
    assert [position_of(batch) for batch in batches] == [8, 16, 24]
    assert by_hand.state_dict(after=batches[2])["position"] == 24


@pytest.mark.parametrize("workers", [0, 2])
def test_stateful_data_loader_resumes_exactly(tars: Path, tmp_path: Path, workers: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    wanted = plain(tars, tmp_path, batch_size=8)
    for steps in (0, 3, 6, 12):
        first = stateful(stream(tars, batch_size=8, reading=ReadOptions(cache=tmp_path)), batch_size=None, num_workers=workers)
        given = list(islice(first, steps))
        state = first.state_dict()
        second = stateful(stream(tars, batch_size=8, reading=ReadOptions(cache=tmp_path)), batch_size=None, num_workers=workers)
        second.load_state_dict(state)
        assert keys_of(given) + keys_of(second) == wanted


def test_the_data_loader_can_make_the_batches(tars: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        loader = DataLoader(
            stream(tars, reading=ReadOptions(cache=tmp_path)), batch_size=7, num_workers=workers, collate_fn=list
        )
        assert sorted(keys_of(loader)) == sorted(set(plain(tars, tmp_path)))
    with pytest.raises(ValueError, match="batch_size=None"):
        stream(tars, reading=ReadOptions(cache=tmp_path)).state_dict(after=[1, 2])


def test_there_may_be_more_workers_and_ranks_than_samples(tmp_path: Path) -> None:
    folder = caption_set(tmp_path / "tars", [1])
    samples = stream(folder, batch_size=2, reading=ReadOptions(cache=tmp_path), rank=2, world_size=3)
    batches = list(DataLoader(samples, batch_size=None, num_workers=3))
    assert [len(batch) for batch in batches] == [2] and all(sample["__pad__"] for sample in batches[0])
    assert samples.tail_samples() == (5, 0)
    dropping = stream(folder, batch_size=2, reading=ReadOptions(cache=tmp_path), drop_last=True, torch=False)
    assert list(dropping) == [] and len(dropping) == 0 and dropping.tail_samples() == (0, 1)


def test_threads_keep_the_order_and_collate_makes_the_batch(tars: Path, tmp_path: Path) -> None:
    def collate(samples: list) -> dict:
        return {"size": torch.tensor([len(sample["jpg"]) for sample in samples]), "__key__": [s["__key__"] for s in samples]}

    threaded = stream(tars, batch_size=8, reading=ReadOptions(threads=3, cache=tmp_path), collate_fn=collate)
    batches = list(islice(threaded, 4))
    assert threaded.position == 32
    assert [key for batch in batches for key in batch["__key__"]] == plain(tars, tmp_path, batch_size=8)[:32]
    assert batches[0]["size"].shape == (8,)


class Pair(NamedTuple):
    left: torch.Tensor
    right: str


def test_a_batch_moved_to_a_device_keeps_its_structure(tars: Path, tmp_path: Path) -> None:
    """The copy itself needs a GPU. This test checks that tensors anywhere in a batch are moved and other values are kept."""
    batch = {"a": torch.ones(2), "b": [torch.ones(1), "x"], "c": Pair(torch.ones(3), "y"), "d": (torch.ones(1), 7)}
    moved = to_device(batch, torch.device("meta"))
    assert (
        moved["a"].device.type
        == moved["b"][0].device.type
        == moved["c"].left.device.type
        == moved["d"][0].device.type
        == "meta"
    )
    assert moved["b"][1] == "x" and moved["c"].right == "y" and moved["d"][1] == 7 and batch["a"].device.type == "cpu"
    samples = stream(
        tars,
        batch_size=8,
        collate_fn=lambda made: torch.tensor([len(one["jpg"]) for one in made]),
        reading=ReadOptions(cache=tmp_path),
    )
    given = torch.cat(list(samples.loader(2, pin_memory=True, device="cpu")))
    assert len(given) == 104 and given.device.type == "cpu"


def test_rows_are_a_map_style_dataset(tars: Path, tmp_path: Path) -> None:
    rows = Rows(tars, cache=tmp_path)
    loader = DataLoader(rows, batch_size=7, shuffle=True, num_workers=2, collate_fn=list)  # type: ignore[arg-type]
    assert sorted(keys_of(loader)) == sorted(plain(tars, tmp_path))


def test_workers_report_what_they_skip(tmp_path: Path) -> None:
    folder = caption_set(tmp_path / "tars", [20, 20])
    build_index(folder)
    tar = folder / "00001.tar"
    tar.write_bytes(tar.read_bytes()[:512])
    samples = stream(folder, batch_size=4, reading=ReadOptions(on_error="skip", cache=tmp_path))
    assert {key[0] for key in keys_of(samples.loader(2))} == {"0"}
    assert samples.skipped >= 20 and samples.position == 40


RANK = """
import sys, torch.distributed as group
from vlmdata import stream
from vlmdata.loader.index.build_index import build_index
from vlmdata.loader.map_style import Rows
from vlmdata.loader.stream import ReadOptions
group.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=int(sys.argv[3]), world_size=2)
samples = stream(sys.argv[1], batch_size=6, reading=ReadOptions(cache=sys.argv[4]))
for batch in samples.loader(1):
    group.barrier()
    print(" ".join(sample["__key__"] for sample in batch if "__pad__" not in sample))
print(samples.state_dict()["position"], len(batch))
"""


def test_two_ranks_of_a_process_group_share_an_epoch(tars: Path, tmp_path: Path) -> None:
    stream(tars, reading=ReadOptions(cache=tmp_path))  # builds the index before the ranks start
    command = [sys.executable, "-c", RANK, str(tars), str(tmp_path / "meet")]
    started = [subprocess.Popen([*command, str(rank), str(tmp_path)], stdout=subprocess.PIPE, text=True) for rank in (0, 1)]
    outputs = [process.communicate(timeout=800)[0].splitlines() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert [output[-1] for output in outputs] == ["100 6", "100 6"]
    ranks = [[line.split() for line in output[:-1]] for output in outputs]
    assert len(ranks[0]) == len(ranks[1]) == 9
    given = [key for step in zip(*ranks, strict=True) for key in [k for pair in zip(*step, strict=False) for k in pair]]
    assert sorted(given + ranks[0][-1][len(ranks[1][-1]) :]) == sorted(plain(tars, tmp_path))
    assert given[:96] == plain(tars, tmp_path)[:96]


def test_torch_is_not_imported_without_need(tars: Path, tmp_path: Path) -> None:
    program = (
        "import sys, vlmdata\n"
        "from vlmdata.loader.stream import ReadOptions\n"
        "reading = ReadOptions(threads=2, cache=sys.argv[2])\n"
        "samples = list(vlmdata.stream(sys.argv[1], batch_size=8, reading=reading, torch=False))\n"
        "assert len(samples) == 13 and 'torch' not in sys.modules, 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tars), str(tmp_path)], check=True)
