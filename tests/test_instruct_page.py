"""The facts of docs/instruct.md are those of the code, and its table of a real picture is what the rules decide."""

import dataclasses
import re
from pathlib import Path

import yaml

from vlmdata.generation.captions import MOST_CHARS, REFUSALS
from vlmdata.generation.instruct_prompts import KINDS, WEIGHTS
from vlmdata.generation.object_claims import KnownObjects
from vlmdata.generation.turns import COPIED, SOURCE_WORDS, UNSURE, TurnRules, judged
from vlmdata.recipe import parse
from vlmdata.steps.instruct import Instruct
from vlmdata.text.object_names import ObjectNames

PAGE = (Path(__file__).parent.parent / "docs" / "instruct.md").read_text()
RULES = TurnRules(REFUSALS, SOURCE_WORDS, UNSURE, 0.3, frozenset())


def test_the_recipe_of_the_page_is_one():
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    recipe = parse(yaml.safe_load(block))
    assert isinstance(recipe.steps[-1], Instruct) and recipe.shards.layout == "documents"
    recipe.steps[-1].check()


def test_weights_and_limits_are_those_of_the_code():
    rows = re.findall(r"^\| `(\w+)` \|.* \| (\d\d) \|$", PAGE, re.M)
    assert {kind: float(weight) for kind, weight in rows if kind in KINDS} == WEIGHTS
    assert f"more than {MOST_CHARS:,} characters" in PAGE and f"shares {COPIED} words in a row" in PAGE
    defaults = {field.name: field.default for field in dataclasses.fields(Instruct)}
    assert f"`max_captions` ({defaults['max_captions']})" in PAGE


def test_the_turns_of_the_real_picture_have_the_outcomes_of_the_page():
    given = re.search(r"```\nSentences:\n(.*?)\n\nObjects:\n(.*?)\n```", PAGE, re.S)
    known = KnownObjects(given[1].splitlines(), [line.partition(":")[0] for line in given[2].splitlines()], ObjectNames())
    table = re.findall(r"^\| (conversation|detail|reasoning) \| (.*?) \| (.*?) \| `?(\w+)`? \|$", PAGE, re.M)
    asked: set[str] = set()
    found = []
    for kind in KINDS:
        turns = [(question, said) for one, question, said, _ in table if one == kind]
        form = "\n".join(f"Question:\n{question}\n===\nAnswer:\n{said}\n===" for question, said in turns)
        text, question = (turns[0][1], turns[0][0]) if kind == "detail" else (form, "")
        answer = {"text": text, "finish": "stop", "failure": None}
        found += [
            one.rejection.reason if one.rejection else "accepted" for one in judged(kind, answer, question, known, RULES, asked)
        ]
    assert found == [outcome for *_, outcome in table] and len(found) == 8
