"""The prompt settings of a training recipe reach the run, its checkpoint, and a run that starts from it."""

import json
import shutil

import pytest

from tests.train.runs import tiny_recipe, write_data
from vlmdata.step import RecipeError
from vlmdata_train.convert.restore import restore
from vlmdata_train.data import open_feed
from vlmdata_train.loop.loop import run_training

TEMPLATE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}<|end|>\n{% endfor %}"


@pytest.mark.whole
@pytest.mark.parametrize("how", ["inline", "a file"])
def test_a_chat_template_of_the_recipe_is_used_saved_and_kept(tmp_path, how):
    data = write_data(tmp_path / "data", captions=0, conversations=20)
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    given = TEMPLATE if how == "inline" else str(tmp_path / "chat.jinja")
    recipe = tiny_recipe(data, tmp_path / "run", chat_template=given, loss="last", steps=1)
    checkpoint = run_training(recipe).checkpoint
    assert json.loads((checkpoint / "recipe.json").read_text())["chat_template"] == TEMPLATE
    model, saved = restore(checkpoint, "cpu")
    assert model.tokenizer.chat_template == TEMPLATE and saved.loss == "last"
    asked = open_feed.prompter_of(model).question([{"role": "user", "content": "What?"}], [])
    assert model.tokenizer.decode(asked.input_ids) == "[user] What?<|end|>\n"
    again = tiny_recipe(data, tmp_path / "again", model=None, start=str(checkpoint), steps=1)
    assert restore(run_training(again).checkpoint, "cpu")[0].tokenizer.chat_template == TEMPLATE


@pytest.mark.parametrize("how", ["inline", "a file"])
def test_a_chat_template_that_is_not_jinja_is_reported_with_its_line(tmp_path, how):
    broken = TEMPLATE.replace("{% endfor %}", "")
    (tmp_path / "chat.jinja").write_text(broken)
    given = broken if how == "inline" else str(tmp_path / "chat.jinja")
    with pytest.raises(RecipeError, match=r"recipe, chat_template.*, line 1: Unexpected end of template"):
        tiny_recipe("data", tmp_path / "run", chat_template=given)
    marked = TEMPLATE.replace("{{ m['content'] }}", "{% generation %}{{ m['content'] }}{% endgeneration %}{% continue %}")
    assert tiny_recipe("data", tmp_path / "run", chat_template=marked).chat_template == marked


@pytest.mark.whole
def test_a_chat_template_that_ends_no_answer_is_reported(tmp_path, capsys):
    data = write_data(tmp_path / "data", captions=0, conversations=4)
    for name, template in (("ends", TEMPLATE), ("endless", TEMPLATE.replace("<|end|>\n", ""))):
        run_training(tiny_recipe(data, tmp_path / name, chat_template=template, steps=1))
        output = capsys.readouterr().err
        assert ("writes nothing after an answer, so the model does not learn where to stop" in output) == (name == "endless")


@pytest.mark.whole
def test_a_tokenizer_is_trained_again_if_no_step_was_saved(tmp_path):
    data = write_data(tmp_path / "data", captions=0, conversations=8)
    first = run_training(tiny_recipe(data, tmp_path / "run", tokenizer={"vocabulary": 280}, steps=1)).checkpoint
    learned = (tmp_path / "run/tokenizer/tokenizer.json").read_text()
    shutil.rmtree(tmp_path / "run/checkpoints")
    (tmp_path / "run/tokenizer/tokenizer.json").write_text(learned.replace("<|begin|>", "<|other|>"))
    assert run_training(tiny_recipe(data, tmp_path / "run", tokenizer={"vocabulary": 280}, steps=1)).checkpoint == first
    assert (tmp_path / "run/tokenizer/tokenizer.json").read_text() == learned


def test_a_missing_template_file_and_an_untrustable_token_are_reported_in_one_line(tmp_path):
    data = write_data(tmp_path / "data", captions=0, conversations=4)
    with pytest.raises(RecipeError, match=r"recipe, chat_template: nowhere.jinja must be Jinja or a Jinja file"):
        tiny_recipe(data, tmp_path / "run", chat_template="nowhere.jinja")
    with pytest.raises(RecipeError, match=r"trusted_tokens: the tokenizer bytes has no token '<\|box\|>'"):
        run_training(tiny_recipe(data, tmp_path / "run", trusted_tokens=["<|box|>"]))


@pytest.mark.whole
def test_a_run_of_a_version_without_these_settings_resumes(tmp_path):
    data = write_data(tmp_path / "data", captions=0, conversations=20)
    checkpoint = run_training(tiny_recipe(data, tmp_path / "run", steps=3)).checkpoint
    saved = json.loads((checkpoint / "recipe.json").read_text())
    older = {name: value for name, value in saved.items() if name not in ("chat_template", "trusted_tokens", "loss")}
    (checkpoint / "recipe.json").write_text(json.dumps(older))
    assert run_training(tiny_recipe(data, tmp_path / "run", steps=6)).steps == 6
    with pytest.raises(RecipeError, match="holds a run with a different `loss`"):
        run_training(tiny_recipe(data, tmp_path / "run", steps=6, loss="last"))
