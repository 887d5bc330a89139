"""An export that holds everything is read back as the rows that `webdataset` reads from the dataset itself."""

import json
import subprocess

import pytest

from tests.exporting.made import caption, chat, document, make_dataset
from tests.exporting.read_back import both, whole_rows
from tests.exports.talks import MIXED, PLAIN, TURNS
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata.build import run
from vlmdata.export_dataset import export
from vlmdata.recipe import Recipe, Shards
from vlmdata.sources.energon import Energon
from vlmdata.sources.files import Files
from vlmdata.sources.hf_dataset import HfDataset
from vlmdata.sources.img2dataset import Img2dataset
from vlmdata.sources.llava_json import LlavaJson
from vlmdata.sources.mds import Mds
from vlmdata.sources.messages import Messages
from vlmdata.sources.mmc4 import Mmc4
from vlmdata.sources.obelics_parquet import ObelicsParquet
from vlmdata.sources.webdataset import Webdataset

A, B = picture(8, 6), picture(9, 7)


def with_facts(sample, **facts):
    """Return a sample with more fields in its JSON."""
    key, members = sample
    return key, {**members, "json": json.dumps({**json.loads(members["json"]), **facts}).encode()}


def with_boxes(sample, **facts):
    """Return a document with more facts about its image."""
    stated = json.loads(sample[1]["json"])
    return with_facts(sample, metadata=[place and {**place, **facts} for place in stated["metadata"]])


def grounding(number, image):
    """Return the grounding of the text `picture NUMBER`."""
    words = f"picture {number}"
    place = {"start": 0, "phrase_end": len(words), "end": len(words), "words": words}
    return {"task": "mention", "spans": [{**place, "image": image, "boxes": [0, 2]}]}


BOXES = [[0.0, 1.0, 2.0, 3.0], None, [4.5, 0.0, 8.0, 6.0]]
VIEW = [0.125, 0.25, 1.0, 1.25]
PLACED = {"original_boxes": [[0.25, 0.5, 0.5, 0.75], [0.0, 0.0, 0.1, 0.1], None], "view": VIEW}
PAIRS = [
    with_facts(caption(0), alternatives=["a second", "a third"], licence="CC BY", sha256="ab" * 32, original_width=80),
    with_facts(caption(1), boxes=[[0.0, 1.0, 2.0, 3.0]], phash="00ff00ff00ff00ff", scores={"clip_score": 0.25}, image="a.jpg"),
    with_facts(caption(2), url=None, mixed=[1, "a", None], column_key="k", source_key="0" * 24),
    with_facts(caption(3), alternatives=["raw too", "short", "long"], origins=[None, "recaption", "translate"]),
    with_facts(caption(4), boxes=BOXES, box_labels=["dog", 'a "cat"\n\0', None]),
    with_facts(caption(5), boxes=BOXES, **PLACED, grounding=grounding(5, 0)),
]
ALIGNED = {"alternatives": [["another"], None, None, None], "scores": {"language": ["en", None, "de", None], "length": 3}}
DOCUMENTS = [
    document(0, ["first\n", A, " second ", B], url="https://example.org/page", title={"en": "a title"}, **ALIGNED),
    document(1, [A, B, "words\n\nin two paragraphs"], matched_sim=[0.5, 1]),
    document(2, ["only", " texts"]),
    document(3, [A]),
    document(4, ["one", A], alternatives=[["two", "three"], None], origins=[["recaption", None], None]),
    with_boxes(document(5, ["one", A]), boxes=BOXES, box_labels=["dog", None, "a cat"]),
    with_boxes(document(6, [A, "picture 6"], grounding=[None, grounding(6, 0)]), boxes=BOXES, **PLACED),
]
SAMPLES = {
    "captions": PAIRS,
    "documents": DOCUMENTS,
    "conversations": [*PLAIN, *TURNS, *MIXED, chat(30, A, "q", "a", original_width=5)],
}
ODD_TEXTS = [  # that a reader could take for something else
    *(
        "tab\there\nnew\r\nline",
        " before",
        "after ",
        "\u00a0wide\u3000",
        "zero\u200b",
        "👩\u200d👩\u200d👧",
        "\u202eעברית\u202c",
    ),
    *("word " * 100_000, '["a", "b"]', '{"a": 1}', "42", "null", "a\0b", "\ufeffmark", "\x85\u2028line", "\x01\x7f", "\\\"'"),
    *("data:image/png;base64,AAAA", "https://example.org/a.jpg", "<think>why</think>"),
]
PLACEHOLDERS = ["<image>", "<image>\n", "a <image> b <image>"]
COLUMNS = {
    "licence": "CC BY",
    "image": "a.jpg",
    "messages": "m",
    "system": "s",
    "text": "t",
    "file_name": "b.jpg",
}
COLUMNS |= {
    "id": "i",
    "source_key": "0" * 24,
    "status": "s",
    "list": [1, None, "x"],
    "large": 2**63,
    "empty": "",
    "ü.v": {"w": None},
}
KINDS = [picture(1, 1, kind) for kind in ("PNG", "WEBP", "GIF", "JPEG")]


def odd_pairs():
    """Return caption pairs with odd texts as captions and as alternatives, in every format of image."""
    found = []
    for number, text in enumerate([*ODD_TEXTS, *PLACEHOLDERS, ""]):
        (key, members), kind = caption(number), number % len(KINDS)
        facts = {**json.loads(members["json"]), "caption": text, **(COLUMNS if number % 2 else {})}
        facts |= {"alternatives": [ODD_TEXTS[-number % len(ODD_TEXTS)], "another "]} if text and number % 3 else {}
        image = {("png", "webp", "gif", "jpg")[kind]: KINDS[kind]}
        found.append((key, {"json": json.dumps(facts).encode(), **image, "txt": text.encode()}))
    return found


EVERYTHING = [
    *[("tars", {}, Webdataset, ""), ("hf", {}, HfDataset, ""), ("parquet", {}, HfDataset, ""), ("mds", {}, Mds, "")],
    *[("energon", {}, Energon, ""), ("folder", {}, Files, "")],
    *[("img2dataset", {"form": form}, Img2dataset, "") for form in ("webdataset", "files")],
]
OF_DOCUMENTS = [
    ("obelics", {}, ObelicsParquet, "data"),
    ("mmc4", {"images": "base64"}, Mmc4, ""),
]
OF_CHATS = [
    *[("messages", {"form": form}, Messages, "messages.jsonl") for form in ("parts", "placeholders")],
    *[("messages", {"form": "parquet"}, Messages, "data"), ("llava", {}, LlavaJson, "llava.json")],
]


@pytest.mark.parametrize(("to", "options", "source", "inside"), EVERYTHING)
def test_captions_that_look_like_something_else_are_read_back_unchanged(tmp_path, to, options, source, inside):
    pairs = odd_pairs()
    make_dataset(tmp_path / "out", pairs, layout="captions", per_shard=10)
    export(tmp_path / "out", tmp_path / to, to=to, options=options)
    rows = whole_rows(Webdataset(path=str(tmp_path / "out")))
    assert whole_rows(source(path=str(tmp_path / to / inside))) == rows
    said = {json.loads(members["json"])["key"]: members["txt"].decode() for _, members in pairs}
    assert {row["extra"]["source_key"]: row["texts"][1]["text"] for row in rows} == said


@pytest.mark.parametrize(("to", "options", "source", "inside"), OF_DOCUMENTS)
def test_texts_of_documents_are_read_back_unchanged(tmp_path, to, options, source, inside):
    texts = [*ODD_TEXTS, *PLACEHOLDERS]
    samples = [document(number, [A, text, A, "end"], **COLUMNS) for number, text in enumerate(texts)]
    make_dataset(tmp_path / "out", samples, layout="documents", per_shard=10)
    export(tmp_path / "out", tmp_path / to, to=to, options=options)
    expected, found = both(samples, source(path=str(tmp_path / to / inside)))
    assert found == expected


@pytest.mark.parametrize(("to", "options", "source", "inside"), OF_CHATS)
def test_texts_of_conversations_are_read_back_unchanged(tmp_path, to, options, source, inside):
    """An answer has no image beside it, so its white space counts in every form. A column may have the name of a field."""
    samples = [chat(number, A, "What?", text, **COLUMNS) for number, text in enumerate(ODD_TEXTS)]
    make_dataset(tmp_path / "out", samples, layout="documents", per_shard=10)
    export(tmp_path / "out", tmp_path / to, to=to, options=options)
    expected, found = both(samples, source(path=str(tmp_path / to / inside)))
    assert found == expected


@pytest.mark.whole
def test_a_dataset_built_from_an_exported_folder_holds_the_same_samples(tmp_path):
    pairs = odd_pairs()
    make_dataset(tmp_path / "out", pairs, layout="captions", per_shard=10)
    export(tmp_path / "out", tmp_path / "to", to="folder")
    built = Recipe(Files(path=str(tmp_path / "to")), (), Shards(samples=100, layout="captions"), part_rows=1000)
    run(built, tmp_path / "again", local=True, workers=1)
    rows, again = whole_rows(Webdataset(path=str(tmp_path / "out"))), whole_rows(Webdataset(path=str(tmp_path / "again")))
    assert sorted((content_of(row) for row in again), key=repr) == sorted(map(content_of, rows), key=repr)


def content_of(row):
    image, text = row["images"][0], row["texts"][1]
    names = ("file_name", "licence", "list", "large", "empty", "earlier_scores")
    return image["data"], image["url"], text["text"], text["alternatives"], [row["extra"].get(name) for name in names]


@pytest.fixture(params=SAMPLES)
def out(request, tmp_path):
    layout = "captions" if request.param == "captions" else "documents"
    make_dataset(tmp_path / "out", SAMPLES[request.param], layout=layout, per_shard=2)
    return tmp_path / "out"


def exported(out, to):
    target = out.parent / to
    assert export(out, target, to=to) == len(whole_rows(Webdataset(path=str(out))))
    return target


@pytest.mark.parametrize("form", ["webdataset", "files"])
def test_img2dataset_reads_exported_pairs_back_unchanged(tmp_path, form):
    make_dataset(tmp_path / "out", PAIRS, layout="captions", per_shard=2)
    export(tmp_path / "out", tmp_path / "to", to="img2dataset", options={"form": form})
    rows = whole_rows(Webdataset(path=str(tmp_path / "out")))
    assert whole_rows(Img2dataset(path=str(tmp_path / "to"))) == rows
    assert [row["images"][0]["box_labels"] for row in rows if row["images"][0]["boxes"] == BOXES] == [
        ["dog", 'a "cat"\n\0', None],
        None,
    ]
    assert [row["images"][0]["view"] for row in rows if row["texts"][1]["grounding"]] == [VIEW]


@pytest.mark.parametrize(("to", "source"), [("mds", Mds), ("energon", Energon)])
def test_mds_and_energon_read_every_kind_of_sample_back_unchanged(out, to, source):
    assert whole_rows(source(path=str(exported(out, to)))) == whole_rows(Webdataset(path=str(out)))


@pytest.mark.parametrize("to", ["parquet", "hf"])
def test_hf_dataset_reads_every_kind_of_sample_back_unchanged(out, to):
    source = HfDataset(path=str(exported(out, to)))
    assert whole_rows(source) == whole_rows(Webdataset(path=str(out)))
    assert source.warning() is None


def test_hf_dataset_reads_a_stream_of_exported_parquet_unchanged(out):
    source = HfDataset(path=str(exported(out, "parquet")), streaming=True)
    assert whole_rows(source) == whole_rows(Webdataset(path=str(out)))


def test_webdataset_reads_exported_tars_back_unchanged(out):
    assert whole_rows(Webdataset(path=str(exported(out, "tars")))) == whole_rows(Webdataset(path=str(out)))


def test_files_reads_every_kind_of_sample_of_an_exported_folder_unchanged(out):
    source = Files(path=str(exported(out, "folder")))
    assert whole_rows(source) == whole_rows(Webdataset(path=str(out)))
    assert source.warning() is None


def test_webdataset_reads_a_tar_of_an_exported_folder(out):
    """The command is that of docs/formats.md. Names in the tar have no folders, so that keys are the dataset's."""
    target, tar = exported(out, "folder"), out.parent / "folder.tar"
    subprocess.run(["tar", "--sort=name", "--transform=s,.*/,,", "-cf", tar, "-C", target, "."], check=True)
    assert whole_rows(Webdataset(path=str(tar))) == whole_rows(Webdataset(path=str(out)))


def test_texts_that_a_program_changed_in_the_columns_are_read(tmp_path):
    import datasets

    make_dataset(tmp_path / "out", DOCUMENTS[:2], layout="documents")
    export(tmp_path / "out", tmp_path / "hf", to="hf")
    loaded = datasets.load_from_disk(str(tmp_path / "hf"))
    changed = loaded.map(lambda row: {"texts": [text and text.upper() for text in row["texts"]]}, load_from_cache_file=False)
    changed.save_to_disk(str(tmp_path / "changed"))
    rows = read_all(HfDataset(path=str(tmp_path / "changed"))).to_pylist()
    assert [text and text["text"] for text in rows[0]["texts"]] == ["FIRST\n", None, " SECOND ", None]


def test_named_columns_are_read_as_the_recipe_says(tmp_path):
    make_dataset(tmp_path / "out", PAIRS, layout="captions")
    export(tmp_path / "out", tmp_path / "to", to="parquet")
    row = read_all(HfDataset(path=str(tmp_path / "to"), caption="key")).to_pylist()[0]
    assert row["texts"][1]["text"] == PAIRS[0][0] and "json" in json.loads(row["extra"])


@pytest.mark.parametrize("said", ["{", "[]", "null", '{"key": "other"}'])
def test_a_row_without_the_json_of_its_sample_is_a_bad_record(tmp_path, said):
    import pyarrow.parquet as pq

    make_dataset(tmp_path / "out", DOCUMENTS[:4], layout="documents")
    export(tmp_path / "out", tmp_path / "to", to="parquet")
    (path,) = (tmp_path / "to" / "data").iterdir()
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[1]["json"] = said
    pq.write_table(table.from_pylist(rows, schema=table.schema), path)
    found = read_all(HfDataset(path=str(tmp_path / "to"))).to_pylist()
    assert [row["reason"] for row in found] == [None, "bad_record", None, None]
    assert found[1]["place"] == "train, row 2" and "`json`" in found[1]["problem"]
