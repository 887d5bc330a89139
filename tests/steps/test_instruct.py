"""Caption pairs become conversations about their image; a text-only model gets the captions and boxes."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.generation.colours import Direct
from tests.generation.labelled_source import PHOTOS, SCENES
from tests.generation.replies import DEFAULT, NAME, asked
from tests.generators.facts import facts_in, facts_of
from tests.generators.openai_server import OpenAIServer
from tests.generators.scenes import draw_scenes
from tests.generators.truth_in_turns import ANSWER_ERRORS, KINDS_OF_THINGS, TURN_ERRORS, UNSEEN, TruthInTurns
from tests.real_data import real_data
from tests.rows import document, table
from vlmdata import run
from vlmdata.errors import RecipeError
from vlmdata.export_dataset import export
from vlmdata.generation.instruct_prompts import EXAMPLES, KINDS, PROMPTS, QUESTIONS, SYSTEMS
from vlmdata.recipe import parse
from vlmdata.row import alive
from vlmdata.sources.llava_json import LlavaJson
from vlmdata.steps.instruct import Instruct

IMAGE = {
    "blob": "b",
    "offset": 0,
    "size": 1,
    "width": 100,
    "height": 50,
    "boxes": [[10.0, 10.0, 50.0, 50.0], [0.0, 5.0, 100.0, 50.0]],
    "box_labels": ["dog", "couch"],
}


def step(tmp_path: Path, *, instead: dict[str, str] | None = None, finish: str = "stop", **parameters: Any) -> Instruct:
    generator = {NAME: {"log": f"{tmp_path}/log", "instead": instead or {}, "finish": finish}}
    steps = [{"instruct": {"generator": generator, **parameters}}]
    (one,) = parse({"source": {"type": "url_list", "path": "urls.parquet"}, "steps": steps}).steps
    return one


def pairs(*texts: str | None, **fields: Any) -> pa.Table:
    rows = [document(IMAGE) if text is None else document(IMAGE, text) for text in texts]
    return table([{**row, "roles": None, "extra": None, **fields} for row in rows])


def one_kind(kind: str) -> dict[str, Any]:
    return {"kinds": {kind: 1}}


def kept(row: dict[str, Any]) -> list[str | None]:
    return [text["text"] for text in row["texts"] if text and text["drop"] is None]


def verdicts(row: dict[str, Any]) -> list[str | None]:
    return [text["reason"] for text in row["texts"] if text]


def test_a_pair_becomes_a_conversation_and_no_position_moves(tmp_path):
    rows = pairs("A dog on a sofa.", extra='{"id": 7}')
    one = step(tmp_path, **one_kind("conversation"))
    done = one.run(rows, Direct())
    (row,) = done.to_pylist()
    before = rows.to_pylist()[0]
    assert row["images"] == [*before["images"], *[None] * 4] and row["texts"][1]["text"] == "A dog on a sofa."
    assert kept(row) == ["What sleeps?", "A dog.", "Where does a dog sleep?", "On a sofa."]
    assert row["roles"] == ["user", "user", *["user", "assistant"] * 2] and row["turns"] is None
    own = {"captions": ["A dog on a sofa."], "kinds": ["conversation"] * 2}
    assert json.loads(row["extra"]) == {"id": 7, "instruct": own}
    assert verdicts(row)[0] == "caption_in_json" and one.outcomes(done) == {"accepted": 2}


def test_a_conversation_gets_only_captions_and_the_other_kinds_boxes_too(tmp_path):
    rows = pairs("A dog on a sofa.")
    texts = rows.to_pylist()[0]["texts"]
    texts[1]["alternatives"] = ["a dog on a sofa", "A dog on a sofa.", "", "two\nlines {boxes}"]
    rows = rows.set_column(rows.column_names.index("texts"), "texts", pa.array([texts], rows["texts"].type))
    step(tmp_path, joined=True).run(rows, Direct())
    captions = "A dog on a sofa.\na dog on a sofa\ntwo lines {boxes}"
    boxes = "dog: [0.100, 0.200, 0.500, 1.000]\ncouch: [0.000, 0.100, 1.000, 1.000]"
    talk, detail, reason = asked(tmp_path)
    assert [one[0] for one in (talk, detail, reason)] == list(KINDS) and talk[3] == detail[3] == 0
    assert talk[1].endswith(f"Sentences:\n{captions}\n\nText:\n") and "[0." not in talk[1]
    for one in (detail, reason):
        assert one[1].endswith(f"Sentences:\n{captions}\n\nObjects:\n{boxes}\n\nText:\n")
    for kind, text, system, _ in (talk, detail, reason):
        assert system == SYSTEMS[kind] and all(given in text and said in text for given, said in EXAMPLES[kind])


def test_joined_kinds_are_one_conversation_in_order(tmp_path):
    done = step(tmp_path, joined=True).run(pairs("A dog on a sofa."), Direct())
    (row,) = done.to_pylist()
    question = kept(row)[4]
    assert question in QUESTIONS
    assert kept(row)[4:] == [question, DEFAULT["detail"], "Why is it quiet?", "The dog sleeps."]
    assert json.loads(row["extra"])["instruct"]["kinds"] == ["conversation", "conversation", "detail", "reasoning"]


def test_one_kind_is_drawn_for_each_row_by_the_weights_and_the_content(tmp_path):
    one = step(tmp_path)
    keys = [f"{number:024x}" for number in range(2000)]
    drawn = [one.kinds_of(key) for key in keys]
    shares = [sum(kind == (name,) for kind in drawn) / 2000 for name in KINDS]
    assert all(abs(share - weight / 158) < 0.03 for share, weight in zip(shares, (58, 23, 77), strict=True))
    assert drawn == [one.kinds_of(f"{key}_3") for key in keys]
    assert {step(tmp_path, kinds={"detail": 1, "reasoning": 0}).kinds_of(key) for key in keys} == {("detail",)}
    assert len({one.kinds_of(key) for key in keys}) == 3


def test_rejected_turns_stay_behind_the_others_with_their_reason(tmp_path):
    text = f"Question:\nWho sits there?\n===\nAnswer:\nA cat.\n===\n{DEFAULT['conversation']}"
    one = step(tmp_path, instead={"dog": text}, **one_kind("conversation"))
    done = one.run(pairs("A dog on a sofa."), Direct())
    (row,) = done.to_pylist()
    assert verdicts(row) == ["caption_in_json", *[None] * 4, "absent_object", "absent_object"]
    last = row["texts"][-1]
    assert (last["text"], last["drop"], last["value"], last["threshold"]) == ("A cat.", "instruct", 1.0, 0.0)
    again = replace(one, check_objects=False)
    assert again.outcomes(done) == {"accepted": 3} and one.outcomes(done) == {"accepted": 2, "absent_object": 1}


def test_a_changed_rule_decides_on_the_stored_answers_without_moving_positions(tmp_path):
    text = f"Question:\nWho sits there?\n===\nAnswer:\nA cat.\n===\n{DEFAULT['conversation']}"
    one = step(tmp_path, instead={"dog": text}, **one_kind("conversation"))
    rows = pairs("A dog on a sofa.")
    measured = rows.append_column("instruct.answers", one.measure(rows, Direct())["answers"])
    strict, loose = one.decide(measured), replace(one, check_objects=False).decide(measured)
    assert len(kept(strict.to_pylist()[0])) == 4 and len(kept(loose.to_pylist()[0])) == 6
    assert strict["images"].equals(loose["images"]) and len(asked(tmp_path)) == 1
    assert one.identity() == replace(one, check_objects=False, refusals=["x"], objects={"a": []}).identity()


def test_rows_without_an_accepted_turn_are_dropped_or_stay_pairs(tmp_path):
    instead = {"cat": "Hello", "bird": "I'm sorry."}
    one = step(tmp_path, instead=instead, **one_kind("conversation"))
    rows = pairs("A dog on a sofa.", "A cat.", "A bird.", None, " \u200b")
    done = one.run(rows, Direct())
    assert done["reason"].to_pylist() == [None, "bad_form", "refusal", "no_text", "no_text"]
    assert done["drop"].to_pylist()[1:] == ["instruct"] * 4
    done = replace(one, require=False).run(rows, Direct())
    assert alive(done).all() and done["roles"].to_pylist()[1:] == [None] * 4
    assert done.slice(1)["texts"].equals(rows.slice(1)["texts"]) and done.slice(1)["images"].equals(rows.slice(1)["images"])
    assert one.outcomes(done) == {"accepted": 2, "bad_form": 1, "refusal": 1, "no_text": 2}


def test_documents_and_conversations_stay_and_are_counted(tmp_path):
    chat = {**document(IMAGE, "question", "answer"), "roles": ["user", "user", "assistant"]}
    rows = table([chat, {**document(IMAGE, "a", IMAGE), "roles": None}, {**document("words"), "roles": None}])
    one = step(tmp_path)
    done = one.run(rows, Direct())
    assert alive(done).all() and done["texts"].equals(rows["texts"]) and done["roles"].equals(rows["roles"])
    assert one.outcomes(done) == {"not_a_pair": 3} and asked(tmp_path) == []
    with pytest.raises(RecipeError, match=r"^instruct asks about rows with one image and one text, and none of"):
        one.check_rows(rows)


def test_measured_lists_of_earlier_steps_stay_aligned(tmp_path):
    rows = pairs("A dog on a sofa.").append_column("sharpness", pa.array([[0.5, None]]))
    (row,) = step(tmp_path, **one_kind("detail")).run(rows, Direct()).to_pylist()
    assert row["sharpness"] == [0.5, None, None, None] and len(row["texts"]) == len(row["roles"]) == 4


def test_a_source_column_with_the_name_of_the_step_is_renamed_and_origins_are_kept(tmp_path):
    rows = pairs("A dog.", extra='{"talk": 1}')
    text = {"text": "A dog.", "alternatives": ["A dog on a sofa."], "origins": ["recaption"]}
    rows = rows.set_column(rows.column_names.index("texts"), "texts", pa.array([[None, text]], rows["texts"].type))
    (row,) = step(tmp_path, label="talk", **one_kind("detail")).run(rows, Direct()).to_pylist()
    own = {"captions": ["A dog.", "A dog on a sofa."], "origins": [None, "recaption"], "kinds": ["detail"]}
    assert json.loads(row["extra"]) == {"column_talk": 1, "talk": own}


def test_another_prompt_system_or_example_is_another_measurement_if_its_kind_is_asked(tmp_path):
    one = step(tmp_path, kinds={"detail": 1})
    for name, value in (("prompts", "See {captions} {examples}"), ("systems", "Be brief."), ("examples", [("a", "b")])):
        assert step(tmp_path, kinds={"detail": 1}, **{name: {"detail": value}}).identity() != one.identity()
        assert replace(one, **{name: {"reasoning": value}}).identity() == one.identity()
    assert one.columns_read() == Instruct.reads and one.fields_fetched() == ("width", "height")
    assert step(tmp_path, kinds={"conversation": 1}).columns_read() == ("texts",)


def test_own_prompts_examples_and_questions_are_used(tmp_path):
    one = step(
        tmp_path,
        kinds={"detail": 1},
        prompts={"detail": "{examples}>> {captions} | {boxes}"},
        systems={"detail": "Be brief."},
        examples={"detail": [("a {captions}", "b")]},
        detail_questions=["What?"],
        max_boxes=1,
        max_captions=1,
        max_text_words=2,
    )
    one.check()
    (row,) = one.run(pairs("A dog on a sofa."), Direct()).to_pylist()
    ((_, text, system, _),) = asked(tmp_path)
    assert text == "Sentences:\na {captions}\n\nText:\nb\n\n>> A dog | dog: [0.100, 0.200, 0.500, 1.000]"
    assert system == "Be brief." and kept(row)[0] == "What?"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kinds": {"chat": 1}}, "instruct.kinds: there is no kind 'chat'. The kinds are conversation, detail, reasoning"),
        ({"kinds": {}}, "instruct.kinds needs weights of 0 or more, and one above 0"),
        ({"kinds": {"detail": -1}}, "instruct.kinds needs weights of 0 or more"),
        ({"kinds": {"detail": float("nan")}}, "instruct.kinds needs weights of 0 or more"),
        ({"kinds": {"detail": 1e308, "reasoning": 1e308}}, "instruct.kinds needs weights of 0 or more"),
        ({"prompts": {"talk": "a"}}, "instruct.prompts: there is no kind 'talk'"),
        ({"prompts": {"detail": "{caption} {examples}"}}, r"instruct.prompts.detail: nothing is known for the place {caption}"),
        ({"prompts": {"detail": "{examples}"}}, "instruct.prompts.detail needs the place {captions}"),
        (
            {"prompts": {"detail": "{captions}"}},
            r"instruct.prompts.detail needs the place {examples}, or set examples: {detail: ",
        ),
        ({"systems": {"detail": "\ud800"}}, "instruct.system.detail has a lone surrogate"),
        ({"detail_questions": []}, "instruct.detail_questions needs a question"),
        ({"detail_questions": ["What?", " "]}, "instruct.detail_questions has an empty text"),
        ({"max_captions": 0}, "instruct.max_captions must be 1 to 2,147,483,647, not 0"),
        ({"max_boxes": -1}, "instruct.max_boxes must be 0 to 2,147,483,647, not -1"),
        ({"max_repeats": 2}, r"instruct.max_repeats must lie in \[0, 1\], not 2"),
        ({"refusals": [" "]}, "instruct.refusals has a text without a word"),
        ({"source_words": [""]}, "instruct.source_words has a text without a word"),
        ({"max_tokens": 0}, "instruct.max_tokens must be 1 to"),
    ],
)
def test_a_wrong_parameter_is_one_line_with_its_place(tmp_path, parameters, message):
    with pytest.raises(RecipeError, match=f"^{message}") as caught:
        step(tmp_path, **parameters).check()
    assert "\n" not in str(caught.value)


def test_the_shipped_prompts_have_their_places(tmp_path):
    step(tmp_path, joined=True).check()
    assert ["{boxes}" in PROMPTS[kind] for kind in KINDS] == [False, True, True]
    assert len(set(QUESTIONS)) == len(QUESTIONS)


def scenes_recipe(tmp_path: Path, count: int, generator: dict[str, Any], **parameters: Any) -> Path:
    (tmp_path / "count").write_text(str(count))
    steps = [{"instruct": {"generator": generator, "max_tokens": 30_000, **parameters}}]
    path = tmp_path / "recipe.json"
    source = {"type": SCENES, "path": f"{tmp_path}/count"}
    path.write_text(json.dumps({"source": source, "shards": {"layout": "documents"}, "steps": steps}))
    return path


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))


def records(out: Path, to: Path) -> list[dict[str, Any]]:
    export(out, to, to="llava")
    return json.loads((to / "llava.json").read_text())


RATES = {**dict.fromkeys((*TURN_ERRORS, *ANSWER_ERRORS), 0.04), "wrong_count": 0.1, "absent_object": 0.1}
CHECKED = {"joined": True, "max_repeats": 1.0, "objects": {kind: [] for kind in KINDS_OF_THINGS}}


@pytest.mark.whole
def test_what_is_rejected_is_what_was_planted_and_the_facts_that_are_kept_are_true(tmp_path, modules):
    scenes = draw_scenes(120)
    truth = TruthInTurns(scenes, RATES)
    with OpenAIServer(truth.answer) as server:
        generator = {"openai": {"model": "tester", "url": server.url}}
        manifest = run(scenes_recipe(tmp_path, 120, generator, **CHECKED), tmp_path / "out", local=True)
        assert server.requests == 360
    planted = {reason: count for reason, count in truth.planted().items() if reason != UNSEEN}
    assert set(planted) == {*TURN_ERRORS, *ANSWER_ERRORS} - {UNSEEN}
    assert manifest["generations"]["instruct"]["rejected"] == planted
    by_key = {scene.key: scene for scene in scenes}
    said = [(one["key"], fact) for one in said_in(records(tmp_path / "out", tmp_path / "to")) for fact in one["facts"]]
    facts = [(key, fact, fact.is_true_of(by_key[key])) for key, fact in said]
    unseen = {
        (said.scene.key, fact)
        for said in truth.said()
        for turn in said.turns
        for fact in facts_in(turn.answer)
        if turn.planted == UNSEEN and not fact.is_true_of(said.scene)
    }
    assert {(key, fact) for key, fact, is_true in facts if not is_true} == unseen  # no rule sees a wrong place
    assert precision(truth.facts()) < 0.97 < 0.98 < precision(facts)
    assert recall(truth.facts(), scenes) == 1.0 and recall(facts, scenes) > 0.8


def said_in(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the key of the scene of each record of llava.json, and the facts of its answers."""
    return [
        {
            "key": one["instruct"]["captions"][1].removeprefix("A drawing called ").rstrip("."),
            "facts": [fact for turn in one["conversations"] if turn["from"] == "gpt" for fact in facts_in(turn["value"])],
        }
        for one in found
    ]


def precision(facts: list[tuple[Any, ...]]) -> float:
    return sum(one[-1] for one in facts) / len(facts)


def recall(facts: list[tuple[Any, ...]], scenes: list[Any]) -> float:
    said = {(key, fact) for key, fact, _ in facts}
    wanted = {(scene.key, fact) for scene in scenes for fact in facts_of(scene)}
    return len(said & wanted) / len(wanted)


@pytest.mark.whole
def test_a_changed_rule_asks_nothing_again_and_a_changed_prompt_asks_all(tmp_path, modules):
    truth = TruthInTurns(draw_scenes(8), {"wrong_count": 1.0})
    with OpenAIServer(truth.answer) as server:
        generator = {"openai": {"model": "tester", "url": server.url}}
        recipe = scenes_recipe(tmp_path, 8, generator, max_repeats=1.0)
        assert run(recipe, tmp_path / "out", local=True)["kept"] == 0 and server.requests == 8
        manifest = run(recipe, tmp_path / "out", local=True, overrides={"instruct.check_objects": False})
        assert manifest["kept"] == 8 and server.requests == 8
        prompts = {kind: text + "Begin:\n" for kind, text in PROMPTS.items()}
        run(recipe, tmp_path / "out", local=True, overrides={"instruct.prompts": prompts})
        assert server.requests == 16


@pytest.mark.whole
def test_photos_with_boxes_become_llava_conversations_that_are_read_back(tmp_path, modules):
    path = real_data("A_captioned/coco_free_licence") / "manifest.jsonl"
    steps = [{"instruct": {"generator": {NAME: {"log": f"{tmp_path}/log"}}, "joined": True, "check_objects": False}}]
    recipe = tmp_path / "recipe.json"
    source = {"type": PHOTOS, "path": str(path)}
    recipe.write_text(json.dumps({"source": source, "shards": {"layout": "documents"}, "steps": steps}))
    manifest = run(recipe, tmp_path / "out", local=True)
    assert (manifest["kept"], len(asked(tmp_path))) == (111, 333)
    assert sum(text.endswith("]\n\nText:\n") for kind, text, *_ in asked(tmp_path) if kind == "detail") == 51
    found = records(tmp_path / "out", tmp_path / "to")
    assert len(found) == 111 and all(len(one["instruct"]["captions"]) == 5 and one["licence"] for one in found)
    assert found[0]["conversations"][0] == {"from": "human", "value": "<image>\nWhat sleeps?"}
    again = LlavaJson(path=f"{tmp_path}/to/llava.json")
    read = [row for piece in again.pieces() for rows in again.read(piece) for row in rows.to_pylist()]
    assert len(read) == 111 and all(row["roles"] == ["user", *["user", "assistant"] * 4] for row in read)


def test_check_refuses_the_layout_of_captions(tmp_path):
    recipe = scenes_recipe(tmp_path, 3, {NAME: {"log": f"{tmp_path}/log"}})
    tree = json.loads(recipe.read_text()) | {"shards": {"layout": "captions"}}
    recipe.write_text(json.dumps(tree))
    with pytest.raises(RecipeError, match=r"the step instruct gives conversations, .*Set shards\.layout to documents"):
        run(recipe, tmp_path / "out", local=True)
