"""Documents exported in MMC4's form have its fields, and the source mmc4 reads them back unchanged."""

import base64
import io
import json
import tarfile

import pytest
import webdataset
from pydantic import BaseModel, ConfigDict

from tests.exporting.made import document, make_dataset
from tests.exporting.read_back import both
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata.export_dataset import export
from vlmdata.sources.mmc4 import Mmc4

A, B = picture(8, 6), picture(9, 7)
DOCUMENTS = [
    document(0, ["first\n", A, " second ", B], url="https://example.org/page", matched_sim=[0.25, 0.5]),
    document(1, [A, B, "words"], matched_sim="high"),
    document(2, ["one", A, "two\n\nthree", A, "four"]),
]


class Image(BaseModel):
    model_config = ConfigDict(extra="forbid")
    image_name: str
    raw_url: str
    matched_text_index: int
    matched_sim: float
    image_base64: str = ""


class Record(BaseModel):
    url: str
    text_list: list[str]
    image_info: list[Image]
    similarity_matrix: list[list[float]]


def exported(tmp_path, samples=DOCUMENTS, **options):
    make_dataset(tmp_path / "out", samples, layout="documents", per_shard=2)
    export(tmp_path / "out", tmp_path / "to", to="mmc4", options=options)
    return tmp_path / "to"


def test_documents_are_read_back_unchanged_from_lines_and_files(tmp_path):
    target = exported(tmp_path)
    expected, found = both(DOCUMENTS, Mmc4(path=str(target), images=str(target / "images")))
    assert found == expected
    row = read_all(Mmc4(path=str(target), images=str(target / "images"))).to_pylist()[0]
    assert row["url"] == "https://example.org/page" and row["images"][1]["url"] == "https://example.org/0/0.png"


def test_documents_are_read_back_unchanged_from_tars_with_base64(tmp_path):
    expected, found = both(DOCUMENTS, Mmc4(path=str(exported(tmp_path, images="base64"))))
    assert found == expected


def test_columns_with_names_of_mmc4_are_kept_under_new_names(tmp_path):
    own = {"text_list": "t", "similarity_matrix": [[1]], "image_info": None, "matched_sim": "high", "title": "a title"}
    target = exported(tmp_path, [document(0, ["words", A], **own)], images="base64")
    (row,) = read_all(Mmc4(path=str(target))).to_pylist()
    columns = {name if name == "title" else f"column_{name}": value for name, value in own.items()}
    assert json.loads(row["extra"]) == {**columns, "matched_sim": [1.0]}


def test_similarities_below_zero_are_read_back(tmp_path):
    target = exported(tmp_path, [document(0, [A, "words"], matched_sim=[-0.5])], images="base64")
    (row,) = read_all(Mmc4(path=str(target))).to_pylist()
    assert len(row["images"]) == 2 and json.loads(row["extra"])["matched_sim"] == [-0.5]


def test_without_the_folder_of_images_they_are_addresses(tmp_path):
    rows = read_all(Mmc4(path=str(exported(tmp_path)))).to_pylist()
    assert [image["url"] for image in rows[2]["images"] if image] == [f"https://example.org/2/{n}.png" for n in (0, 1)]


def test_lines_have_the_fields_of_mmc4_and_name_files(tmp_path):
    target = exported(tmp_path)
    assert sorted(path.name for path in target.iterdir()) == ["docs_shard_00000.jsonl", "docs_shard_00001.jsonl", "images"]
    records = [json.loads(line) for path in sorted(target.glob("*.jsonl")) for line in path.read_text().splitlines()]
    for record in map(Record.model_validate, records):
        assert all((target / "images" / image.image_name).is_file() for image in record.image_info)
        assert all(image.matched_text_index < len(record.text_list) for image in record.image_info)
    assert records[0]["text_list"] == ["first\n", " second ", ""]
    sims = [[image["matched_sim"] for image in record["image_info"]] for record in records]
    assert sims == [[0.25, 0.5], [1.0, 1.0], [1.0, 1.0]]


def test_open_flamingo_finds_in_the_tars_what_it_reads(tmp_path):
    """The steps of OpenFlamingo's preprocess_interleaved: JSON, base64, similarity, and the text of each image."""
    target = exported(tmp_path, images="base64")
    seen = []
    for tar in sorted(target.glob("*.tar")):
        for sample in webdataset.WebDataset(str(tar), shardshuffle=False).to_tuple("json"):
            info = json.loads(sample[0])
            Record.model_validate(info)
            sentences = info["text_list"]
            for image, similarities in zip(info["image_info"], info["similarity_matrix"], strict=True):
                assert not max(similarities) < 0.24 and len(similarities) == len(sentences)
                where = similarities.index(max(similarities))
                assert where == image["matched_text_index"] and max(similarities) == image["matched_sim"]
                sentences[where] = f"<image>{sentences[where]}"
                seen.append(base64.b64decode(image["image_base64"], validate=True))
    assert sentences == ["one", "<image>two\n\nthree", "<image>four"] and seen == [A, B, A, B, A, A]
    assert json.loads((target / "sizes.json").read_text()) == {"00000.tar": 2, "00001.tar": 1}


def test_documents_without_a_text_or_an_image_are_left_out(tmp_path):
    samples = [document(5, ["only text"]), document(6, [A, B]), DOCUMENTS[0]]
    with pytest.warns(UserWarning, match="2 samples are left out"):
        target = exported(tmp_path, samples)
    assert (target / "left_out.log").read_text() == f"{samples[0][0]}\tit has no image\n{samples[1][0]}\tit has no text\n"


def write_tar(path, *members: tuple[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def record(**image: object) -> bytes:
    return json.dumps({"text_list": ["a"], "image_info": [{"matched_text_index": 0, **image}]}).encode()


def test_base64_as_python_prints_bytes_is_read(tmp_path):
    """OpenFlamingo's conversion script writes str(base64.b64encode(...))."""
    write_tar(tmp_path / "0.tar", ("a.json", record(image_base64=str(base64.b64encode(A)))))
    (row,) = read_all(Mmc4(path=str(tmp_path))).to_pylist()
    assert row["images"][0]["data"] == A and row["drop"] is None


def test_samples_of_a_tar_that_are_not_documents_are_bad_records(tmp_path):
    members = [("a.json", b"{"), ("b.txt", b"words"), ("c.json", record(image_base64="%")), ("d.json", record(image_base64=5))]
    write_tar(tmp_path / "0.tar", *members)
    rows = read_all(Mmc4(path=str(tmp_path))).to_pylist()
    assert [row["reason"] for row in rows] == ["bad_record", "bad_record", "bad_base64", None]
    assert rows[2]["images"][0]["reason"] == "bad_base64" and rows[3]["images"][0]["url"] == ""


def test_a_folder_with_lines_and_tars_is_read_as_lines(tmp_path):
    write_tar(tmp_path / "0.tar", ("a.json", record()))
    (tmp_path / "a.jsonl").write_bytes(record(raw_url="http://e.org/a.jpg"))
    assert len(read_all(Mmc4(path=str(tmp_path)))) == 1


def test_files_of_images_are_opened_only_inside_their_folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(A)
    (tmp_path / "secret.png").write_bytes(A)
    (tmp_path / "a.jsonl").write_bytes(record(image_name="../secret.png"))
    (row,) = read_all(Mmc4(path=str(tmp_path / "a.jsonl"), images=str(tmp_path / "images"))).to_pylist()
    assert row["images"][0]["reason"] == "outside_folder"
