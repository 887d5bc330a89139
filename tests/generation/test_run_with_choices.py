"""Runs, `check --deep`, `retry` and `why` with a step that asks for the probabilities of words."""

import pyarrow.parquet as pq
import pytest

from tests.generation.scripted import asked, recipe_of
from vlmdata import retry, run, why
from vlmdata.cli import main
from vlmdata.errors import WorkFailed

LOCAL = {"local": True, "workers": 1}
CHOICES = "choices: ['yes', 'no', 'maybe']"
SHARES = [0.75, 0.125, 0.125]


def stored(out) -> list[list[float] | None]:
    """Return the probabilities of all stored answers, sorted."""
    tables = [pq.read_table(path) for path in (out / "work" / "data").glob("*.parquet")]
    measured = [table for table in tables if "key" not in table.column_names]
    rows = [row for table in measured for name in set(table.column_names) - {"row"} for row in table[name].to_pylist()]
    return sorted([one["probabilities"] for row in rows if row for one in row["answers"]], key=str)


@pytest.mark.whole
def test_probabilities_are_stored_and_asked_for_again_if_the_choices_change(own_folder):
    recipe, out = recipe_of(own_folder, 6, CHOICES), own_folder / "out"
    manifest = run(recipe, out, **LOCAL)
    assert stored(out) == [SHARES] * 12 and len(asked(own_folder)) == 12
    entry = manifest["generations"]["louder"]
    assert (entry["answers"], entry["failed"], entry["prompt_tokens"], entry["tokens"]) == (12, {}, 120, 36)
    run(recipe, out, **LOCAL)
    assert len(asked(own_folder)) == 12
    run(recipe, out, **LOCAL, overrides={"louder.choices": ["yes", "no"]})
    assert len(asked(own_folder)) == 24 and [0.75, 0.25] in stored(out)
    section = (out / "report.html").read_text().partition('<section id="written">')[2].partition("</section>")[0]
    assert "tokens of prompts" in section and "caption 01" in section


@pytest.mark.whole
def test_retry_keeps_the_probabilities_of_answers_that_came(own_folder):
    healed = own_folder / "healed"
    failures = {"first caption 01": "timeout", "second caption 02": "no_probabilities"}
    recipe, out = recipe_of(own_folder, 4, CHOICES, failures=failures, healed=str(healed)), own_folder / "out"
    run(recipe, out, **LOCAL)
    assert stored(out) == sorted([SHARES] * 6 + [None] * 2, key=str)
    (dropped,) = why(out, "louder: timeout")
    assert dropped["louder.failed"] == "timeout"
    healed.touch()
    (own_folder / "log").unlink()
    manifest = retry(out, **LOCAL)
    assert asked(own_folder) == ["first caption 01"]  # the endpoint gives no probabilities later either
    assert manifest["generations"]["louder"]["failed"] == {"no_probabilities": 1}
    assert stored(out).count(SHARES) >= 7


def test_deep_asks_for_probabilities(own_folder, capsys):
    assert main(["check", str(recipe_of(own_folder, 10, CHOICES, price=0.5)), "--deep"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  louder: 4 of 4 answers, 4 requests made; 10 + 3 tokens and 0.5 s for each" in lines


def test_deep_says_that_an_endpoint_gives_no_probabilities(own_folder, capsys):
    recipe = recipe_of(own_folder, 4, CHOICES, failures={"": "no_probabilities"})
    assert main(["check", str(recipe), "--deep"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "imports" not in line]
    assert "step louder: none of 4 answers came (no_probabilities 4)" in line and "logprobs" in line


@pytest.mark.whole
@pytest.mark.parametrize(
    ("shares", "said"),
    [("None", "the probabilities None for"), ("(0.5, 0.5)", r"the probabilities \(0.5, 0.5\) for"), ("(0.5, 0.2, 1.5)", "1.5")],
)
def test_a_generator_without_a_probability_for_each_choice_stops_in_one_line(own_folder, shares, said):
    recipe = recipe_of(own_folder, 4, CHOICES)
    module = own_folder / "scripted_writer.py"
    text = module.read_text()
    assert text.count("10, 3, 0.5, shares)") == 1
    module.write_text(text.replace("10, 3, 0.5, shares)", f"10, 3, 0.5, {shares})"))
    with pytest.raises(WorkFailed, match=rf"^the generator \(scripted_writer.Scripted\) .*{said}.* with 3 choices\.") as found:
        run(recipe, own_folder / "out", **LOCAL)
    assert len(str(found.value).splitlines()) == 1 and "no_probabilities" in str(found.value)
