"""A setting such as `clip_score=off` leaves a step out of a recipe, and the dataset is that of a recipe without the step."""

import json
from pathlib import Path

import pytest

import vlmdata
from tests.engine.site import Site, download, site
from vlmdata.cli import main
from vlmdata.errors import RecipeError
from vlmdata.recipe import apply_overrides, load, parse
from vlmdata.verify import find_mistakes

LOCAL = {"local": True, "workers": 1}
TWICE = ["image_size", {"image_size": {"min_side": 5}}]
LABELLED = [{"image_size": {"label": "first"}}, {"image_size": {"label": "second"}}, "text_length"]


def names(steps: list, settings: dict[str, object]) -> list[str]:
    """Return the names of the steps that are left after the settings."""
    tree = {"source": {"type": "url_list", "path": "a.csv"}, "steps": list(steps)}
    apply_overrides(tree, settings, "R")
    return [step.name for step in parse(tree).steps]


@pytest.mark.parametrize("value", [False, None])
def test_a_step_is_left_out_by_its_name_or_its_label(value: object) -> None:
    assert names(["text_length", {"image_size": {"min_side": 5}}], {"image_size": value}) == ["text_length"]
    assert names(["text_length", "dedupe_exact"], {"text_length": value, "dedupe_exact": value}) == []
    assert names(LABELLED, {"second": value}) == ["first", "text_length"]


@pytest.mark.parametrize("word", ["off", "Off", "false", "null", "no"])
def test_each_word_for_off_leaves_a_step_out_on_the_command_line(word: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "a.csv").write_text("url,caption\nhttps://a.example/1.jpg,one two three\n")
    words = ["--set", f"source.path={tmp_path / 'a.csv'}", "--set", f"clip_score={word}", "--json"]
    assert main(["check", "captions", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == ["text_length", "download", "resize", "image_size", "dedupe_exact", "dedupe_phash"]


@pytest.mark.parametrize(
    ("steps", "settings", "message"),
    [
        (["image_size"], {"image_sise": False}, "--set image_sise: R has no step 'image_sise'. Did you mean 'image_size'?"),
        (TWICE, {"image_size": False}, "--set image_size=off: the steps 1 and 2 of R are called 'image_size'"),
        (LABELLED, {"image_size": None}, "--set image_size: R calls this step by its label. Name it so: first or second"),
        (LABELLED, {"image_size.min_side": 5}, "Name it so: first or second"),
        (["image_size"], {"image_size": 5}, "To leave the step out, write --set image_size=off"),
        (["image_size"], {"image_size": True}, "To leave the step out, write --set image_size=off"),
        (["image_size"], {"source": False}, "--set source=off: only a step can be left out"),
        (["image_size"], {"steps": None}, "--set steps=off: only a step can be left out"),
        (["image_size"], {"shards": False}, "--set shards=off: only a step can be left out"),
        (["image_size"], {"image_size": False, "image_size.min_side": 5}, "--set image_size=off leaves this step out"),
        (["image_size"], {"image_size.min_side": 5, "image_size": False}, "--set image_size=off leaves this step out"),
        ([5, {}, {"a": 1, "b": 2}], {"a": False}, "R has no step 'a'"),
        (["image_size"], {"source.path.a.b": 5}, "must name a parameter"),
    ],
)
def test_a_step_that_cannot_be_left_out_is_a_mistake_with_a_fix(steps: list, settings: dict, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        names(steps, settings)
    assert message in str(caught.value)


def test_a_setting_does_not_hide_parameters_that_are_no_mapping() -> None:
    with pytest.raises(RecipeError, match="the parameters of image_size must be a mapping, not 7"):
        names([{"image_size": 7}], {"image_size.min_side": 5})


def test_an_empty_value_does_not_leave_a_step_out(capsys) -> None:
    assert main(["check", "captions", "--set", "clip_score="]) == 2
    assert "--set clip_score=: the value is missing" in capsys.readouterr().err


def test_a_step_whose_columns_another_step_reads_cannot_be_left_out() -> None:
    with pytest.raises(RecipeError, match="min_scores reads the column 'b32', which no step before it measures"):
        load("laion5b", {"b32": False})


def check_without(package: str, steps: list, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the mistakes that `check` finds if a package is not installed."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else "installed")
    (folder / "a.csv").write_text("url,caption\nhttps://a.example/1.jpg,one two three\n")
    tree = {"source": {"type": "url_list", "path": str(folder / "a.csv")}, "steps": steps}
    return find_mistakes((tree, "R")).mistakes


def test_the_message_about_a_missing_extra_says_how_to_leave_the_step_out(tmp_path: Path, monkeypatch) -> None:
    steps = ["text_length", "download", {"perplexity": {"label": "fluent", "model": "none"}}]
    assert check_without("kenlm", steps, tmp_path, monkeypatch) == [
        "step fluent needs the package 'kenlm', which this installation lacks: pip install 'vlmdata[perplexity]', "
        "or leave the step out: --set fluent=off"
    ]


def test_the_message_offers_no_way_to_leave_out_what_other_steps_need(tmp_path: Path, monkeypatch) -> None:
    engine = {"engine": "img2dataset", "robots": False, "tdm": False, "host_connections": 0, "host_requests_per_s": 0}
    (line,) = check_without("img2dataset", ["text_length", {"download": engine}], tmp_path, monkeypatch)
    assert line.endswith("pip install 'vlmdata[img2dataset]'")
    steps = ["download", {"language": {"min_probability": 0}}, {"min_scores": {"scores": {"language.probability": 0.5}}}]
    (line,) = check_without("fasttext", steps, tmp_path, monkeypatch)
    assert line.endswith("pip install 'vlmdata[text]'")


@pytest.fixture
def web(tmp_path: Path):
    steps = ["text_length", download(), {"resize": {"size": 48}}, {"image_size": {"min_side": 32}}, "dedupe_exact"]
    with site(tmp_path, 16, steps=steps) as made:
        yield made


@pytest.mark.whole
def test_a_run_without_a_step_equals_a_recipe_without_it_and_fetches_nothing_again(web: Site, tmp_path: Path) -> None:
    all_steps = vlmdata.run(web.recipe, tmp_path / "out", **LOCAL)
    before = len(web.requests())
    less = vlmdata.run(web.recipe, tmp_path / "out", overrides={"image_size": False}, **LOCAL)
    assert (all_steps["kept"], less["kept"]) == (12, 13)
    assert [next(iter(step)) for step in less["recipe"]["steps"]] == ["text_length", "download", "resize", "dedupe_exact"]
    assert not any(line["step"] == "image_size" for line in less["dropped"])
    short = web.recipe.with_name("short.yaml")
    short.write_text("".join(web.recipe.read_text().split("- image_size:\n    min_side: 32\n")))
    assert vlmdata.run(short, tmp_path / "out", **LOCAL) == less
    assert vlmdata.run(web.recipe, tmp_path / "out", **LOCAL) == all_steps
    assert len(web.requests()) == before


@pytest.mark.whole
def test_retry_keeps_the_recipe_without_the_step_that_the_run_left_out(web: Site, tmp_path: Path) -> None:
    out = tmp_path / "out"
    less = vlmdata.run(web.recipe, out, overrides={"image_size": False}, **LOCAL)
    again = vlmdata.retry(out, only="http_404", **LOCAL)
    assert (again["recipe"], again["kept"]) == (less["recipe"], less["kept"])
