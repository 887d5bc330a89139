"""Decoded samples have the right size, a caption drawn per epoch and the same augmentation after a resume; damage is
reported."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.loader.tars import caption_set, sample_files, write_tar
from vlmdata import stream
from vlmdata.loader.captions import captions_of
from vlmdata.loader.decoding import Decode, RandomCrop
from vlmdata.loader.index.index_file import INDEX, IndexRow, IndexWriter, index_table
from vlmdata.loader.map_style import Rows
from vlmdata.loader.read_samples import DamagedSample
from vlmdata.loader.stream import ReadOptions


def jpeg(seed: int, width: int = 80, height: int = 60) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(target, "jpeg", quality=92)
    return target.getvalue()


def images(folder: Path, count: int = 12) -> Path:
    files = []
    for number in range(count):
        facts = json.dumps({"alternatives": [f"{number} b", f"{number} c"]}).encode()
        files += sample_files(f"{number}", {"jpg": jpeg(number), "json": facts, "txt": f"{number} a".encode()})
    return write_tar(folder / "0.tar", files)


@pytest.mark.parametrize(
    ("others", "all_of_them"),
    [(["b", "c"], ["a", "b", "c"]), (None, ["a"]), ("bc", ["a"]), (5, ["a"]), ({"b": "c"}, ["a"]), ([3, "b"], ["a", "b"])],
)
def test_alternatives_are_a_list_of_strings_or_ignored(others: object, all_of_them: list[str]) -> None:
    assert captions_of("a", {"alternatives": others}) == all_of_them


@pytest.mark.parametrize("filter", ["bilinear", "area"])
def test_images_are_resized_to_the_size_of_the_model(tmp_path: Path, filter: str) -> None:
    tar = images(tmp_path)
    decode = Decode(32, filter=filter)  # type: ignore
    sample = next(iter(stream(tar, decode=decode, seed=None, reading=ReadOptions(cache=tmp_path), torch=False)))
    assert sample["jpg"].shape == (32, 32, 3) and sample["jpg"].dtype == np.uint8
    by_pillow = Image.open(io.BytesIO(jpeg(0))).resize((43, 32), Image.Resampling.BILINEAR)
    reference = np.asarray(by_pillow)[:, 5:37].astype(float)
    assert np.abs(sample["jpg"] - reference).mean() < 3
    whole = next(iter(stream(tar, decode=Decode(), seed=None, reading=ReadOptions(cache=tmp_path), torch=False)))
    assert whole["jpg"].shape == (60, 80, 3) and whole["json"] == {"alternatives": ["0 b", "0 c"]}


def test_each_epoch_draws_a_caption_reproducibly(tmp_path: Path) -> None:
    tar = images(tmp_path)
    drawn = [
        {sample["__key__"]: sample["txt"] for sample in samples}
        for samples in [stream(tar, decode=Decode(32), reading=ReadOptions(cache=tmp_path), torch=False)]
        for _ in range(30)
    ]
    again = stream(tar, decode=Decode(32), reading=ReadOptions(cache=tmp_path), torch=False)
    again.set_epoch(7)
    assert {sample["__key__"]: sample["txt"] for sample in again} == drawn[7]
    for key in drawn[0]:
        seen = [epoch[key].removeprefix(f"{key} ") for epoch in drawn]
        assert set(seen) == {"a", "b", "c"} and max(seen.count(letter) for letter in "abc") < 20


def test_augmentation_depends_only_on_the_sample_and_the_epoch(tmp_path: Path) -> None:
    tar = images(tmp_path)
    crop = Decode(48, augment=RandomCrop((0.3, 0.8), mirror=0.5))

    def epoch(number: int, threads: int = 0, **options: int) -> dict[str, bytes]:
        samples = stream(tar, decode=crop, reading=ReadOptions(threads=threads, cache=tmp_path), torch=False, **options)  # type: ignore
        samples.set_epoch(number)
        return {sample["__key__"]: sample["jpg"].tobytes() for sample in samples if "__pad__" not in sample}

    whole = epoch(1)
    assert epoch(1, threads=2, rank=0, world_size=2) | epoch(1, rank=1, world_size=2) == whole
    assert all(epoch(0)[key] != whole[key] for key in whole)


def test_a_broken_image_is_reported_or_skipped_but_a_bug_of_the_caller_is_raised(tmp_path: Path) -> None:
    files = sample_files("bad", {"jpg": jpeg(1)[:300]}) + sample_files("good", {"jpg": jpeg(2)})
    tar = write_tar(tmp_path / "0.tar", files)
    with pytest.raises(ValueError, match=r"0\.tar, sample 'bad', member 'jpg'"):
        list(stream(tar, decode=Decode(16), seed=None, reading=ReadOptions(cache=tmp_path), torch=False))
    skipping = stream(tar, decode=Decode(16), seed=None, reading=ReadOptions(on_error="skip", cache=tmp_path), torch=False)
    with pytest.warns(UserWarning, match="skipped"):
        assert [sample["__key__"] for sample in skipping] == ["good", "good"]
    assert skipping.skipped == 1

    def mistaken(sample: dict) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        list(stream(tar, decode=mistaken, reading=ReadOptions(on_error="skip", cache=tmp_path), torch=False))


@pytest.mark.parametrize(
    "caption", ["café".encode("latin-1"), "words".encode("utf-16"), "words".encode("utf-16-le"), "words".encode("utf-32-be")]
)
def test_a_caption_that_is_not_utf8_is_reported_as_damage(tmp_path: Path, caption: bytes) -> None:
    files = sample_files("bad", {"jpg": jpeg(1), "txt": caption}) + sample_files("good", {"txt": b"\xef\xbb\xbfcaf\xc3\xa9\0!"})
    tar = write_tar(tmp_path / "0.tar", files)
    with pytest.raises(ValueError, match=r"0\.tar, sample 'bad', member 'txt': the caption is not UTF-8"):
        list(stream(tar, decode=Decode(16), seed=None, reading=ReadOptions(cache=tmp_path), torch=False))
    skipping = stream(tar, decode=Decode(16), seed=None, reading=ReadOptions(on_error="skip", cache=tmp_path), torch=False)
    with pytest.warns(UserWarning, match="skipped"):
        assert [sample["txt"] for sample in skipping] == ["café\0!"] * 2


@pytest.mark.parametrize("facts", [b"{", b"\xff", b"[" * 100_000])
def test_invalid_json_is_reported_as_damage(facts: bytes) -> None:
    with pytest.raises(DamagedSample, match="not valid JSON"):
        Decode()({"__url__": "0.tar", "__key__": "a", "__seed__": 0, "json": facts})


def test_rows_are_read_by_number(tmp_path: Path) -> None:
    rows = Rows(caption_set(tmp_path / "tars", [3, 4]), cache=tmp_path)
    assert len(rows) == 7
    assert [rows[0]["txt"], rows[6]["txt"], rows[-1]["txt"]] == [b"0-0", b"1-3", b"1-3"]
    assert [sample["__key__"] for sample in rows.__getitems__([5, 1])] == ["1-2", "0-1"]
    with pytest.raises(IndexError):
        rows[7]


def test_an_index_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    rows = [
        IndexRow("a", "0.tar", 0, 2048, [("jpg", 512, 10), ("txt", 1536, 3)], 3, [(10, 20)]),
        IndexRow("b", "0.tar", 2048, 1024, [("json", 2560, 10)], 0, None),
    ]
    table = index_table(rows)
    assert table.schema.equals(INDEX)
    scored = table.append_column("clip", [[0.5, 0.25]])
    with IndexWriter(tmp_path / "index.parquet", scored.schema) as writer:
        writer.write(scored)
    assert pq.read_table(tmp_path / "index.parquet").equals(scored)
    with pytest.raises(KeyError), IndexWriter(tmp_path / "index.parquet", scored.schema):
        raise KeyError
    assert [file.name for file in tmp_path.iterdir()] == ["index.parquet"]
    assert pq.read_table(tmp_path / "index.parquet").equals(scored)
