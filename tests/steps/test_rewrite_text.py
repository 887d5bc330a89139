"""Rewrites of captions become alternatives; the model sees only the text."""

from pathlib import Path
from typing import Any

import pytest

from tests.generation.colours import NAME, Direct, asked
from tests.rows import captions, document, table
from vlmdata.errors import RecipeError
from vlmdata.generation.captions import own_text
from vlmdata.recipe import parse
from vlmdata.steps.rewrite_text import EXAMPLES, RewriteText


def step(tmp_path: Path, **parameters: Any) -> RewriteText:
    steps = [{"rewrite_text": {"generator": {NAME: {"log": f"{tmp_path}/log"}}, **parameters}}]
    (one,) = parse({"source": {"type": "url_list", "path": "urls.parquet"}, "steps": steps}).steps
    return one


def test_a_caption_is_rewritten_beside_the_old_one(tmp_path):
    done = step(tmp_path).run(captions(["a red\n {examples} barn", "a mill"]), Direct())
    texts = [own_text(row) for row in done.to_pylist()]
    assert [one["text"] for one in texts] == ["a red\n {examples} barn", "a mill"]
    assert [one["alternatives"] for one in texts] == [["in other words a red {examples} barn"], ["in other words a mill"]]
    assert [one["origins"] for one in texts] == [["rewrite_text"]] * 2


def test_the_examples_stand_before_the_caption_and_no_image_is_sent(tmp_path):
    one = step(tmp_path, examples=[["a {text}", "b {text}"]], system="be brief")
    one.run(captions(["a mill"]), Direct())
    ((text, system, _, images),) = asked(tmp_path / "log")
    assert text.endswith("Caption: a {text}\nNew caption: b {text}\n\nCaption: a mill\nNew caption:")
    assert (system, images) == ("be brief", 0) and one.wording()["examples"] == "Caption: a {text}\nNew caption: b {text}\n\n"


def test_the_shipped_examples_are_accepted_by_the_shipped_rules(tmp_path):
    one = step(tmp_path)
    assert one.examples == list(EXAMPLES) and len(EXAMPLES) == 3
    assert all(one.min_words <= len(text.split()) <= one.max_words for pair in EXAMPLES for text in pair)


def test_other_examples_make_another_measurement(tmp_path):
    assert step(tmp_path).identity() != step(tmp_path, examples=[["a", "b"]]).identity()
    assert step(tmp_path).identity() == step(tmp_path, min_words=9).identity()


def test_samples_of_one_caption_differ_and_equal_ones_count_once(tmp_path):
    rows = captions(["a mill"])
    done = step(tmp_path, samples=2, temperature=1).run(rows, Direct())
    assert len(own_text(done.to_pylist()[0])["alternatives"]) == 2
    prompt = {"prompt": "Repeat.\nCaption: a mill\n{text}", "examples": []}
    one = step(tmp_path, **prompt)
    done = one.run(captions(["in other words a mill"]), Direct())
    assert one.outcomes(done) == {"duplicate": 1} and own_text(done.to_pylist()[0])["alternatives"] is None


def test_rows_without_a_text_are_not_asked(tmp_path):
    image = {"blob": "b", "offset": 0, "size": 1}
    rows = table([document(image), document(image, " \u200b\n"), document(image, "a", "b"), document(image, "a mill")])
    one = step(tmp_path, require=True)
    done = one.run(rows, Direct())
    assert done["reason"].to_pylist() == ["no_text", "no_text", None, None]
    assert one.outcomes(done) == {"no_text": 2, "accepted": 1, "not_a_pair": 1}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"prompt": "{examples}"}, "rewrite_text.prompt needs the place {text}"),
        ({"prompt": "{text}"}, r"rewrite_text.prompt needs the place {examples}, or set examples: \[\]"),
        ({"prompt": "{text} {caption}"}, "rewrite_text.prompt: nothing is known for the place {caption}"),
    ],
)
def test_a_wrong_prompt_is_one_line(tmp_path, parameters, message):
    with pytest.raises(RecipeError, match=f"^{message}"):
        step(tmp_path, **parameters).check()


def test_an_example_that_is_no_pair_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"RewriteText\.examples"):
        step(tmp_path, examples=[["a", "b", "c"]])
