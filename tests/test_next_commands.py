"""The commands that the demo and a training run name as the next ones exist, and their paths are those of the run."""

import importlib
import shlex

import click
import pytest

from tests.train.runs import tiny_recipe
from vlmdata.demo.demo import next_commands as after_demo
from vlmdata_train.train_verb import next_commands, report


def parsed(command: str) -> dict:
    """Return the arguments and options of a command line, parsed by its verb. The verb is not run."""
    program, *words = shlex.split(command, comments=True)
    assert program == "vlmdata"
    package = "vlmdata"
    if words[0] == "train":
        package, words = "vlmdata_train", words[1:]
    verb: click.Command = importlib.import_module(f"{package}.commands.{words[0]}").command
    return {"verb": words[0], **verb.make_context(words[0], words[1:]).params}


def test_the_demo_names_commands_for_its_dataset_and_model(tmp_path):
    out = tmp_path / "demo out"
    (out / "model/checkpoints/step_00000060").mkdir(parents=True)
    lines = after_demo(out, "http://127.0.0.1:1/moved.jpg")
    show, why, chat, align, check, new = [parsed(line.partition(": ")[2]) for line in lines]
    assert (show["verb"], show["out"], show["in_browser"]) == ("show", f"{out}/data", True)
    assert (why["verb"], why["out"], why["word"]) == ("why", f"{out}/data", "http://127.0.0.1:1/moved.jpg")
    assert (chat["verb"], chat["checkpoint"]) == ("chat", f"{out}/model/checkpoints/step_00000060")
    assert chat["image"][0].startswith(f"{out}/site/figures/")
    assert (align["verb"], align["recipe"], f"data={out}/data" in align["settings"]) == ("align", "tiny", True)
    assert (check["verb"], new["verb"]) == ("check", "new")


@pytest.mark.parametrize(("name", "written"), [("tiny", "tiny"), ("align", "instruct"), ("my recipe.yaml", "my recipe.yaml")])
def test_a_run_of_stage_1_names_commands_for_its_checkpoint(name, written, tmp_path):
    recipe = tiny_recipe(str(tmp_path / "captions"), tmp_path / "run 1", stage="align")
    checkpoint = tmp_path / "run 1/checkpoints/step_00000006"
    lines = next_commands(checkpoint, recipe, name)
    chat, evaluate, instruct, export = [parsed(line.partition(": ")[2].strip()) for line in lines]
    assert [one["verb"] for one in (chat, evaluate, instruct, export)] == ["chat", "evaluate", "instruct", "export"]
    assert {str(checkpoint)} == {one["checkpoint"] for one in (chat, evaluate, export)}
    assert evaluate["data"] == str(tmp_path / "captions") and export["folder"] == str(tmp_path / "run 1/exported")
    assert instruct["recipe"] == written
    assert instruct["settings"] == ("data=CHATS", f"start={checkpoint}", f"out={tmp_path}/run 1-instruct")


def test_a_run_of_stage_2_names_no_further_stage(tmp_path):
    recipe = tiny_recipe(str(tmp_path / "chats"), tmp_path / "run")
    lines = next_commands(tmp_path / "run/checkpoints/step_00000006", recipe, "tiny")
    assert [parsed(line.partition(": ")[2].strip())["verb"] for line in lines] == ["chat", "evaluate", "export"]


def test_only_the_checkpoint_is_on_stdout_and_only_of_the_first_rank(tmp_path, capsys, monkeypatch):
    recipe = tiny_recipe(str(tmp_path / "chats"), tmp_path / "run")
    report(tmp_path / "step_1", recipe)
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path}/step_1\n" and captured.err.count("vlmdata train ") == 3
    report(None, recipe)
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "1")
    report(tmp_path / "step_1", recipe)
    assert capsys.readouterr() == ("", "")
