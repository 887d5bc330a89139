"""The shipped recipes of LAION keep the rows that the published rules keep, on a table full of boundaries.

The rules are reimplemented here on plain columns, from Schuhmann et al. 2021 and 2022, and crawlingathome's ccpp.py and
dbdl.py. The web and the models are left out, and the table has their results.
"""

from typing import Any

import fasttext
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlmdata.engine.partitions.keys import content_keys, number_repeats
from vlmdata.recipe import load
from vlmdata.row import conform, flatten, set_column
from vlmdata.steps.clip_score import ClipScore
from vlmdata.steps.download import Download
from vlmdata.steps.image_bytes import ImageBytes
from vlmdata.steps.language import load_model
from vlmdata.steps.resize import Resize

pytestmark = pytest.mark.whole

COUNT = 20_000
TEXTS = [
    "a photo of the dog",
    "my house and garden",
    "une photo de la maison",
    "ein Bild von dem Hund",
    "собака и дом",
    "一只狗和一座房子",
    "12345",  # no letters, so no language: scored as a language other than English
    "!!! ...",
    "four",
    "fives",
    "",
    "abcd ",
    "ab\ncd",
]
ADDRESSES = [
    "https://example.org/{}.jpg",
    "https://example.org/{}.png?as=jpg",
    "https://example.org/gif/{}.webp",  # "gif" alone is not banned, but ".gif" is
    "https://example.org/{}.svg",
    "https://example.org/{}.svg.png",
    "https://example.org/{}.gif?small",
    "https://example.org/?of=data:image/{}",
    "data:image/png;base64,{}",
    "javascript:show({})",
]
BANNED = (".svg", ".gif", "data:image", "javascript:")


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return a list with repeated rows, and the results of the web and of two models for each."""
    random = np.random.default_rng(0)
    grid = np.array([0.2, 0.25, 0.2599, 0.26, 0.2601, 0.27, 0.2799, 0.28, 0.2801, 0.3, 0.35], np.float32)
    near = np.concatenate([grid, np.nextafter(grid, np.float32(0)), np.nextafter(grid, np.float32(1))])
    kinds = random.choice(len(ADDRESSES), COUNT, p=[0.6, 0.1, 0.05, 0.05, 0.04, 0.04, 0.04, 0.04, 0.04])
    columns = {
        "url": [ADDRESSES[kind].format(number) for kind, number in zip(kinds, random.integers(0, 900, COUNT), strict=True)],
        "text": random.choice(TEXTS, COUNT).tolist(),
    }
    first: dict[tuple[str, str], int] = {}
    same = np.array([first.setdefault(row, number) for number, row in enumerate(zip(*columns.values(), strict=True))])
    path = tmp_path_factory.mktemp("laion") / "list.parquet"
    pq.write_table(pa.table({**columns, "number": np.arange(COUNT)}), path)
    made = {  # equal rows have equal values
        "bytes": random.choice([1, 4999, 5000, 5001, 90_000], COUNT, p=[0.1, 0.1, 0.3, 0.1, 0.4])[same],
        "b32": random.choice(near, COUNT)[same],
        "mclip": random.choice(near, COUNT)[same],
    }
    lines = [" ".join(text.split()) for text in columns["text"]]
    assert fasttext
    english = np.array([load_model().predict(line)[0][0] == "__label__en" and any(map(str.isalpha, line)) for line in lines])
    assert english.any() and not english.all()
    return {**columns, **made, "english": english, "first": same == np.arange(COUNT), "path": str(path)}


def common(pool: dict[str, Any]) -> np.ndarray:
    """Return the rows that pass both recipes' rules before the model: its text, its address, that it is the first copy, its
    bytes."""
    long = np.array([len(text) >= 5 for text in pool["text"]])
    fetched = np.array([not any(word in url for word in BANNED) for url in pool["url"]])
    return long & fetched & pool["first"] & (pool["bytes"] >= 5000)


def laion2b(pool: dict[str, Any]) -> np.ndarray:
    return common(pool) & pool["english"] & (pool["b32"] >= np.float32(0.28))


def laion5b(pool: dict[str, Any]) -> np.ndarray:
    english, other = pool["b32"] >= np.float32(0.28), pool["mclip"] >= np.float32(0.26)
    return common(pool) & np.where(pool["english"], english, other)


def scores_of(rows: pa.Table, values: np.ndarray) -> pa.Array:
    """Return a value for each row as a measurement of its image: (N,) -> (N,) lists of two, with null for the text."""
    return pa.array([[value, None] for value in values.tolist()], pa.list_(pa.float32()))


def with_bytes(rows: pa.Table, sizes: np.ndarray) -> pa.Table:
    flat = flatten(rows, "images")
    given = pa.array(sizes[flat.parents], pa.int64(), mask=flat.items.is_null().to_numpy(zero_copy_only=False))
    fields = [given if field.name == "size" else flat.field(field.name) for field in flat.items.type]
    items = pa.StructArray.from_arrays(fields, fields=list(flat.items.type), mask=flat.items.is_null())
    return set_column(rows, "images", flat.rebuild(items))


def decided(recipe: str, pool: dict[str, Any]) -> pa.Table:
    given = load(recipe, {"source.path": pool["path"], "source.url": "url", "source.caption": "text"})
    rows = pa.concat_tables([conform(table) for piece in given.source.pieces() for table in given.source.read(piece)])
    rows = set_column(rows.combine_chunks(), "key", pa.array(number_repeats(content_keys(rows))))
    for step in given.steps:
        step.check()
        if isinstance(step, ClipScore):
            scores = pool[step.label or "b32"]
            rows = step.decide(set_column(rows, step.name, scores_of(rows, scores)))
        elif not isinstance(step, Download | Resize):
            rows = step.run(with_bytes(rows, pool["bytes"]) if isinstance(step, ImageBytes) else rows)
    return rows


@pytest.mark.parametrize(("recipe", "rule"), [("laion", laion2b), ("laion5b", laion5b)])
def test_a_recipe_keeps_the_rows_that_the_published_rule_keeps(recipe: str, rule: Any, pool: dict[str, Any]) -> None:
    expected = rule(pool)
    assert 100 < expected.sum() < COUNT / 2
    kept = decided(recipe, pool)["drop"].is_null().to_numpy()
    assert np.flatnonzero(kept).tolist() == np.flatnonzero(expected).tolist()


def test_each_language_uses_its_model_and_scores_equal_to_the_threshold_pass(pool: dict[str, Any]) -> None:
    rows = decided("laion5b", pool)
    at_last = common(pool)  # only the models' scores can drop these rows
    reasons = np.array(rows["reason"].to_pylist(), object)
    for english, score, least in ((True, "b32", 0.28), (False, "mclip", 0.26)):
        here = at_last & (pool["english"] == english)
        values, exact = pool[score], np.float32(least)
        for value, reason in (
            (exact, None),
            (np.nextafter(exact, np.float32(1)), None),
            (np.nextafter(exact, np.float32(0)), f"min_{score}"),
        ):
            assert set(reasons[here & (values == value)]) == {reason}


def test_an_inline_image_is_dropped_before_anything_is_fetched(pool: dict[str, Any]) -> None:
    given = load("laion5b", {"source.path": pool["path"]})
    assert [step.name for step in given.steps[:3]] == ["text_length", "image_url_rules", "dedupe_exact"]
    rows = decided("laion5b", pool)
    inline = np.array([url.startswith("data:") for url in pool["url"]]) & np.array([len(text) >= 5 for text in pool["text"]])
    assert set(np.array(rows["drop"].to_pylist(), object)[inline]) == {"image_url_rules"}
