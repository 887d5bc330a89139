import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlmdata.grounding.spans import read_grounding
from vlmdata.readers.grounded_captions import grounded
from vlmdata.row import conform
from vlmdata.sources.grit import Grit
from vlmdata.step import RecipeError

CAPTION = "a dog and a cat on a sofa"
DOG, CAT, SOFA = [2.0, 5.0, 0.125, 0.25, 0.5, 0.75, 0.9], [12, 15, 0.5, 0.0, 1.0, 0.5, 0.7], [21, 25, 0, 0, 1, 1, 0.8]
CAT_ON_SOFA = [12, 25, 0.5, 0.0, 1.0, 0.5, 0.95]


def write(folder: Path, records: list[dict[str, Any]]) -> str:
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, records)))
    return str(folder / "list.jsonl")


def record(caption: Any = CAPTION, noun_chunks: Any = (), ref_exps: Any = (), **fields: Any) -> dict[str, Any]:
    """Return a record as in GRIT's files, with the columns that img2dataset adds left out."""
    url = "https://h/a.jpg"
    return {"key": "0", "url": url, "caption": caption, "noun_chunks": noun_chunks, "ref_exps": ref_exps, **fields}


def read(source: Grit) -> tuple[list[dict[str, Any]], Counter[str]]:
    source.check()
    others: Counter[str] = Counter()
    return [
        row for one in source.pieces() for table in source.read_counting(one, others) for row in conform(table).to_pylist()
    ], others


def test_boxes_stand_behind_the_words_that_they_show(tmp_path: Path) -> None:
    (row,), others = read(Grit(path=write(tmp_path, [record(noun_chunks=[CAT, DOG, SOFA], clip=0.3)])))
    image, text = row["images"][0], row["texts"][1]
    dog, cat, sofa = "[0.125, 0.250, 0.500, 0.750]", "[0.500, 0.000, 1.000, 0.500]", "[0.000, 0.000, 1.000, 1.000]"
    assert text["text"] == f"a dog {dog} and a cat {cat} on a sofa {sofa}"
    found = read_grounding(text["grounding"], text["text"])
    assert found is not None and found.task == "mention"
    assert [(span.words, span.boxes) for span in found.spans] == [
        (f"dog {dog}", (0,)),
        (f"cat {cat}", (1,)),
        (f"sofa {sofa}", (2,)),
    ]
    assert (image["original_boxes"], image["boxes"]) == ([DOG[2:6], CAT[2:6], SOFA[2:6]], None)
    assert (image["box_labels"], image["url"], others) == (["dog", "cat", "sofa"], "https://h/a.jpg", {})
    assert json.loads(row["extra"]) == {"key": "0", "clip": 0.3}


@pytest.mark.parametrize(
    ("phrases", "labels", "counted"),
    [
        ("both", ["dog", "cat on a sofa"], {"phrase_within_another": 2}),
        ("ref_exps", ["cat on a sofa"], {}),
        ("noun_chunks", ["dog", "cat", "sofa"], {}),
    ],
)
def test_phrases_do_not_overlap(tmp_path: Path, phrases: Any, labels: list[str], counted: dict[str, int]) -> None:
    path = write(tmp_path, [record(noun_chunks=[DOG, CAT, SOFA], ref_exps=[CAT_ON_SOFA])])
    (row,), others = read(Grit(path=path, phrases=phrases))
    assert (row["images"][0]["box_labels"], others) == (labels, counted)


def test_several_boxes_of_the_same_words_stay_together() -> None:
    found = grounded("two dogs", [[[4, 8, 0, 0, 0.5, 1, 0.9], [4, 8, 0.5, 0, 1, 1, 0.8]]], 0.65, Counter())
    assert found.text == "two dogs [0.000, 0.000, 0.500, 1.000] [0.500, 0.000, 1.000, 1.000]"
    assert found.grounding is not None and found.grounding.spans[0].boxes == (0, 1) and found.labels == ["dogs", "dogs"]


def test_the_longer_of_two_phrases_in_a_list_stays() -> None:
    others: Counter[str] = Counter()
    assert grounded(CAPTION, [[SOFA, CAT_ON_SOFA, CAT]], 0, others).labels == ["cat on a sofa"]
    assert others == {"phrase_within_another": 2}


@pytest.mark.parametrize(("score", "labels"), [(0.65, ["dog"]), (0.6499, [])])
def test_the_least_score_is_a_limit(tmp_path: Path, score: float, labels: list[str]) -> None:
    (row,), others = read(Grit(path=write(tmp_path, [record(noun_chunks=[[*DOG[:6], score]])])))
    assert (row["images"][0]["box_labels"] or [], others) == (labels, {} if labels else {"phrase_below_min_score": 1})
    assert row["drop"] is None and row["texts"][1]["text"].startswith("a dog")


BAD: list[Any] = [
    None,
    "x",
    {},
    DOG[:6],
    [*DOG, 1],
    [2.5, *DOG[1:]],
    [5, 2, *DOG[2:]],
    [-1, *DOG[1:]],
    [0, 26, *DOG[2:]],
    [1, 2, *DOG[2:]],
    [0, 10**400, *DOG[2:]],
    [2, 5, 0.5, 0, 0.5, 1, 0.9],
    [2, 5, 1.5, 0, 2, 1, 0.9],
    [2, 5, float("nan"), 0, 1, 1, 0.9],
    [2, 5, 0, 0, 1, 1, None],
]


@pytest.mark.parametrize("entry", BAD)
def test_an_entry_that_cannot_be_used_is_counted(tmp_path: Path, entry: Any) -> None:
    (row,), others = read(Grit(path=write(tmp_path, [record(noun_chunks=[entry, SOFA])])))
    assert (row["images"][0]["box_labels"], others, row["drop"]) == (["sofa"], {"bad_phrase": 1}, None)


def test_edges_outside_of_the_picture_are_cut() -> None:
    found = grounded(CAPTION, [[[2, 5, -0.1, 0.5, 1.2, 1.0001, 0.9]]], 0.65, Counter())
    assert found.boxes == [(0.0, 0.5, 1.0, 1.0)]


@pytest.mark.parametrize(
    ("fields", "reason", "text"),
    [
        ({"caption": None}, None, ""),
        ({"caption": 5}, "no_text", ""),
        ({"caption": ["a"]}, "no_text", ""),
        ({"url": None}, "no_address", CAPTION),
        ({"url": "/etc/passwd"}, "no_address", CAPTION),
        ({"noun_chunks": "[", "ref_exps": None}, None, CAPTION),
        ({"caption": "half \ud800 dog"}, None, "half ? dog"),
    ],
)
def test_a_record_with_wrong_fields_has_an_outcome(
    tmp_path: Path, fields: dict[str, Any], reason: str | None, text: str
) -> None:
    (row, fine), _ = read(Grit(path=write(tmp_path, [{**record(), **fields}, record(noun_chunks=[DOG])])))
    assert (row["reason"], row["texts"][1]["text"], row["texts"][1]["grounding"]) == (reason, text, None)
    assert (fine["reason"], fine["images"][0]["box_labels"]) == (None, ["dog"])


def test_parquet_and_json_text_are_read(tmp_path: Path) -> None:
    kind = pa.list_(pa.list_(pa.float64()))
    table = {"url": ["https://h/a.jpg"], "caption": [CAPTION], "noun_chunks": pa.array([[DOG]], kind)}
    pq.write_table(pa.table({**table, "ref_exps": pa.array([[]], kind)}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text(json.dumps(record(noun_chunks=json.dumps([DOG]), ref_exps="[]")))
    first, second = read(Grit(path=str(tmp_path)))[0]
    assert first["texts"] == second["texts"] and first["images"][0]["box_labels"] == ["dog"]


def test_a_missing_column_is_reported_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no column 'ref_exps'"):
        Grit(path=write(tmp_path, [{"url": "https://h/", "caption": "a", "noun_chunks": []}])).check()
    with pytest.raises(RecipeError, match="min_score must be 0 to 1"):
        Grit(path=write(tmp_path, [record()]), min_score=65).check()


@pytest.mark.parametrize(
    ("place", "labels"), [((4, 7), ["dog"]), ((5, 8), []), ((3, 7), []), ((4, 6), []), ((11, 17), ["a sofa"])]
)
def test_places_that_are_not_characters_of_the_caption_are_not_used(place: tuple[int, int], labels: list[str]) -> None:
    others: Counter[str] = Counter()
    found = grounded("a \U0001f600 dog on a sofa", [[[*place, 0.1, 0.2, 0.5, 0.6, 0.9]]], 0.5, others)  # (5, 8): in UTF-16
    assert (found.labels, others["bad_phrase"]) == ([*labels], 0 if labels else 1)
