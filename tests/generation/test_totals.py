"""The manifest, the log, the progress and `show` say what the answers of a dataset took."""

import json
from pathlib import Path

import jsonschema
import pytest

from tests.generation.scripted import asked, recipe_of
from vlmdata import run
from vlmdata.cli import main
from vlmdata.dataset import read_manifest
from vlmdata.generation.totals import amount, generations, phrases, reasons
from vlmdata.recipe import load
from vlmdata.step import RecipeError
from vlmdata.takedown import forget

SCHEMAS = Path(__file__).parent.parent.parent / "schemas"
ENTRY = {
    "answers": 2,
    "failed": {"http_400": 1, "timeout": 2},
    "accepted": None,
    "rejected": {},
    "prompt_tokens": 1200,
    "tokens": 34,
    "seconds": 0.4,
    "money": None,
}


def check(manifest):
    jsonschema.validate(json.loads(json.dumps(manifest)), json.loads((SCHEMAS / "manifest.json").read_text()))


@pytest.mark.whole
def test_the_manifest_adds_up_what_the_answers_took(own_folder, capsys):
    recipe = recipe_of(own_folder, 12, "banned: '07'", failures={"first caption 03": "timeout"}, price=0.25)
    out = own_folder / "out"
    manifest = run(recipe, out, local=True, workers=2)
    expected = {
        "answers": 23,
        "failed": {"timeout": 1},
        "accepted": 21,
        "rejected": {"banned": 2},
        "prompt_tokens": 230,
        "tokens": 69,
        "seconds": 12.0,
        "money": 74.75,
    }
    assert manifest["generations"] == {"louder": expected} and manifest["kept"] == 11
    check(read_manifest(out))
    log = [json.loads(line) for line in next((out / "work" / "logs").iterdir()).read_text().splitlines()]
    (stage,) = [line["generations"] for line in log if "generations" in line]
    assert stage == {"louder": expected}
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("louder ")]
    assert "  23 answers, 1 failed, 299 tokens, cost 74.75; kept 11; louder: timeout 1" in line
    assert main(["show", str(out)]) == 0
    words = "23 answers, 1 failed (timeout 1), 21 used, 2 not used (banned 2), 230 + 69 tokens, 12.0 s, cost 74.75"
    assert f"  louder: {words}" in capsys.readouterr().out.splitlines()


@pytest.mark.whole
def test_a_repeated_run_reports_no_new_answers_and_the_same_sums(own_folder, capsys):
    recipe, out = recipe_of(own_folder, 6), own_folder / "out"
    before = run(recipe, out, local=True, workers=1)
    capsys.readouterr()
    after = run(recipe, out, local=True, workers=1, overrides={"shards.samples": 3})
    assert after["generations"] == before["generations"] and before["generations"]["louder"]["money"] is None
    assert len(asked(own_folder)) == 12 and "answers" not in capsys.readouterr().err


@pytest.mark.whole
def test_the_models_of_a_step_are_its_generators_facts_and_prompts(own_folder):
    recipe, out = recipe_of(own_folder, 2), own_folder / "out"
    notes = run(recipe, out, local=True, workers=1)["models"]["louder"]
    assert {"model": "scripted <b>-1"} in notes and len(notes) == 2
    (prompts,) = [note for note in notes if "prompts" in note]
    assert prompts["prompts"] == {"prompt_0": "first", "prompt_1": "second"}
    assert prompts["generator"] == "scripted_writer.Scripted" and len(prompts["prompts_sha256"]) == 64


@pytest.mark.whole
def test_the_manifest_is_valid_after_a_takedown(own_folder):
    recipe, out = recipe_of(own_folder, 6), own_folder / "out"
    made = run(recipe, out, local=True, workers=1)
    forget(out, key=[line["key"] for line in _samples(out)][:1])
    manifest = read_manifest(out)
    assert manifest["kept"] == 5 and manifest["generations"] == made["generations"]
    check(manifest)


def _samples(out):
    from vlmdata.show import first_samples

    return first_samples(str(out), 1)


@pytest.mark.whole
@pytest.mark.parametrize("value", [3, {"a": {}}, {"a": {**ENTRY, "seconds": float("nan")}}, {"a": {**ENTRY, "answers": -1}}])
def test_a_manifest_with_other_sums_is_damaged(own_folder, value):
    recipe, out = recipe_of(own_folder, 2), own_folder / "out"
    manifest = run(recipe, out, local=True, workers=1)
    (out / "manifest.json").write_text(json.dumps({**manifest, "generations": value}))
    with pytest.raises(RecipeError, match="is damaged: generations"):
        read_manifest(out)
    del manifest["generations"]  # as earlier versions wrote it
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert read_manifest(out)["generations"] == {}


def test_the_sums_of_partitions_are_added_in_the_order_of_the_steps(own_folder):
    steps = load(recipe_of(own_folder, 1, price=2.0)).steps
    parts = [{"louder": {"answers": 1, "tokens": 3, "seconds": 0.1}}, {}, {"louder": {"failed/timeout": 2, "seconds": 0.2}}]
    (found,) = generations(steps, parts).values()
    assert (found["answers"], found["failed"], found["seconds"], found["money"]) == (1, {"timeout": 2}, 0.3, 6.0)
    assert found["accepted"] is None and generations(steps, [{}, {}]) == {}


def test_the_phrases_name_what_is_there():
    assert phrases(ENTRY) == ["2 answers", "3 failed (timeout 2, http_400 1)", "1,200 + 34 tokens", "0.4 s"]
    assert phrases({**ENTRY, "failed": {}, "money": 0.0123})[1:] == ["1,200 + 34 tokens", "0.4 s", "cost 0.012"]


def test_only_the_most_frequent_reasons_are_named():
    assert reasons({f"r{number}": number for number in range(1, 9)}) == "r8 8, r7 7, r6 6, r5 5, r4 4, others 6"


@pytest.mark.parametrize(("money", "text"), [(0, "0.00"), (0.5, "0.5"), (1, "1.00"), (12345.678, "12,345.68")])
def test_an_amount_has_two_decimals_or_two_digits(money, text):
    assert amount(money) == text
