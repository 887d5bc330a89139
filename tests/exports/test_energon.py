"""Datasets exported for Megatron Energon have its files, and are read back unchanged. tests/peers reads them with Energon."""

import ast
import sqlite3
import struct
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from tests.exporting.made import IMAGE, caption, chat, content, document, key_of, make_dataset
from tests.exporting.read_back import both, read
from tests.sources.pictures import picture
from tests.sources.reading import pairs_of, read_all
from vlmdata.export_dataset import export
from vlmdata.sources.webdataset import Webdataset
from vlmdata.step import RecipeError

A, B = picture(8, 6), picture(9, 7)
DOCUMENTS = [document(0, ["first\n", A, " second ", B]), document(1, [A, B]), document(2, ["only words"])]
CHATS = [
    chat(0),
    chat(1, "a", "no", roles=["user", "assistant"], turns=[None, {"train": False}], tools=[{"name": "f"}]),
    chat(2, "x", A, "y", roles=["system", "user", "assistant"]),
]


class Info(BaseModel):
    model_config = ConfigDict(extra="forbid")
    energon_version: str
    shard_counts: dict[str, int]


class Splits(BaseModel):
    model_config = ConfigDict(extra="forbid")
    split_parts: dict[str, list[str]]
    exclude: list[str]


def exported(tmp_path, samples, layout="documents", per_shard=2, **options) -> Path:
    make_dataset(tmp_path / "out", samples, layout=layout, per_shard=per_shard)
    export(tmp_path / "out", tmp_path / "to", to="energon", options=options)
    return tmp_path / "to"


def meta(target: Path, name: str) -> dict:
    return yaml.safe_load((target / ".nv-meta" / name).read_text())


def rows(target: Path, query: str) -> list[tuple]:
    with sqlite3.connect(target / ".nv-meta/index.sqlite") as db:
        return db.execute(query).fetchall()


def test_the_files_are_those_of_a_prepared_dataset(tmp_path):
    target = exported(tmp_path, map(caption, range(3)), "captions")
    described = ["index.sqlite", "index.uuid", "dataset.yaml", "split.yaml", ".info.json"]
    tars = ["00000.tar", "00000.tar.idx", "00001.tar", "00001.tar.idx"]
    assert sorted(content(target)) == sorted(["README.md", *tars, *(f".nv-meta/{name}" for name in described)])
    info = Info.model_validate(meta(target, ".info.json"))
    assert info.shard_counts == {"00000.tar": 2, "00001.tar": 1}
    splits = Splits.model_validate(meta(target, "split.yaml"))
    assert splits.split_parts == {"train": ["00000.tar", "00001.tar"], "val": [], "test": []} and splits.exclude == []


def test_caption_pairs_are_captioning_samples_by_a_field_map(tmp_path):
    odd = (key_of(9), {name.replace("png", "webp"): data for name, data in caption(9)[1].items()})
    assert meta(exported(tmp_path, [caption(0), odd], "captions"), "dataset.yaml") == {
        "sample_type": {"__module__": "megatron.energon", "__class__": "CaptioningSample"},
        "field_map": {"image": "png,webp", "caption": "txt"},
        "subflavors": {"vlmdata": "captions"},
    }


def test_captions_of_avif_are_loaded_by_a_function_in_the_target(tmp_path):
    odd = (key_of(9), {name.replace("png", "avif"): data for name, data in caption(9)[1].items()})
    target = exported(tmp_path, [caption(0), odd], "captions")
    found = meta(target, "dataset.yaml")
    assert "field_map" not in found and found["sample_loader"] == "vlmdata_cookers.py:load_caption"
    assert {"load_caption", "is_read"} <= functions(target)


@pytest.mark.parametrize(
    ("samples", "kind"), [(DOCUMENTS, "documents"), (CHATS, "conversations"), ([*CHATS, document(9, ["a"])], "conversations")]
)
def test_documents_and_conversations_are_crude_samples_with_cookers(tmp_path, samples, kind):
    target = exported(tmp_path, samples)
    flavors = {"subflavors": {"vlmdata": kind}}
    assert meta(target, "dataset.yaml") == {"__module__": "megatron.energon", "__class__": "CrudeWebdataset", **flavors}
    assert f'has_subflavors={{"vlmdata": "{kind}"}}' in (target / ".nv-meta/vlmdata_cookers.py").read_text()
    plain = meta(target, "interleaved.yaml")
    assert plain["sample_type"]["__class__"] == "InterleavedSample" and plain["subflavors"] == {"vlmdata": kind}
    assert {plain["sample_loader"].split(":")[1], plain["part_filter"].split(":")[1]} <= functions(target)


def functions(target: Path) -> set[str]:
    """Return the functions of the target's cookers. The file may not import vlmdata, which a training machine may not have."""
    tree = ast.parse((target / ".nv-meta/vlmdata_cookers.py").read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(name.startswith("vlmdata") for name in imported)
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_indexes_point_at_the_samples_and_their_members(tmp_path):
    target = exported(tmp_path, DOCUMENTS)
    tars = list(meta(target, ".info.json")["shard_counts"])
    data = [(target / name).read_bytes() for name in tars]
    samples = rows(target, "SELECT tar_file_id, sample_index, byte_offset, byte_size, sample_key FROM samples ORDER BY 1, 2")
    assert [key for *_, key in samples] == [key for key, _ in DOCUMENTS]
    for number, name in enumerate(tars):
        own = [(start, size) for tar, _, start, size, _ in samples if tar == number]
        bounds = struct.iter_unpack("<Q", Path(target, f"{name}.idx").read_bytes())
        assert [at for (at,) in bounds] == [start for start, _ in own] + [sum(own[-1])]
    keys = {(tar, number): key for tar, number, *_, key in samples}
    known = dict(DOCUMENTS)
    parts = rows(
        target, "SELECT tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size FROM sample_parts"
    )
    assert len(parts) == sum(len(members) for _, members in DOCUMENTS)
    for tar, number, name, start, size in parts:
        assert data[tar][start : start + size] == known[keys[tar, number]][name]


@pytest.mark.parametrize("samples", [DOCUMENTS, CHATS])
def test_documents_and_conversations_are_read_back_unchanged(tmp_path, samples):
    expected, found = both(samples, Webdataset(path=str(exported(tmp_path, samples))))
    assert found == expected


def test_caption_pairs_are_read_back_unchanged(tmp_path):
    target = exported(tmp_path, map(caption, range(3)), "captions")
    found = read_all(Webdataset(path=str(target)))
    assert pairs_of(found) == [(f"https://example.org/{n}.png", f"picture {n}", None) for n in range(3)]
    assert [image for row in read(Webdataset(path=str(target))) for _, image, _ in row if isinstance(image, bytes)] == [
        IMAGE
    ] * 3


@pytest.mark.parametrize(
    ("options", "count", "sizes"),
    [
        ({}, 1, [1, 0, 0]),
        ({"val": 0.1}, 2, [1, 1, 0]),
        ({"val": 0.25}, 8, [6, 2, 0]),
        ({"val": 0.5, "test": 0.25}, 8, [2, 4, 2]),
        ({"val": 0.01, "test": 0.01}, 3, [1, 1, 1]),
    ],
)
def test_splits_have_whole_shards_by_their_shares(tmp_path, options, count, sizes):
    parts = meta(exported(tmp_path, map(chat, range(count)), per_shard=1, **options), "split.yaml")["split_parts"]
    assert [len(parts[name]) for name in ("train", "val", "test")] == sizes
    assert sorted(name for names in parts.values() for name in names) == [f"{n:05d}.tar" for n in range(count)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"val": 0.5}, "1 shard cannot be divided into val=0.5, test=0.0 .* has at least 2 shards"),
        ({"val": -0.1}, "val must be a share from 0 to less than 1, not -0.1"),
        ({"test": 1}, "test must be a share from 0 to less than 1, not 1"),
        ({"test": float("nan")}, "test must be a share from 0 to less than 1, not nan"),
        ({"val": 0.5, "test": 0.5}, "val and test must together be less than 1"),
    ],
)
def test_shares_that_leave_no_shard_for_train_are_refused(tmp_path, options, says):
    with pytest.raises(RecipeError, match=says) as caught:
        exported(tmp_path, [chat(0)], **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "to").exists()


def test_a_shard_whose_samples_do_not_fit_is_not_listed(tmp_path):
    samples = [("a.b", document(0, ["one"])[1]), ("c.d", document(1, ["two"])[1]), DOCUMENTS[0]]
    with pytest.warns(UserWarning, match="2 samples are left out"):
        target = exported(tmp_path, samples, per_shard=2)
    assert (target / "left_out.log").read_text().count("Energon ends a key at the first dot") == 2
    assert sorted(path.name for path in target.iterdir() if path.suffix in (".tar", ".idx")) == ["00001.tar", "00001.tar.idx"]
    assert meta(target, ".info.json")["shard_counts"] == {"00001.tar": 1}
    assert rows(target, "SELECT tar_file_id, sample_key FROM samples") == [(0, DOCUMENTS[0][0])]


def test_a_member_name_that_does_not_fit_in_a_tar_is_left_out(tmp_path):
    with pytest.warns(UserWarning, match="1 sample is left out"):
        target = exported(tmp_path, [("k" * 96, document(0, ["a"])[1]), DOCUMENTS[0]])
    assert "a member's name is longer than 100 bytes" in (target / "left_out.log").read_text()


def test_samples_with_the_same_key_are_refused_in_one_line(tmp_path):
    with pytest.raises(RecipeError, match=f"two samples have the key {key_of(0)}") as caught:
        exported(tmp_path, [chat(0), chat(1), chat(0)])
    assert "\n" not in str(caught.value) and not (tmp_path / "to").exists()
