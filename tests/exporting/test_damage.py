"""A stranger's dataset with invalid samples is refused in one line that names the tar."""

import json

import pytest

from tests.exporting.made import chat, document, make_dataset
from vlmdata.export_dataset import export
from vlmdata.step import RecipeError

FIVE = {"texts": [5], "images": [None], "metadata": [None]}
HALF = {"texts": ["\ud800"], "images": [None], "metadata": [None]}
TALK = {"texts": ["\ud800", "a"], "images": [None] * 2, "metadata": [None] * 2, "roles": ["user", "assistant"]}
MISSING = {"texts": [None], "images": [None], "metadata": [{"file": "9.png"}]}


@pytest.mark.parametrize(
    ("to", "facts"),
    [
        ("parquet", FIVE),
        ("hf", HALF),
        ("mds", FIVE),
        ("mds", HALF),
        ("mds", MISSING),
        ("obelics", FIVE),
        ("obelics", MISSING),
        ("mmc4", {**HALF, "texts": ["\ud800", None], "images": [None] * 2, "metadata": [None, {"file": "0.png"}]}),
        ("mmc4", {**FIVE, "metadata": 7}),
        ("messages", TALK),
        ("llava", {**TALK, "turns": [5, 5]}),
    ],
)
def test_a_sample_with_invalid_json_is_refused_in_one_line(tmp_path, to, facts):
    good = (chat if "roles" in facts else lambda n: document(n, ["a", b"x"]))(0)
    key, members = document(1, [b"x"])
    bad = (key, {**members, "json": json.dumps({"key": key, "url": None, **facts}).encode()})
    make_dataset(tmp_path / "out", [good, bad], layout="documents")
    with pytest.raises(RecipeError, match=r"out/00000\.tar(:|, sample)") as caught:
        export(tmp_path / "out", tmp_path / "to", to=to)
    assert "\n" not in str(caught.value) and not (tmp_path / "to").exists()
