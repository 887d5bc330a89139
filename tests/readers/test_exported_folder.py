"""Documents in a folder that `vlmdata export --to folder` wrote are one row each, and similar files of others are images."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from tests.exporting.made import document, key_of, make_dataset
from tests.exporting.read_back import whole_rows
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata.export_dataset import export
from vlmdata.sources.files import Files
from vlmdata.sources.webdataset import Webdataset

A, B = picture(8, 6), picture(9, 7)
DOCUMENTS = [document(0, ["first", A, "second", B], title="t", page=1), document(1, ["only", " texts"])]
FIRST = f"{key_of(0)[:2]}/{key_of(0)}"


@pytest.fixture
def folder(tmp_path) -> Path:
    make_dataset(tmp_path / "out", DOCUMENTS, layout="documents")
    export(tmp_path / "out", tmp_path / "to", to="folder")
    return tmp_path / "to"


def rows(folder: Path, **parameters) -> list[dict]:
    return read_all(Files(path=str(folder), **parameters)).to_pylist()


def test_a_zip_of_an_exported_folder_has_the_same_rows(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "to.zip", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(folder))
    assert whole_rows(Files(path=str(tmp_path / "to.zip"))) == whole_rows(Webdataset(path=str(tmp_path / "out")))


def test_the_images_of_a_document_stay_in_their_files(folder):
    found = next(row for row in rows(folder) if any(row["images"]))["images"]
    assert [image and Path(image["blob"]).name for image in found] == [None, f"{key_of(0)}.0.png", None, f"{key_of(0)}.1.png"]
    assert not any(image and image["data"] for image in found)


def test_only_the_named_columns_of_a_document_are_kept(folder):
    found = [json.loads(row["extra"]) for row in rows(folder, extra=["title"])]
    assert sorted(found, key=len) == [{"source_key": key_of(1)}, {"title": "t", "source_key": key_of(0)}]


def test_a_document_without_one_of_its_images_drops_the_image(folder):
    (folder / f"{FIRST}.1.png").unlink()
    images = next(row for row in rows(folder) if any(row["images"]))["images"]
    assert [image and image["reason"] for image in images] == [None, None, None, "no_image"]


def test_an_image_that_is_a_link_to_another_place_is_not_read(folder, tmp_path):
    (tmp_path / "other.png").write_bytes(A)
    (folder / f"{FIRST}.1.png").unlink()
    (folder / f"{FIRST}.1.png").symlink_to(tmp_path / "other.png")
    images = next(row for row in rows(folder) if any(row["images"]))["images"]
    assert [image and image["reason"] for image in images] == [None, None, None, "no_image"]


@pytest.mark.parametrize(("said", "reason"), [(b"{", "bad_record"), (b"\xff", "bad_record"), (b'{"key": 1', "bad_record")])
def test_a_document_whose_json_is_damaged_is_one_dropped_row(folder, said, reason):
    (folder / f"{FIRST}.json").write_bytes(said)
    found = rows(folder)
    assert sorted(row["reason"] or "" for row in found) == ["", reason]
    assert [row["place"] for row in found if row["reason"]] == [f"{FIRST}.json"]


@pytest.mark.parametrize(
    "said", ["[]", "{}", '{"texts": [], "metadata": []}', f'{{"key": "{key_of(1)}"}}', f'{{"key": "{key_of(0)}"}}']
)
def test_json_of_another_program_with_such_a_name_leaves_its_images_as_rows(folder, said):
    (folder / f"{FIRST}.json").write_text(said)
    found = [row for row in rows(folder) if any(row["images"])]
    assert [Path(row["images"][0]["blob"]).name for row in found] == [f"{key_of(0)}.0.png", f"{key_of(0)}.1.png"]


def test_without_captions_every_image_of_the_folder_is_a_row(folder):
    assert len(rows(folder, captions=[], caption="")) == 2


def test_images_with_numbers_and_no_json_are_rows(folder):
    shutil.copy(folder / f"{FIRST}.0.png", folder / f"{FIRST[:-1]}f.0.png")
    (folder / f"{FIRST}.json").unlink()
    assert len(rows(folder)) == 3


def test_documents_whose_keys_differ_by_a_number_stay_separate(tmp_path):
    (key, members), (_, other) = DOCUMENTS[0], document(0, [B, "third"])
    facts = {**json.loads(other["json"]), "key": f"{key}_1"}
    samples = [(key, members), (f"{key}_1", {**other, "json": json.dumps(facts).encode()})]
    make_dataset(tmp_path / "out", samples, layout="documents")
    export(tmp_path / "out", tmp_path / "to", to="folder")
    assert whole_rows(Files(path=str(tmp_path / "to"))) == whole_rows(Webdataset(path=str(tmp_path / "out")))


def test_a_plan_from_before_documents_were_read_keeps_its_rows(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "to.zip", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(folder))
    for path in (folder, tmp_path / "to.zip"):
        source = Files(path=str(path))
        [piece] = source.pieces()
        old = {name: value for name, value in piece.items() if name != "documents"}
        found = [row for table in source.read(old) for row in table.to_pylist()]
        assert [sum(map(bool, row["images"])) for row in found] == [1, 1]
