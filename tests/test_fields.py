"""Source columns with a name that vlmdata uses are renamed, and keep the new name when they are read again."""

import json
import tarfile

import pytest

from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata import run
from vlmdata.cli import main
from vlmdata.engine.output.sample import samples
from vlmdata.fields import FIELDS, carried, is_ours, other_names
from vlmdata.readers.plain_rows import pair, tables
from vlmdata.recipe import parse
from vlmdata.row import conform
from vlmdata.sources.files import Files
from vlmdata.sources.webdataset import Webdataset
from vlmdata.step import RecipeError

THEIRS = {"key": "k", "url": "u", "caption": "c", "width": "1 m", "height": None, "original_width": 1.5, "sha256": "0" * 64}
THEIRS |= {
    "phash": "mine",
    "scores": 9.5,
    "boxes": "b",
    "box_labels": ["l"],
    "alternatives": "alt",
    "origins": ["o"],
    "texts": ["a", "b"],
    "metadata": ["m"],
}
THEIRS |= {
    "images": ["i"],
    "files": [],
    "roles": {"a": 1},
    "original_height": 5,
    "alt": "an alt",
    "column_key": "taken",
    "n": 1,
}


def test_a_reserved_name_gets_a_prefix_unless_it_already_has_one():
    assert other_names(["a", "key", "column_key", "sha256", "column_a"]) == {
        "key": "column_column_key",
        "sha256": "column_sha256",
    }
    assert other_names([]) == {} and carried(None) == {}
    assert carried('{"url": 1, "a": 2}') == {"column_url": 1, "a": 2}
    assert other_names(carried(json.dumps(THEIRS))) == {}  # further reads add no second prefix


@pytest.mark.parametrize("layout", ["captions", "documents"])
def test_every_field_of_a_sample_has_a_reserved_name(layout):
    image = {"url": "u", "blob": "b", "offset": 0, "size": 1, "format": "png", "boxes": [[0.0] * 4], "sha256": "0" * 64}
    image["box_labels"] = ["l"]
    image |= {"phash": 1, **dict.fromkeys(("width", "height", "original_width", "original_height"), 8)}
    row = {**pair(image, ["a", "b"], origins=["recaption"]), "roles": ["user", "assistant"], "key": "k"}
    table = conform(next(tables([row])))
    table = table.set_column(0, "key", [["k"]]).append_column("score", [[0.5]])
    facts = json.loads(dict(next(samples(table, layout, 0, 1)).members)["json"])
    assert facts.keys() <= FIELDS.keys() and "scores" in facts
    assert all(is_ours(name, value, "k") for name, value in facts.items())


def contents(out) -> list:
    """Return the JSON of all samples without the values that change at each read: the key, and the key it was read from."""
    with tarfile.open(out / "00000.tar") as tar:
        found = [json.loads(tar.extractfile(name).read()) for name in tar.getnames() if name.endswith("json")]
    return [{name: value for name, value in facts.items() if name not in ("key", "source_key", "files")} for facts in found]


@pytest.mark.whole
@pytest.mark.parametrize("layout", ["captions", "documents"])
def test_repeated_writing_and_reading_loses_nothing(tmp_path, layout, capsys):
    (tmp_path / "a.jpg").write_bytes(picture(kind="JPEG"))
    (tmp_path / "list.jsonl").write_text(json.dumps({"file_name": "a.jpg", "text": "one two three", **THEIRS}))
    source = {"type": "files", "path": str(tmp_path), "table": "list.jsonl", "caption": "text"}
    rest = {"steps": [{"resize": {"mode": "no", "skip_reencode": True}}, "text_length"], "shards": {"layout": layout}}
    (tmp_path / "recipe.yaml").write_text(json.dumps({"source": source, **rest}))
    assert main(["check", str(tmp_path / "recipe.yaml")]) == 0
    output = capsys.readouterr().err
    assert output.count("\n") == 1 and "key as column_column_key" in output and "roles as column_roles" in output
    rounds = []
    for number in range(3):
        made = run(parse({"source": source, **rest}), tmp_path / str(number), local=True, workers=1)
        assert (made["kept"], made["dropped"]) == (1, [])
        rounds += contents(tmp_path / str(number))
        source = {"type": "webdataset", "path": str(tmp_path / str(number))}
    for name, value in THEIRS.items():
        assert rounds[0].get({"key": "column_column_key"}.get(name, f"column_{name}" if name in FIELDS else name)) == value
    for one in rounds[1:]:
        assert {k: (v, rounds[0].get(k)) for k, v in one.items() if k != "earlier_scores" and v != rounds[0].get(k)} == {}
        assert one.keys() - {"earlier_scores"} == rounds[0].keys()


def test_source_fields_whose_values_do_not_fit_reserved_names_are_carried(tmp_path):
    theirs = {"key": "other", "sha256": "x", "phash": 7, "boxes": "b", "width": "1 m", "alternatives": "a", "alt": "an alt"}
    theirs["box_labels"] = "l"
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "a.json").write_text(json.dumps({"caption": "c", "height": 6, **theirs}))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("a.png", "a.json"):
            tar.add(tmp_path / name, name)
    (row,) = read_all(Webdataset(path=str(tmp_path / "a.tar"))).to_pylist()
    assert json.loads(row["extra"]) == {**theirs, "source_key": "a"}
    (row,) = read_all(Files(path=str(tmp_path / "*.png"))).to_pylist()
    assert json.loads(row["extra"]) == {**theirs, "file_name": "a.png"}


def test_a_json_beside_an_image_keeps_fields_with_the_names_of_document_fields(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    theirs = {"texts": ["t"], "metadata": [1], "images": [2]}
    (tmp_path / "a.json").write_text(json.dumps({"caption": "c", "file_name": "b.jpg", **theirs}))
    (row,) = read_all(Files(path=str(tmp_path))).to_pylist()
    assert json.loads(row["extra"]) == {**theirs, "column_file_name": "b.jpg", "file_name": "a.png"}


def test_a_table_keeps_a_column_called_file_name(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "list.csv").write_text("image,caption,file_name\na.png,c,other.png\n")
    (row,) = read_all(Files(path=str(tmp_path), table="list.csv", file="image")).to_pylist()
    assert json.loads(row["extra"]) == {"file_name": "a.png", "column_file_name": "other.png"}


def test_a_label_with_a_reserved_column_name_is_refused():
    for label in ("key", "outcome", "shard", "place", "members"):
        with pytest.raises(RecipeError, match=f"'{label}' is the name of a vlmdata column"):
            parse({"source": {"type": "url_list", "path": "x"}, "steps": [{"text_length": {"label": label}}]})
