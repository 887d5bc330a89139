"""A `~` at the start of a path that the user gives means the home folder, also where a shell leaves it: `--out=~/data`."""

from pathlib import Path

import pytest

import vlmdata
from tests.engine.site import picture
from vlmdata.cli import main
from vlmdata.home_folder import at_home
from vlmdata.models.clip_names import names_at_home
from vlmdata_train.recipe_file import with_home

pytestmark = pytest.mark.whole


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home folder with three pictures. The current folder is another one, which must stay empty."""
    folder = tmp_path / "home"
    for number in range(3):
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        (folder / "pictures" / f"{number}.jpg").write_bytes(picture(number, 300))
        (folder / "pictures" / f"{number}.txt").write_text(f"a picture with the number {number}")
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(tmp_path / "here")
    return folder


def test_every_verb_takes_a_path_below_the_home_folder(home: Path) -> None:
    lines = [
        ["new", "captions_folder", "~/recipe.yaml"],
        ["check", "~/recipe.yaml", "--set", "source.path=~/pictures", "--out", "~/out"],
        ["run", "~/recipe.yaml", "--set", "source.path=~/pictures", "--out=~/out", "--local", "--workers", "1"],
        ["show", "~/out"],
        ["check", "~/out"],
        ["diff", "~/out", "~/out"],
        ["retry", "~/out", "--recipe", "~/recipe.yaml", "--set", "source.path=~/pictures"],
        ["forget", "~/out", "--domain", "a.example", "--dry-run", "--receipt", "~/receipt.json"],
        ["export", "~/out", "~/exported", "--to", "tars"],
        ["push", "~/out", "jane/cats", "--dry-run"],
        ["index", "~/exported", "--out", "~/index.parquet"],
        ["clean", "~/out"],
    ]
    assert [main(line) for line in lines] == [0] * len(lines)
    assert list(Path().iterdir()) == []
    made = {"exported", "index.parquet", "out", "pictures", "receipt.json", "recipe.yaml"}
    assert made <= {path.name for path in home.iterdir()}


def test_the_functions_take_a_path_below_the_home_folder(home: Path) -> None:
    vlmdata.run("captions_folder", "~/out", overrides={"source.path": "~/pictures"}, local=True, workers=1)
    assert vlmdata.check("~/out") == [] and vlmdata.diff(Path("~/out"), home / "out") == []
    assert vlmdata.export("~/out", Path("~/exported")) == 3
    for path in ("~/out", Path("~/out"), ["~/out"], {"~/out": 1.0}):
        assert len(list(vlmdata.stream(path, torch=False))) == 3  # type: ignore[arg-type]
    assert list(Path().iterdir()) == []


def test_only_the_start_of_a_path_means_the_home_folder(home: Path) -> None:
    assert at_home("~") == str(home) and at_home(Path("~/a")) == home / "a"
    assert at_home("a/~/b~") == "a/~/b~" and at_home("s3://~/b") == "s3://~/b" and at_home("./~a") == "./~a"
    assert at_home("~root/a") == f"{Path('~root').expanduser()}/a" and at_home("~no such user/a") == "~no such user/a"


def test_weights_and_training_recipes_may_lie_below_the_home_folder(home: Path) -> None:
    assert names_at_home("ViT-B-32", "~/a.pt") == ("ViT-B-32", f"{home}/a.pt")
    assert names_at_home("local-dir:~/clip", "") == (f"local-dir:{home}/clip", "")
    tree = {"out": "~/run", "data": {"~/a": 1.0}, "held_out": {"path": "~/b"}, "start": "~/c", "loss": "~"}
    expected = {"out": f"{home}/run", "data": {f"{home}/a": 1.0}, "held_out": {"path": f"{home}/b"}, "start": f"{home}/c"}
    assert with_home(tree) == {**expected, "loss": "~"}
