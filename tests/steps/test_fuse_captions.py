"""A row's text and the caption of an earlier step are joined into one more alternative."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.generation.colours import NAME, Direct, asked
from tests.rows import captions
from tests.steps.test_recaption import facts_of, recipe_of
from vlmdata import run
from vlmdata.errors import RecipeError
from vlmdata.generation.captions import own_text, with_captions
from vlmdata.recipe import parse
from vlmdata.row import alive
from vlmdata.steps.fuse_captions import PROMPT, FuseCaptions

SOURCE = {"type": "url_list", "path": "urls.parquet"}


def step(tmp_path: Path, before: str = "recaption", **parameters: Any) -> FuseCaptions:
    generator = {NAME: {"log": f"{tmp_path}/log"}}
    first = {"recaption": {"generator": generator, "label": before}}
    return parse({"source": SOURCE, "steps": [first, {"fuse_captions": {"generator": generator, **parameters}}]}).steps[1]


def rows_with(*found: tuple[str, list[str]], origin: str = "recaption") -> pa.Table:
    """Return caption pairs, each with a text and alternatives of an earlier step."""
    rows = captions([text for text, _ in found])
    return with_captions(rows, [others for _, others in found], origin, np.ones(len(rows), bool))


def test_the_text_and_the_first_caption_of_the_earlier_step_are_fused(tmp_path):
    rows = rows_with(("Lake Bled {caption}", ["a lake {text}", "a second caption"]))
    rows = with_captions(rows, [["a caption of another step"]], "rewrite_text", np.array([True]))
    done = step(tmp_path).run(rows, Direct())
    text = own_text(done.to_pylist()[0])
    assert text["alternatives"][3:] == ["in other words Lake Bled {caption} and a lake {text}"]
    assert text["origins"] == ["recaption", "recaption", "rewrite_text", "fuse_captions"]
    ((prompt, *_),) = asked(tmp_path / "log")
    assert prompt == PROMPT.split("{text}")[0] + "Lake Bled {caption}\nSecond: a lake {text}\nSentence:"


def test_a_long_text_is_cut_and_the_caption_is_not(tmp_path):
    caption = "a lake " * 80 + "a lake"
    step(tmp_path, max_text_words=2).run(rows_with(("one two three", [caption])), Direct())
    assert f"First: one two\nSecond: {caption}\n" in asked(tmp_path / "log")[0][0]


def test_a_row_that_lacks_one_of_the_two_is_not_asked_and_counted(tmp_path):
    rows = rows_with(("", ["a lake"]), ("a text", []), ("Lake Bled", ["a lake"]))
    one = step(tmp_path)
    done = one.run(rows, Direct())
    assert alive(done).all() and one.outcomes(done) == {"no_text": 1, "no_caption": 1, "accepted": 1}
    done = replace(one, require=True).decide(done)
    assert done["reason"].to_pylist() == ["no_text", "no_caption", None]


def test_captions_of_names_a_label_and_no_other_step_counts(tmp_path):
    rows = rows_with(("Lake Bled", ["a lake"]), origin="captioner_a")
    one = step(tmp_path, "captioner_a", captions_of="captioner_a")
    assert one.columns_read() == ("texts", "captioner_a.answers")
    assert one.outcomes(one.run(rows, Direct())) == {"accepted": 1}
    assert one.outcomes(one.run(rows_with(("Lake Bled", ["a lake"])), Direct())) == {"no_caption": 1}


def test_captions_of_a_step_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(RecipeError, match=r"reads the column 'recapton\.answers', .* Did you mean 'recaption\.answers'"):
        step(tmp_path, captions_of="recapton")


@pytest.mark.parametrize("place", ["text", "caption"])
def test_a_prompt_without_a_place_is_one_line(tmp_path, place):
    with pytest.raises(RecipeError, match=f"^fuse_captions.prompt needs the place {{{place}}}"):
        step(tmp_path, prompt=PROMPT.replace(f"{{{place}}}", "")).check()


@pytest.mark.whole
def test_a_run_fuses_what_recaption_wrote_and_asks_again_when_that_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    generator = {NAME: {"log": f"{tmp_path}/log"}}
    steps = [{"recaption": {"generator": generator}}, {"fuse_captions": {"generator": generator}}]
    out, recipe = tmp_path / "out", recipe_of(tmp_path, steps)
    run(recipe, out, local=True, workers=2)
    one = facts_of(out)["the red one"]
    seen = "a mostly red picture of 64 by 32 pixels"
    assert one["alternatives"] == [seen, f"in other words the red one and {seen}"]
    assert one["origins"] == ["recaption", "fuse_captions"] and len(asked(tmp_path / "log")) == 8
    run(recipe, out, local=True, overrides={"fuse_captions.min_words": 2, "recaption.max_words": 90})
    assert len(asked(tmp_path / "log")) == 8
    run(recipe, out, local=True, overrides={"recaption.prompt": "What is this?"})
    assert len(asked(tmp_path / "log")) == 16
