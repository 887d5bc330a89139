"""`vlmdata check` reads the types of columns in every file of a source, and passes over columns without a value."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.preflight.checking import check, lines_of_run
from vlmdata.readers import lists
from vlmdata.sources.url_list import UrlList

URLS = ["https://e.example/1.jpg", "https://e.example/2.jpg"]
GOOD = {"url": URLS, "caption": ["a cat", "a dog"]}
EMBEDDINGS = pa.array([[0.5, 0.25]] * 2, pa.list_(pa.float32()))
VIEWS = pa.array([["a"], ["b"]], pa.list_view(pa.string()))


def parquet(rows: int | None = None, **columns) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns).slice(0, rows), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"url": [1, 2]}, "the column 'url' cannot be read: the values are int64, not text"),
        ({"url": [{"a": "x"}] * 2}, "the column 'url' cannot be read: the values are struct<a: string>, not text"),
        ({"url": pa.array([1, 2]).dictionary_encode()}, "the values are int64, not text"),
        ({"url": VIEWS}, "the values are list_view<element: string>, not text"),
        ({"caption": EMBEDDINGS}, "the column 'caption' cannot be read: the values are list<element: float>, not text"),
        ({"caption": [{"en": "x"}] * 2}, "a field with dots, such as `caption.en`"),
        ({"caption": [[["a"]]] * 2}, "the values are list<element: list<element: string>>, not text"),
    ],
)
def test_a_wrong_type_in_the_second_parquet_file_is_named(tmp_path, capsys, wrong, words):
    (tmp_path / "a.parquet").write_bytes(parquet(**GOOD))
    (tmp_path / "b.parquet").write_bytes(parquet(**{**GOOD, **wrong}))
    assert check(tmp_path, {"type": "url_list", "path": "*.parquet"}) == 2
    lines = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/b.parquet: the column '{next(iter(wrong))}'" in lines[0] and words in lines[0]
    assert lines_of_run("r.yaml", "out", capsys) == lines


@pytest.mark.parametrize(
    "right",
    [
        {"url": pa.array(URLS).dictionary_encode()},
        {"url": pa.array(URLS, pa.large_string()), "caption": pa.array(["a", "b"], pa.string_view())},
        {"url": pa.array([url.encode() for url in URLS])},
        {"url": pa.nulls(2), "caption": pa.nulls(2)},
        {"caption": [1, 2]},
        {"caption": VIEWS},
        {"caption": [[1, 2], [3]]},
        {"caption": [[None], []]},
        {"caption": pa.array(['["a", "b"]', "{}"], pa.json_())},
        {"caption": pa.array([["a", "b"]] * 2, pa.list_(pa.string(), 2))},
    ],
)
def test_other_types_that_hold_texts_are_accepted(tmp_path, right, capsys):
    (tmp_path / "a.parquet").write_bytes(parquet(**GOOD))
    (tmp_path / "b.parquet").write_bytes(parquet(**{**GOOD, **right}))
    assert check(tmp_path, {"type": "url_list", "path": "*.parquet"}) == 0, capsys.readouterr().err


def test_a_wrong_type_at_a_dotted_path_is_named(tmp_path, capsys):
    for name, value in (("a", "x"), ("b", [0.5])):
        about = pa.array([{"url": url, "caption": [{"en": value}]} for url in URLS])
        (tmp_path / f"{name}.parquet").write_bytes(parquet(about=about))
    source = {"type": "url_list", "path": "*.parquet", "url": "about.url", "caption": "about.caption.en"}
    assert check(tmp_path, source) == 2
    assert "b.parquet: the column 'about.caption.en' cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("parameters", "columns", "words"),
    [
        ({"width": "w"}, {"w": [[1]] * 2}, "the values are list<element: int64>, not numbers"),
        ({"hash": "h"}, {"h": [5, 6]}, "the values are int64, not hashes as text or bytes"),
        ({"boxes": "b"}, {"b": [[0.5, 1.0]] * 2}, "not lists of [x0, y0, x1, y1]"),
        ({"boxes": "b", "box_labels": "l"}, {"l": [[1], None]}, "the values are list<element: int64>, not lists of texts"),
        ({"image": "i"}, {"i": [[0.5]] * 2}, "the values are list<element: double>, not bytes or base64"),
    ],
)
def test_columns_of_other_parameters_are_checked(tmp_path, capsys, parameters, columns, words):
    good = {"w": [640, None], "h": ["0" * 32] * 2, "b": [[[1.0, 2.0, 3.0, 4.0]], None], "i": [b"\xff\xd8", None]}
    good |= {"l": [["dog"], None]}
    (tmp_path / "a.parquet").write_bytes(parquet(**GOOD, **good))
    (tmp_path / "b.parquet").write_bytes(parquet(**GOOD, **{**good, **columns}))
    assert check(tmp_path, {"type": "url_list", "path": "*.parquet", **parameters}) == 2
    written = capsys.readouterr().err
    assert "b.parquet: the column" in written and words in written


@pytest.mark.parametrize("missing", [pa.nulls(2, pa.float64()), pa.array([[], None], pa.list_(pa.float64()))])
def test_a_column_whose_values_are_all_missing_may_have_any_type(tmp_path, capsys, missing):
    good = {"w": [640, None], "h": ["0" * 32] * 2, "b": [[[1.0, 2.0, 3.0, 4.0]], None], "i": [b"\xff\xd8", None]}
    good |= {"l": [["dog"], None]}
    (tmp_path / "a.parquet").write_bytes(parquet(**GOOD, **good))
    (tmp_path / "b.parquet").write_bytes(parquet(**{**GOOD, "caption": missing}, **dict.fromkeys(good, missing)))
    files = UrlList(path=str(tmp_path / "b.parquet"))
    read = [table for piece in files.pieces() for table in files.read(piece)]
    assert [table["drop"].to_pylist() for table in read] == [[None, None]]
    for parameters in ({"width": "w", "height": "w", "hash": "h", "boxes": "b", "box_labels": "l"}, {"image": "i"}):
        assert check(tmp_path, {"type": "url_list", "path": "*.parquet", **parameters}) == 0, capsys.readouterr().err
    (tmp_path / "b.parquet").write_bytes(parquet(url=pa.nulls(2, pa.float64()), caption=GOOD["caption"]))
    assert check(tmp_path, {"type": "url_list", "path": "*.parquet"}) == 2  # as the run, which cannot read it


def test_the_second_file_in_json_has_its_values_checked(tmp_path, capsys):
    def write(name, **columns):
        records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))

    def checked():
        status = check(tmp_path, {"type": "url_list", "path": "*.jsonl"})
        return status, capsys.readouterr().err

    write("a", **GOOD)
    write("b", url=[1, 2], caption=["a", "b"])
    status, written = checked()
    assert status == 2 and "b.jsonl: the column 'url' cannot be read: the values are int64, not text" in written
    write("b", url=URLS, caption=[{"en": "x"}, {"de": "y"}])
    status, written = checked()
    assert status == 2 and "b.jsonl: the column 'caption' cannot be read: the values are struct<" in written
    write("b", url=URLS, caption=[[0.5], [0.25]])
    status, written = checked()
    assert status == 2 and "b.jsonl: the column 'caption' cannot be read: the values are list<" in written
    write("b", url=URLS, caption=[[["a"], ["b"]], ["c"]])
    assert checked() == (0, "")
    write("b", url=URLS, caption=[[["a"], ["b"]], [["c"]]])
    assert checked() == (0, "")
    write("b", url=[[], False], caption=[{}, 0])  # as some programs write values that are missing
    assert checked() == (0, "")
    write("b", url=[1, URLS[0]], caption=[2**80, {"en": "x"}])  # only some rows are dropped
    assert checked() == (0, "")


DOCUMENTS = {"images": [[URLS[0], None]], "texts": [[None, "a"]]}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"texts": [5]}, "the column 'texts' cannot be read: the values are int64, not lists of texts"),
        ({"images": [[0.5, None]]}, "the column 'images' cannot be read: the values are list<element: double>"),
        ({"images": [[{"path": "a.jpg"}]]}, "not lists of addresses or of images"),
    ],
)
def test_documents_of_a_wrong_type_in_the_second_file_are_named(tmp_path, capsys, wrong, words):
    (tmp_path / "a.parquet").write_bytes(parquet(**DOCUMENTS))
    for rows in (0, None):
        assert check(tmp_path, {"type": "obelics_parquet", "path": "*.parquet"}) == 0, rows
        (tmp_path / "b.parquet").write_bytes(parquet(rows, **{**DOCUMENTS, **wrong}))
    assert check(tmp_path, {"type": "obelics_parquet", "path": "*.parquet"}) == 2
    written = capsys.readouterr().err
    assert f"{tmp_path}/b.parquet: " in written and words in written


@pytest.mark.parametrize("kind", ["messages", "llava_json"])
def test_turns_of_a_wrong_type_in_the_second_file_are_named(tmp_path, capsys, kind):
    turns = [[{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]]
    (tmp_path / "a.parquet").write_bytes(parquet(conversations=turns))
    (tmp_path / "b.parquet").write_bytes(parquet(conversations=[["a", "b"]]))
    assert check(tmp_path, {"type": kind, "path": "*.parquet"}, ["resize"]) == 2
    assert "b.parquet: the column 'conversations' cannot be read: the values are list<" in capsys.readouterr().err


def test_a_table_beside_images_has_its_types_checked(tmp_path, capsys):
    (tmp_path / "a.parquet").write_bytes(parquet(file=["a.jpg"], caption=["a"]))
    (tmp_path / "b.parquet").write_bytes(parquet(file=[{"name": "a.jpg"}], caption=["a"]))
    assert check(tmp_path, {"type": "files", "path": ".", "table": "*.parquet", "file": "file"}, ["resize"]) == 2
    assert "b.parquet: the column 'file' cannot be read: the values are struct<" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 0, "b.parquet is empty"),
        (parquet(0, other=[1]), 0, ""),
        (parquet(), 0, ""),
        (parquet(0, url=[1], caption=[[0.5]]), 0, ""),
        (parquet(1, other=[1]), 2, "b.parquet: there is no column 'url'"),
        (parquet(**GOOD)[:-9], 2, "b.parquet is cut off"),
    ],
)
def test_a_second_file_without_rows_may_lack_columns(tmp_path, capsys, content, status, words):
    (tmp_path / "a.parquet").write_bytes(parquet(**GOOD))
    (tmp_path / "b.parquet").write_bytes(content)
    assert check(tmp_path, {"type": "url_list", "path": "*.parquet"}) == status
    written = capsys.readouterr().err
    assert words in written and bool(written) == bool(words)


@pytest.mark.parametrize("name", ["url", "other"])
def test_a_name_that_the_second_file_has_twice_is_named(tmp_path, capsys, name):
    (tmp_path / "a.parquet").write_bytes(parquet(**GOOD))
    table = pa.table([*map(pa.array, GOOD.values()), pa.array([1, 2]), pa.array([3, 4])], [*GOOD, name, "other"])
    pq.write_table(table, tmp_path / "b.parquet")
    assert check(tmp_path, {"type": "url_list", "path": "*.parquet"}) == 2
    lines = capsys.readouterr().err.splitlines()
    assert f"b.parquet: several columns have the name '{name}'" in lines[0]
    assert check(tmp_path, {"type": "url_list", "path": "*.parquet", "extra": []}) == (2 if name == "url" else 0)


def test_a_type_is_shown_without_control_characters_and_cut(tmp_path, capsys):
    fields = {"a\n\x1b[31m": "x", **{f"field{number}": number for number in range(99)}}
    (tmp_path / "a.parquet").write_bytes(parquet(url=[fields], caption=["a"]))
    assert check(tmp_path, {"type": "url_list", "path": "a.parquet"}) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "\x1b" not in line and "…, not text. Name a column" in line and len(line) < 300 + len(str(tmp_path))


def test_the_columns_of_a_thousand_parquet_files_are_checked(tmp_path, capsys, monkeypatch):
    good, wrong = parquet(**GOOD), parquet(url=[1], caption=["a"])
    for number in range(lists.CHECKED_SCHEMAS):
        (tmp_path / f"{number:04}.parquet").write_bytes(good)
    (tmp_path / "0999.parquet").write_bytes(wrong)
    monkeypatch.setattr(lists, "CHECK_S", 600)  # a busy machine may be slow
    assert check(tmp_path, {"type": "url_list", "path": "*.parquet"}) == 2
    assert "0999.parquet: the column 'url' cannot be read: the values are int64" in capsys.readouterr().err
    monkeypatch.setattr(lists, "CHECK_S", -1)
    assert check(tmp_path, {"type": "url_list", "path": "*.parquet"}) == 0
