"""Documents exported in OBELICS's form have its columns, and the source obelics_parquet reads them back unchanged."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.exporting.made import caption, document, make_dataset
from tests.exporting.read_back import both
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata.export_dataset import export
from vlmdata.sources.obelics_parquet import ObelicsParquet

A, B = picture(8, 6), picture(9, 7)
DOCUMENTS = [
    document(0, ["first\n", A, " second ", B], url="https://example.org/page", title="a title"),
    document(1, [A, B, "words"]),
    document(2, ["one", A, "two", A]),
]


def exported(tmp_path, samples=DOCUMENTS, **options):
    make_dataset(tmp_path / "out", samples, layout="documents", per_shard=2)
    export(tmp_path / "out", tmp_path / "to", to="obelics", options=options)
    return tmp_path / "to" / "data"


def test_documents_are_read_back_unchanged(tmp_path):
    expected, found = both(DOCUMENTS, ObelicsParquet(path=str(exported(tmp_path))))
    assert found == expected
    row = read_all(ObelicsParquet(path=str(tmp_path / "to" / "data"))).to_pylist()[0]
    assert row["url"] == "https://example.org/page" and json.loads(row["extra"]) == {"title": "a title"}
    assert row["images"][1]["url"] == "https://example.org/0/0.png"


def test_the_columns_are_those_of_obelics(tmp_path):
    path = sorted(exported(tmp_path).iterdir())[0]
    schema = pq.read_schema(path)
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    kinds = {
        "images": pa.list_(image),
        "texts": pa.list_(pa.string()),
        "metadata": pa.string(),
        "general_metadata": pa.string(),
    }
    assert dict(zip(schema.names, schema.types, strict=True)) == kinds
    row = pq.read_table(path).to_pylist()[0]
    assert [text is None for text in row["texts"]] == [image is not None for image in row["images"]] == [False, True] * 2
    entries = json.loads(row["metadata"])
    assert [entry is None for entry in entries] == [True, False, True, False]
    assert entries[1] == {"document_url": "https://example.org/page", "src": "https://example.org/0/0.png", "format": "png"}
    assert json.loads(row["general_metadata"]) == {"url": "https://example.org/page", "title": "a title"}


def test_datasets_shows_the_images(tmp_path):
    loaded = datasets.load_dataset(str(exported(tmp_path).parent), split="train", cache_dir=str(tmp_path / "cache"))
    assert [image and image.size for image in loaded[0]["images"]] == [None, (8, 6), None, (9, 7)]


def test_addresses_instead_of_bytes_are_as_in_the_published_dataset(tmp_path):
    facts = json.loads(DOCUMENTS[1][1]["json"])
    bare = (
        DOCUMENTS[1][0],
        {**DOCUMENTS[1][1], "json": json.dumps({**facts, "images": [None, "https://e.org", None]}).encode()},
    )
    with pytest.warns(UserWarning, match="1 sample is left out"):
        folder = exported(tmp_path, [DOCUMENTS[0], bare, DOCUMENTS[2]], images="urls")
    rows = pq.read_table(folder).to_pylist()
    assert [row["images"] for row in rows] == [
        [None, "https://example.org/0/0.png", None, "https://example.org/0/1.png"],
        [None, "https://example.org/2/0.png", None, "https://example.org/2/1.png"],
    ]
    read = read_all(ObelicsParquet(path=str(folder))).to_pylist()
    assert [image and image["url"] for image in read[0]["images"]] == rows[0]["images"]


def test_a_caption_pair_is_not_a_document(tmp_path):
    make_dataset(tmp_path / "out", [caption(0)], layout="captions")
    with pytest.raises(ValueError, match="holds captions, and the format 'obelics' holds documents"):
        export(tmp_path / "out", tmp_path / "to", to="obelics")
