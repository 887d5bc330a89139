"""Captions of pictures become alternatives, and the old text stays."""

import base64
import json
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.generation.colours import NAME, Direct, asked, painted
from tests.rows import document, table
from vlmdata import run
from vlmdata.demo.recipe import HERE
from vlmdata.errors import RecipeError
from vlmdata.generation.captions import own_text
from vlmdata.recipe import parse
from vlmdata.row import alive
from vlmdata.show import first_samples
from vlmdata.steps.clip_score import ClipScore
from vlmdata.steps.recaption import PROMPTS

RED, GREEN, BLUE, WHITE = (f"a mostly {name} picture of 64 by 32 pixels" for name in ("red", "green", "blue", "white"))


def step(tmp_path: Path, *, instead: dict[str, str] | None = None, finishes: dict[str, str] | None = None, **parameters: Any):
    generator = {NAME: {"log": f"{tmp_path}/log", "instead": instead, "finishes": finishes}}
    steps = [{"recaption": {"generator": generator, **parameters}}]
    (one,) = parse({"source": {"type": "url_list", "path": "urls.parquet"}, "steps": steps}).steps
    return one


def rows_of(texts: dict[str, str | None]) -> tuple[pa.Table, Direct]:
    """Return caption pairs with a picture of each colour, and the context that has the pictures."""
    bodies = {colour: painted(colour) for colour in texts}
    images = [{"blob": name, "offset": 0, "size": len(data), "sha256": name} for name, data in bodies.items()]
    rows = [
        document(image) if text is None else document(image, text) for image, text in zip(images, texts.values(), strict=True)
    ]
    return table(rows), Direct(bodies)


class Clips(Direct):
    """A context that also loads a model."""

    def kept(self, name: str, make: Any) -> Any:
        return make()


def found(rows: pa.Table) -> list[tuple[str, list[str] | None, list[str | None] | None]]:
    texts = [own_text(row) for row in rows.to_pylist()]
    return [(text["text"], text["alternatives"], text["origins"]) for text in texts if text]


def test_a_picture_gets_a_caption_beside_its_text_or_in_place_of_none(tmp_path):
    rows, context = rows_of({"red": "a fire", "green": "", "blue": None})
    done = step(tmp_path).run(rows, context)
    origin = ["recaption"]
    assert found(done) == [("a fire", [RED], origin), ("", [GREEN], origin), ("", [BLUE], origin)]
    assert alive(done).all() and not any("fire" in text for text, *_ in asked(tmp_path / "log"))
    assert context.notes[0]["prompts"] == {"prompt": PROMPTS["describe"], "system": ""}


@pytest.mark.parametrize("mode", ["edit", "fuse"])
def test_the_old_text_is_shown_in_the_modes_edit_and_fuse(tmp_path, mode):
    rows, context = rows_of({"red": "a {text} of\x00\nfire", "green": " \n", "blue": None})
    one = step(tmp_path, mode=mode)
    done = one.run(rows, context)
    assert found(done)[0][1] == [f"{RED} named a {{text}} of fire"]
    assert [alternatives for _, alternatives, _ in found(done)[1:]] == [None, None]
    assert one.outcomes(done) == {"accepted": 1, "no_text": 2}


def test_describe_does_not_depend_on_texts_and_edit_not_on_alternatives(tmp_path):
    assert step(tmp_path).columns_read() == ("images",)
    assert step(tmp_path, mode="edit").columns_read() == ("images", "texts.text")


def test_a_long_text_is_cut_before_it_is_sent(tmp_path):
    rows, context = rows_of({"red": "word " * 20_000})
    step(tmp_path, mode="edit", max_text_words=4).run(rows, context)
    assert asked(tmp_path / "log")[0][0] == PROMPTS["edit"].replace("{text}", "word word word word")


def test_a_large_picture_is_sent_at_the_side_of_the_recipe(tmp_path):
    rows, context = rows_of({"red": "a fire"})
    assert found(step(tmp_path, image_side=16).run(rows, context))[0][1] == ["a mostly red picture of 16 by 8 pixels"]


def test_each_sample_has_its_own_seed_and_each_caption_its_origin(tmp_path):
    rows, context = rows_of({"red": "a fire"})
    done = step(tmp_path, samples=3, temperature=0.9, label="one", system="be brief").run(rows, context)
    lines = asked(tmp_path / "log")
    assert len({seed for _, _, seed, _ in lines}) == 3 and {system for _, system, _, _ in lines} == {"be brief"}
    ((_, alternatives, origins),) = found(done)
    assert sorted(alternatives) == sorted(f"{RED}, seen as number {seed}" for _, _, seed, _ in lines) and origins == ["one"] * 3


def test_rejected_captions_leave_the_row_or_drop_it_with_the_first_reason(tmp_path):
    rows, context = rows_of({"red": "a fire", "green": "grass", "blue": "sea", "white": "snow"})
    answers = {"instead": {"red": "fire", "green": "I cannot see it", "white": "  SNOW \n"}, "finishes": {"blue": "length"}}
    one = step(tmp_path, min_words=2, **answers)
    done = one.run(rows, context)
    assert alive(done).all() and [alternatives for _, alternatives, _ in found(done)] == [None] * 4
    assert one.outcomes(done) == {"min_words": 2, "refusal": 1, "length": 1}
    done = replace(one, require=True, min_words=1).decide(done)
    assert done["reason"].to_pylist() == [None, "refusal", "length", "duplicate"]
    done = replace(one, require=True).decide(done)
    verdicts = zip(*(done[name].to_pylist() for name in ("drop", "reason", "value", "threshold")), strict=True)
    assert list(verdicts) == [
        ("recaption", "min_words", 1.0, 2.0),
        ("recaption", "refusal", None, None),
        ("recaption", "length", None, None),
        ("recaption", "duplicate", None, None),
    ]


def test_a_picture_that_cannot_be_decoded_is_a_failure_and_not_sent(tmp_path):
    rows, context = rows_of({"red": "a fire", "blue": "sea"})
    context.bodies["red"] = bytes(len(context.bodies["red"]))
    one = step(tmp_path, require=True)
    done = one.run(rows, context)
    assert done["reason"].to_pylist() == ["bad_image", None] and len(asked(tmp_path / "log")) == 1
    spent = one.spent(done)
    assert (spent["failed/bad_image"], spent["answers"], spent["accepted"]) == (1, 1, 1)
    assert not [name for name in spent if name.startswith("rejected")]


def test_documents_and_conversations_are_kept_and_counted(tmp_path):
    _, context = rows_of({"red": ""})
    image = {"blob": "red", "offset": 0, "size": len(context.bodies["red"]), "sha256": "red", "alt": "an alt", "drop": None}
    chat = {**document(image, "question", "answer"), "roles": ["user", "user", "assistant"]}
    rows = table([chat, {**document(image, "a", image), "roles": None}, {**document("words"), "roles": None}])
    one = step(tmp_path, require=True)
    done = one.run(rows, context)
    assert alive(done).all() and done["texts"].equals(rows["texts"]) and done["images"].equals(rows["images"])
    assert one.outcomes(done) == {"not_a_pair": 3} and asked(tmp_path / "log") == []
    with pytest.raises(RecipeError, match="none of the source's first 3 rows is one"):
        one.check_rows(rows)


def test_hostile_answers_are_stored_as_one_line_or_rejected(tmp_path):
    rows, context = rows_of({"red": "a", "green": "b", "blue": "c", "white": "d"})
    instead = {
        "red": '"A\x00\x1b[31m red\nfire \ud800 {text}"',
        "green": "x" * 5_000_000,
        "blue": "sea " * 1000,
        "white": "**Here is** a caption:\n> snow",
    }
    one = step(tmp_path, instead=instead)
    done = one.run(rows, context)
    captions = [alternatives for _, alternatives, _ in found(done)]
    assert captions == [["A [31m red fire ? {text}"], None, None, ["**Here is** a caption: > snow"]]
    assert one.outcomes(done) == {"accepted": 2, "too_long": 1, "max_words": 1}


def test_a_start_that_the_recipe_names_is_rejected(tmp_path):
    rows, context = rows_of({"white": "d"})
    one = step(tmp_path, instead={"white": "**Here is** a caption:\n> snow"}, refusals=["here is"])
    assert one.outcomes(one.run(rows, context)) == {"refusal": 1}


def test_clip_score_after_the_step_takes_the_best_of_text_and_captions(tmp_path):
    rows, context = rows_of({"red": "a fire", "blue": "a chart of the population"})
    clip = ClipScore(model=f"local-dir:{HERE / 'clip'}", min_score=-1)

    def scored(rows: pa.Table) -> list[tuple[float, str]]:
        done = clip.run(rows, Clips(context.bodies))
        scores, kinds = (done[name].to_pylist() for name in ("clip_score", "clip_score.text"))
        return [(score[0], kind[0]) for score, kind in zip(scores, kinds, strict=True)]

    done = step(tmp_path).run(rows, context)
    captions_alone = rows_of({"red": RED, "blue": BLUE})[0]
    raw, alone, both = scored(rows), scored(captions_alone), scored(done)
    for before, caption, found in zip(raw, alone, both, strict=True):
        assert found == (max(before[0], caption[0]), "alternative" if caption[0] > before[0] else "after")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"samples": 2}, r"recaption.samples is 2, but all are equal at temperature 0. Set temperature, such as 0.9"),
        ({"samples": 0}, "recaption.samples must be 1 to 100, not 0"),
        ({"image_side": 0}, "recaption.image_side must be 16 to 8192, not 0"),
        ({"max_words": 2}, "recaption.max_words must be at least min_words, not 2"),
        ({"max_words": 0, "min_words": 0}, "recaption.max_words must be 1 to 2,147,483,647, not 0"),
        ({"max_repeats": 1.5}, r"recaption.max_repeats must lie in \[0, 1\], not 1.5"),
        ({"refusals": [" "]}, "recaption.refusals has a text without a word"),
        ({"refusals": ["I cannot", '"']}, "recaption.refusals has a text without a word"),
        ({"max_text_words": 0}, "recaption.max_text_words must be 1 to 2,147,483,647, not 0"),
        ({"max_text_words": 10**30}, "recaption.max_text_words must be 1 to 2,147,483,647, not 10"),
        ({"max_tokens": 2**31}, "recaption.max_tokens must be 1 to 2,147,483,647, not 2147483648"),
        ({"min_words": -1}, "recaption.min_words must be 0 to 2,147,483,647, not -1"),
        ({"prompt": "Look: {text}"}, "recaption.prompt has the place {text}, but mode describe shows no text. Set mode: edit"),
        (
            {"prompt": "Look: {txt}", "mode": "edit"},
            "recaption.prompt: nothing is known for the place {txt}. Did you mean 'text'?",
        ),
        ({"prompt": "Look", "mode": "fuse"}, "recaption.prompt needs the place {text} for the old text, or set mode: describe"),
        ({"system": "a \ud800"}, "recaption.system has a lone surrogate, which is no character. Remove it"),
        ({"label": "raw"}, "the label 'raw' has another meaning in the weights of captions"),
        (
            {"label": "synthetic"},
            "the label 'synthetic' has another meaning in the weights of captions",
        ),
    ],
)
def test_a_wrong_parameter_is_one_line_with_its_place(tmp_path, parameters, message):
    with pytest.raises(RecipeError, match=f"^{message}") as caught:
        step(tmp_path, **parameters).check()
    assert "\n" not in str(caught.value)


def recipe_of(tmp_path: Path, steps: list[Any], *, has_texts: bool = True) -> Path:
    """Write four pictures in a list, with or without captions, and a recipe with these steps."""
    lines = [
        {"picture": base64.b64encode(painted(colour)).decode(), **({"caption": f"the {colour} one"} if has_texts else {})}
        for colour in ("red", "green", "blue", "white")
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = {
        "type": "url_list",
        "path": f"{tmp_path}/list.jsonl",
        "image": "picture",
        "caption": "caption" if has_texts else "",
    }
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"source": source, "part_rows": 3, "steps": steps}))
    return path


def facts_of(out: Path) -> dict[str, dict[str, Any]]:
    """Return the JSON of each sample in the tars, by its text or its first alternative."""
    read = []
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            read += [json.load(tar.extractfile(one)) for one in tar if one.name.endswith(".json")]
    return {one["caption"] or one["alternatives"][0]: one for one in read}


@pytest.fixture
def generator(tmp_path, monkeypatch) -> dict[str, Any]:
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    return {NAME: {"log": f"{tmp_path}/log"}}


@pytest.mark.whole
def test_a_run_writes_captions_with_origins_and_a_rule_asks_nothing_again(tmp_path, generator):
    out = tmp_path / "out"
    recipe = recipe_of(tmp_path, [{"recaption": {"generator": generator}}])
    manifest = run(recipe, out, local=True, workers=2)
    assert manifest["kept"] == 4 and len(asked(tmp_path / "log")) == 4
    noted = {name: value for facts in manifest["models"]["recaption"] for name, value in facts.items()}
    assert (noted["prompts"]["prompt"], noted["model"]) == (PROMPTS["describe"], "colours")
    one = facts_of(out)["the red one"]
    assert (one["alternatives"], one["origins"]) == ([RED], ["recaption"])
    assert "recaption.answers" not in (one.get("scores") or {})
    assert ("recaption", RED) in [pair for sample in first_samples(str(out), 4) for pair in sample["written"]]
    manifest = run(recipe, out, local=True, overrides={"recaption.min_words": 50, "recaption.require": True})
    assert manifest["kept"] == 0 and len(asked(tmp_path / "log")) == 4
    run(recipe, out, local=True, overrides={"recaption.prompt": "What is this?"})
    assert len(asked(tmp_path / "log")) == 8 and asked(tmp_path / "log")[-1][0] == PROMPTS["describe"]
    assert facts_of(out)["the red one"]["alternatives"] == [RED]


@pytest.mark.whole
def test_two_captioners_give_two_origins_and_do_not_depend_on_each_other(tmp_path, generator):
    out = tmp_path / "out"
    steps = [
        {"recaption": {"generator": generator, "label": "captioner_a"}},
        {"recaption": {"generator": generator, "label": "captioner_b", "mode": "edit"}},
    ]
    recipe = recipe_of(tmp_path, steps)
    run(recipe, out, local=True, workers=2)
    one = facts_of(out)["the red one"]
    assert one["alternatives"] == [RED, f"{RED} named the red one"] and one["origins"] == ["captioner_a", "captioner_b"]
    run(recipe, out, local=True, overrides={"captioner_a.min_words": 50})
    one = facts_of(out)["the red one"]
    assert one["origins"] == ["captioner_b"] and len(asked(tmp_path / "log")) == 8


@pytest.mark.whole
def test_pictures_without_texts_get_captions_and_two_captioners_stay_independent(tmp_path, generator):
    out = tmp_path / "out"
    steps = [
        {"image_detail": {"min_spread": 0, "min_entropy": 0, "min_sharpness": 0}},
        {"recaption": {"generator": generator, "label": "captioner_a"}},
        {"recaption": {"generator": generator, "label": "captioner_b", "image_side": 32}},
    ]
    recipe = recipe_of(tmp_path, steps, has_texts=False)
    run(recipe, out, local=True, workers=2)
    found = facts_of(out)
    small = RED.replace("64 by 32", "32 by 16")
    assert found[RED]["caption"] == "" and found[RED]["alternatives"] == [RED, small]
    assert {type(score) for score in found[RED]["scores"].values()} <= {float, int}
    run(recipe, out, local=True, overrides={"captioner_a.min_words": 50})
    assert facts_of(out)[small]["origins"] == ["captioner_b"] and len(asked(tmp_path / "log")) == 8
