"""`check --deep` asks a few questions for real, and says what all of them would take."""

import pytest

from tests.generation.scripted import asked, recipe_of
from tests.generators.chat import Reply
from tests.generators.openai_server import OpenAIServer
from vlmdata.cli import main
from vlmdata.preflight.try_answers import FewAnswers


def test_deep_asks_for_four_answers_and_estimates_the_rest(own_folder, capsys):
    recipe = recipe_of(own_folder, 10, price=0.5)
    assert main(["check", str(recipe), "--deep"]) == 0
    assert len(asked(own_folder)) == 4
    lines = capsys.readouterr().out.splitlines()
    assert "  louder: 4 of 4 answers, 4 requests made; 10 + 3 tokens and 0.5 s for each" in lines
    words = "about 20 answers, 200 + 60 tokens, 5.0 seconds with 2 requests at the same time, cost 130.00"
    assert f"  estimate for 10 rows that reach louder: {words}" in lines


def test_check_without_deep_asks_nothing(own_folder, capsys):
    assert main(["check", str(recipe_of(own_folder, 3))]) == 0
    assert asked(own_folder) == []


def test_the_estimate_counts_only_rows_that_earlier_steps_keep(own_folder, capsys):
    recipe = recipe_of(own_folder, 10)
    text = recipe.read_text().replace("steps: [", "steps: [text_length: {min_words: 1, max_chars: 9}, ")
    for number in range(5):
        (own_folder / "pictures" / f"{number:02d}.txt").write_text("caption is too long")
    recipe.write_text(text.replace("max_chars: 9", "max_chars: 10"))
    assert main(["check", str(recipe), "--deep"]) == 0
    assert "  estimate for 5 rows that reach louder: about 10 answers, " in capsys.readouterr().out


def test_without_a_number_of_rows_the_estimate_is_for_a_thousand(own_folder, capsys, monkeypatch):
    recipe = recipe_of(own_folder, 12)
    monkeypatch.setattr("vlmdata.preflight.try_rows.SEARCHED", 6)
    assert main(["check", str(recipe), "--deep"]) == 0
    assert (
        "  estimate for 1,000 rows that reach louder: about 2,000 answers, 20,000 + 6,000 tokens, 8.3 minutes"
        in capsys.readouterr().out
    )


def test_failed_and_unused_answers_are_named(own_folder, capsys):
    recipe = recipe_of(own_folder, 1, "banned: 'FIRST'", failures={"second": "http_400"})
    assert main(["check", str(recipe), "--deep"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  louder: ")]
    assert line == (
        "  louder: 1 of 2 answers, 2 requests made; 10 + 3 tokens and 0.5 s for each; failed: http_400 1; not used: banned 1"
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"failures": {"": "http_400"}}, "step louder: none of 4 answers came (http_400 4)"),
        ({"refuses": "scripted: the endpoint answered 401"}, "step louder: scripted: the endpoint answered 401"),
        ({"log": "/dev/null/log"}, "Not a directory"),
    ],
    ids=["all-fail", "stopped", "error"],
)
def test_an_endpoint_that_cannot_be_asked_is_one_line(own_folder, capsys, parameters, message):
    assert main(["check", str(recipe_of(own_folder, 4, **parameters)), "--deep"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "imports" not in line]
    assert message in line


def test_an_endpoint_that_hangs_does_not_hang_the_check(own_folder, capsys, monkeypatch):
    monkeypatch.setattr(FewAnswers, "limit_s", 0.5)
    assert main(["check", str(recipe_of(own_folder, 4, hangs=True)), "--deep"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  louder: ")]
    assert line == "  louder: 1 of 4 answers, at most 4 requests made; 10 + 3 tokens and 0.5 s for each; failed: no_answer 3"


def test_a_generator_that_loads_a_model_is_not_tried(own_folder, capsys, monkeypatch):
    recipe = recipe_of(own_folder, 2)
    module = own_folder / "scripted_writer.py"
    module.write_text(module.read_text().replace('needs: ClassVar = ("endpoint",)', 'needs: ClassVar = ("model",)'))
    assert main(["check", str(recipe), "--deep"]) == 0
    assert "  louder: not tried, because it loads a model" in capsys.readouterr().out and asked(own_folder) == []


def test_no_row_that_reaches_the_step_is_said(own_folder, capsys):
    recipe = recipe_of(own_folder, 2)
    recipe.write_text(recipe.read_text().replace("steps: [", "steps: [text_length: {max_chars: 2}, "))
    assert main(["check", str(recipe), "--deep"]) == 0
    assert "  louder: not tried, because no row of the sample reaches it" in capsys.readouterr().out


def test_a_step_behind_one_that_writes_texts_is_said_to_be_tried_without_them(own_folder, capsys):
    recipe_of(own_folder, 3)
    recipe = own_folder / "judged.yaml"
    source = f"source: {{type: files, path: {own_folder}/pictures}}\n"
    with OpenAIServer(lambda request: Reply("yes", first_token={"yes": -0.1})) as server:
        generator = f"generator: {{openai: {{model: tester, url: '{server.url}'}}}}"
        steps = f"steps: [resize, recaption: {{{generator}}}, vqa_score: {{{generator}}}]\n"
        recipe.write_text(source + steps)
        assert main(["check", str(recipe), "--deep"]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "was tried on rows without" in line]
    assert told == ["  vqa_score was tried on rows without what recaption would write, so a run may take more or less"]
