"""A stream is the first stage of a webdataset pipeline: later stages get every sample once, with and without workers."""

import io
import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds
from PIL import Image
from torch.utils.data import DataLoader

from tests.loader.tars import sample_files, write_tar
from vlmdata import stream
from vlmdata.loader.index.build_index import build_index
from vlmdata.loader.stream import ReadOptions

pytestmark = pytest.mark.whole

DOCS = Path(__file__).parent.parent.parent / "docs" / "loader.md"
KEYS = [f"{shard}-{number}" for shard in range(3) for number in range(7)]


def jpeg(seed: int) -> bytes:
    target = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 24, 3), np.uint8)
    Image.fromarray(pixels).save(target, "jpeg")
    return target.getvalue()


def captioned(folder: Path) -> Path:
    for shard in range(3):
        keys = [key for key in KEYS if key.startswith(f"{shard}-")]
        files = [file for key in keys for file in sample_files(key, {"jpg": jpeg(shard), "txt": key.encode()})]
        write_tar(folder / f"{shard:05}.tar", files)
    build_index(folder)
    return folder


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return captioned(tmp_path_factory.mktemp("tars"))


def pipeline(samples: Any) -> wds.DataPipeline:
    return wds.DataPipeline(samples, wds.decode("pil"), wds.to_tuple("jpg", "txt"), wds.batched(4))


def texts(batches: Iterable) -> list[str]:
    """Return all captions in order, after a check that every batch has a picture for each caption."""
    found = []
    for pictures, captions in batches:
        assert len(pictures) == len(captions) <= 4 and all(picture.size == (24, 16) for picture in pictures)
        found += captions
    return found


def test_a_pipeline_has_the_epochs_of_the_stream(tars: Path, tmp_path: Path) -> None:
    samples = stream(tars, reading=ReadOptions(cache=tmp_path))
    pairs = pipeline(samples)
    first, second = texts(pairs), texts(pairs)
    assert sorted(first) == sorted(second) == KEYS and first != second
    assert first == [sample["txt"].decode() for sample in stream(tars, reading=ReadOptions(cache=tmp_path), torch=False)]
    assert samples.position == 42
    both = texts(pipeline(stream(tars, reading=ReadOptions(cache=tmp_path))).repeat(2))
    assert both == first + second


def test_a_stream_without_torch_is_a_first_stage_too(tars: Path, tmp_path: Path) -> None:
    samples = stream(tars, reading=ReadOptions(cache=tmp_path), torch=False)
    assert texts(pipeline(samples)) == texts(pipeline(stream(tars, reading=ReadOptions(cache=tmp_path))))


def test_a_state_counts_the_samples_that_the_stages_read(tars: Path, tmp_path: Path) -> None:
    """Stages that map read one sample for each sample that they yield. `batched` reads one more before it yields a batch."""

    def single(samples: Any) -> wds.DataPipeline:
        return wds.DataPipeline(samples, wds.decode("pil"), wds.to_tuple("jpg", "txt"))

    samples = stream(tars, reading=ReadOptions(cache=tmp_path))
    given = [text for _, text in itertools.islice(single(samples), 8)]
    again = stream(tars, reading=ReadOptions(cache=tmp_path))
    again.load_state_dict(samples.state_dict())
    assert sorted(given + [text for _, text in single(again)]) == KEYS
    batched = stream(tars, reading=ReadOptions(cache=tmp_path))
    next(iter(pipeline(batched)))
    assert batched.position == 4 + 1


def test_a_function_is_the_first_stage_without_torch(tars: Path, tmp_path: Path) -> None:
    samples = stream(tars, reading=ReadOptions(cache=tmp_path), torch=False)
    assert sorted(texts(pipeline(lambda: iter(samples)))) == KEYS


@pytest.mark.parametrize("make", [DataLoader, wds.WebLoader])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_share_the_samples_of_a_pipeline(make: Any, num_workers: int, tars: Path, tmp_path: Path) -> None:
    samples = stream(tars, reading=ReadOptions(cache=tmp_path))
    loader = make(pipeline(samples), batch_size=None, num_workers=num_workers)
    first = texts(loader)
    samples.set_epoch(1)  # workers use copies, which do not advance this stream
    second = texts(loader)
    assert sorted(first) == sorted(second) == KEYS and first != second


def test_persistent_workers_read_the_next_epoch(tars: Path, tmp_path: Path) -> None:
    loader = DataLoader(
        pipeline(stream(tars, reading=ReadOptions(cache=tmp_path))), batch_size=None, num_workers=2, persistent_workers=True
    )
    first, second = texts(loader), texts(loader)
    assert sorted(first) == sorted(second) == KEYS and first != second


def test_each_rank_reads_its_share(tars: Path, tmp_path: Path) -> None:
    ranks = [texts(pipeline(stream(tars, reading=ReadOptions(cache=tmp_path), rank=rank, world_size=3))) for rank in range(3)]
    assert [len(one) for one in ranks] == [7, 7, 7] and sorted(itertools.chain(*ranks)) == KEYS


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_web_loader_reads_a_stream(num_workers: int, tars: Path, tmp_path: Path) -> None:
    loader = wds.WebLoader(stream(tars, reading=ReadOptions(cache=tmp_path)), batch_size=None, num_workers=num_workers)
    assert sorted(texts(loader.decode("pil").to_tuple("jpg", "txt").batched(4))) == KEYS
    shuffled = wds.WebLoader(
        pipeline(stream(tars, reading=ReadOptions(cache=tmp_path))), batch_size=None, num_workers=num_workers
    )
    assert sorted(texts(shuffled.unbatched().shuffle(10).batched(3))) == KEYS


def test_a_web_loader_sets_the_length_of_an_epoch_of_an_endless_stream(tars: Path, tmp_path: Path) -> None:
    endless = wds.WebLoader(
        pipeline(stream(tars, reading=ReadOptions(cache=tmp_path), epochs=None)), batch_size=None, num_workers=2
    )
    assert [len(texts(endless.with_epoch(3))) for _ in range(2)] == [12, 12]


def test_padding_samples_can_be_filtered_out(tars: Path, tmp_path: Path) -> None:
    ranks = [
        list(wds.DataPipeline(stream(tars, reading=ReadOptions(cache=tmp_path), rank=rank, world_size=2))) for rank in range(2)
    ]
    assert list(map(len, ranks)) == [11, 11]
    own = wds.select(lambda sample: "__pad__" not in sample)
    kept = [
        sample["__key__"]
        for rank in range(2)
        for sample in wds.DataPipeline(stream(tars, reading=ReadOptions(cache=tmp_path), rank=rank, world_size=2), own)
    ]
    assert sorted(kept) == KEYS


def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    captioned(tmp_path / "OUT")
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S) if "webdataset" in code]
    names: dict[str, Any] = {}
    exec(example, names)
    assert len(names["pictures"]) == len(names["captions"]) == len(KEYS)
