"""A tar sample's JSON gives captions, or a reason why there is none, and no field of it is lost."""

import json

import pytest

from tests.loader.tars import write_tar
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata.fields import carried
from vlmdata.sources.files import Files
from vlmdata.sources.interleaved_tars import InterleavedTars
from vlmdata.sources.webdataset import Webdataset

OURS = f"{5:024x}"


def read(folder, members, facts, *, key="a", source=Webdataset, **options):
    """Return the row of a sample with these members and this JSON."""
    files = [(f"{key}.{name}", data) for name, data in members.items()]
    write_tar(folder / "a.tar", [*files, (f"{key}.json", json.dumps(facts).encode())])
    (row,) = read_all(source(path=str(folder / "a.tar"), **options)).to_pylist()
    return row


def texts_or_reason(row):
    """Return a row's texts, or the reason why it was dropped."""
    return row["reason"] or [text["text"] for text in row["texts"] if text]


def extra(row):
    """Return the source's fields in the sample's JSON, without the sample's key."""
    return {name: value for name, value in carried(row["extra"]).items() if name != "source_key"}


@pytest.mark.parametrize(
    "lists",
    [
        {"texts": ["x", "y"], "metadata": [1, 2]},
        {"texts": [], "metadata": []},
        {"texts": ["x"], "metadata": [None], "images": [None]},
        {"texts": ["x"], "metadata": ["m"], "images": ["i"]},
        {"texts": [None, "x"], "metadata": [{"file": "0.jpg"}, None], "images": [None, None]},
        {"texts": [None], "metadata": [{"file": "jpg"}], "images": [None]},
        {"texts": [None], "metadata": [{}], "images": ["http://a.org/"]},
    ],
)
def test_lists_from_other_tools_do_not_replace_image_and_caption(tmp_path, lists):
    row = read(tmp_path, {"jpg": picture(), "txt": b"caption"}, lists)
    assert (texts_or_reason(row), row["images"][0]["width"]) == (["caption"], 8)
    assert extra(row) == {f"column_{name}": value for name, value in lists.items()}


def test_a_sample_with_several_json_members_takes_no_caption_from_them(tmp_path):
    files = [("a.0.png", picture()), *((f"a.{n}.json", b'{"caption": "c"}') for n in (0, 1)), ("b.png", picture())]
    write_tar(tmp_path / "a.tar", [*files, *((f"b.{n}.json", b"{}") for n in (0, 1)), ("b.txt", b"words")])
    rows = read_all(Webdataset(path=str(tmp_path), caption=["x.txt", "txt"], image=["0.png", "png"])).to_pylist()
    assert [texts_or_reason(row) for row in rows] == ["no_caption", ["words"]]
    rows = read_all(Webdataset(path=str(tmp_path), image=["0.png", "png"])).to_pylist()
    assert [texts_or_reason(row) for row in rows] == ["several_captions", ["words"]]


@pytest.mark.parametrize(
    "lists",
    [
        {"texts": ["x"], "metadata": [1]},
        {"texts": ["x", None], "images": [None, "jpg"]},
        {"texts": ["x"], "images": [], "metadata": {}},
    ],
)
def test_a_document_from_other_tools_without_a_caption_is_dropped_and_reported(tmp_path, lists):
    assert read(tmp_path, {"jpg": picture()}, lists)["reason"] == "no_caption"
    assert texts_or_reason(read(tmp_path, {"jpg": picture()}, lists, caption=["texts"])) == ["x"]


def test_a_document_from_vlmdata_reports_a_lost_image_and_keeps_other_metadata(tmp_path):
    metadata = [None, {"file": "0.png", "by": "me"}, {"file": "1.png"}]
    lists = {"texts": ["x", None, None], "images": [None] * 3, "metadata": metadata}
    row = read(tmp_path, {"0.png": picture()}, {**lists, "caption": "c", "width": 3})
    assert texts_or_reason(row) == ["x"] and [image and image["reason"] for image in row["images"]] == [None, None, "no_image"]
    assert extra(row) == {"column_caption": "c", "column_width": 3, "column_metadata": metadata}


@pytest.mark.parametrize("others", [[["a"]], [["a"], "b"], "ab", {"a": 1}])
def test_alternatives_that_do_not_fit_a_document_lose_only_its_row(tmp_path, others):
    lists = {"texts": [None, "x"], "images": [None, None], "metadata": [{"file": "0.png"}, None]}
    assert read(tmp_path, {"0.png": picture()}, {**lists, "alternatives": others})["reason"] == "bad_record"


@pytest.mark.parametrize("blank", [b"", b" \n", b"\xef\xbb\xbf"])
def test_a_blank_caption_is_kept_from_vlmdata_and_skipped_from_other_tools(tmp_path, blank):
    members = {"jpg": picture(), "txt": blank}
    assert (
        texts_or_reason(read(tmp_path, members, {"key": OURS, "caption": "", "text": "seen in it"}, key=OURS))[0].strip() == ""
    )
    assert texts_or_reason(
        read(tmp_path, members, {"key": OURS, "caption": "", "text": "t"}, key=OURS, caption=["txt", "text"])
    ) == ["t"]
    assert texts_or_reason(read(tmp_path, members, {"text": "seen in it"})) == ["seen in it"]


@pytest.mark.parametrize("value", [{"en": "a cat", "de": None}, '{"en": "a cat"}', [{"en": "a cat"}], {"en": ["a cat"]}])
def test_a_dotted_name_reads_a_field_of_the_json(tmp_path, value):
    assert texts_or_reason(read(tmp_path, {"jpg": picture()}, {"caption": value}, caption=["caption.en"])) == ["a cat"]
    assert texts_or_reason(read(tmp_path, {"5.png": picture()}, {"caption": value}, key="1", caption=["caption.en"])) == [
        "a cat"
    ]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"en": "a cat"}, "no_text"),
        ([{"en": "a cat"}], "no_text"),
        (["a", {"b": 1}], "no_text"),
        ([101, 7592, 102], "no_text"),
        (True, "no_text"),
        (["\ud800"], "bad_encoding"),
        ("\ud800", "bad_encoding"),
        (7, ["7"]),
        ("", [""]),
        (None, [""]),
        ([None], [""]),
    ],
)
def test_a_caption_in_the_json_that_is_not_a_text_drops_the_row(tmp_path, value, found):
    row = read(tmp_path, {"jpg": picture()}, {"caption": value})
    assert texts_or_reason(row) == found and (row["reason"] is None or "'caption'" in row["problem"])
    assert texts_or_reason(read(tmp_path, {"jpg": picture(), "txt": b"c"}, {"caption": value})) == ["c"]


def test_a_dotted_name_does_not_change_which_members_are_one_sample(tmp_path):
    members = {"png": picture(), "json": b'{"caption": {"en": "c"}}'}
    write_tar(tmp_path / "a.tar", [(f"22.0{n}.{kind}", data) for n in (5, 6) for kind, data in members.items()])
    rows = read_all(Webdataset(path=str(tmp_path), caption=["caption.en"])).to_pylist()
    assert [texts_or_reason(row) for row in rows] == [["c"], ["c"]]


THEIRS = {"source_key": "s", "earlier_scores": {"a": 1}, "caption": "in the JSON", "alternatives": ["a", 5], "n": 1}
THEIRS |= {"width": 100, "original_width": -1, "boxes": [{"x": 1}], "url": ["http://a.org/"], "scores": {"clip": 0.5}}
THEIRS |= {"box_labels": ["a label"]}


def test_no_field_of_a_json_beside_a_caption_is_lost(tmp_path):
    row = read(tmp_path, {"png": picture(), "txt": b"c"}, THEIRS)
    renamed = THEIRS.keys() - {"n", "scores"}
    assert extra(row) == {**{f"column_{name}": THEIRS[name] for name in renamed}, "n": 1, "earlier_scores": {"clip": 0.5}}
    assert (row["texts"][1]["text"], row["texts"][1]["alternatives"]) == ("c", ["a"])


def test_fields_of_the_row_are_carried_only_if_they_are_measured_again(tmp_path):
    facts = {"caption": "c", "alternatives": ["d", ""], "width": 8, "url": "http://a.org/", "boxes": [[0, 0, 1, 1]]}
    facts["box_labels"] = ["dog"]
    own = {"original_width": 9, "sha256": "0" * 64, "phash": "0" * 16}
    row = read(tmp_path, {"png": picture(), "txt": b"c"}, {**facts, **own})
    assert extra(row) == {f"column_{name}": value for name, value in own.items()}
    assert row["images"][0]["original_width"] == 9
    assert extra(read(tmp_path, {"png": picture(), "txt": b"c"}, {**facts, **own, "key": "a"})) == {}


def test_the_address_and_alternatives_of_a_sample_with_several_images_are_kept(tmp_path):
    facts = {"alternatives": ["d"], "url": "http://a.org/", "sha256": "0" * 64, "width": 8}
    row = read(tmp_path, {"0.png": picture(), "1.png": picture(9), "txt": b"c"}, facts)
    assert (row["url"], row["texts"][2]["alternatives"]) == ("http://a.org/", ["d"])
    assert extra(row) == {"column_sha256": "0" * 64, "column_width": 8}


def test_a_dataset_from_vlmdata_read_again_keeps_its_source_and_all_scores(tmp_path):
    facts = {"key": OURS, "caption": "c", "width": 1, "scores": {"clip": 2.0}, "earlier_scores": {"clip": 1.0, "nsfw": 0.0}}
    first = read(tmp_path, {"png": picture(), "txt": b"c"}, {**facts, "source_key": "theirs"}, key=OURS)
    scores = {"clip": 2.0, "nsfw": 0.0}
    assert json.loads(first["extra"]) == {"source_key": OURS, "column_source_key": "theirs", "earlier_scores": scores}
    again = {**facts, "source_key": f"{9:024x}_1", "column_source_key": "theirs"}
    row = read(tmp_path, {"png": picture(), "txt": b"c"}, again, key=OURS)
    assert json.loads(row["extra"]) == {"source_key": OURS, "column_source_key": "theirs", "earlier_scores": scores}


@pytest.mark.parametrize("url", [["http://a.org/"], 7, {"a": 1}])
def test_interleaved_documents_lose_no_field(tmp_path, url):
    facts = {"texts": ["t"], "images": [None], "url": url, "source_key": "s", "earlier_scores": 1, "caption": "c"}
    row = read(tmp_path, {}, facts, source=InterleavedTars)
    assert extra(row) == {"column_url": url, "column_source_key": "s", "earlier_scores": 1, "column_caption": "c"}


@pytest.mark.parametrize("texts", [[{"text": "t"}], ["t", 5], [["t"]]])
def test_an_invalid_text_of_an_interleaved_document_loses_only_its_row(tmp_path, texts):
    row = read(tmp_path, {}, {"texts": texts, "images": [None]}, source=InterleavedTars)
    assert row["reason"] == "no_text" and "texts[" in row["problem"]


@pytest.mark.parametrize("source", [Webdataset, InterleavedTars])
def test_an_unpaired_surrogate_in_a_document_is_reported(tmp_path, source):
    facts = {"texts": ["t", "\ud800"], "images": [None, None], "metadata": [None, None]}
    assert read(tmp_path, {}, facts, source=source)["reason"] == "bad_encoding"


def test_a_json_beside_a_file_loses_no_field(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "a.json").write_text(json.dumps({**THEIRS, "caption": "c", "height": 6, "file_name": "f"}))
    (row,) = read_all(Files(path=str(tmp_path))).to_pylist()
    names = ("alternatives", "width", "original_width", "boxes", "box_labels", "earlier_scores", "file_name")
    kept = {f"column_{name}": value for name, value in {**THEIRS, "file_name": "f"}.items() if name in names}
    assert carried(row["extra"]) == {**kept, "n": 1, "source_key": "s", "earlier_scores": {"clip": 0.5}, "file_name": "a.png"}
    assert row["images"][0]["url"] == "http://a.org/"
