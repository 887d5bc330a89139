"""With --quiet, a verb prints only results, errors, and warnings of damaged or missing data."""

import importlib
import os
import pkgutil
import shutil
import warnings

import pytest

import vlmdata.commands
import vlmdata_train.commands
from tests.engine.site import site
from tests.loader.tars import write_tar
from tests.train.runs import tiny_recipe, write_data
from vlmdata import notes, run
from vlmdata.cli import main
from vlmdata_train.loop.loop import run_training

pytestmark = pytest.mark.whole


@pytest.fixture(scope="session")
def web(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quiet")
    with site(folder, 32) as web:
        run(web.recipe, folder / "out", local=True, workers=1)
        web.out = folder / "out"
        yield web


@pytest.fixture
def said(capfd):
    """Return a function that runs a verb with `--quiet` and returns what it wrote to standard output and error."""

    def call(*words, status=0):
        capfd.readouterr()
        assert main([*map(str, words), "--quiet"]) == status
        return tuple(capfd.readouterr())

    return call


@pytest.mark.parametrize("package", [vlmdata.commands, vlmdata_train.commands])
def test_every_verb_takes_the_option(package):
    for module in pkgutil.iter_modules(package.__path__):
        verb = importlib.import_module(f"{package.__name__}.{module.name}").command
        assert any(option.opts == ["-q", "--quiet"] for option in verb.params), module.name


def test_verbs_that_work_say_nothing(web, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    shutil.copy(web.out / "00000.tar", tmp_path)
    assert said("run", web.recipe, "--out", out, "--local") == ("", "")
    assert said("retry", out, "--local") == ("", "")
    assert said("retry", out, "--local", "--only", "http_404") == ("", "")
    assert said("export", out, tmp_path / "files", "--to", "folder") == ("", "")
    assert said("forget", out, "--url", "https://gone.example/") == (
        "1 not found: https://gone.example/. No later run will add it\n",
        "",
    )
    assert said("index", tmp_path) == said("new", "captions") == said("clean", out) == ("", "")
    assert {"files", "index.parquet", "captions.yaml"} < set(os.listdir(tmp_path)) and not (out / "work").exists()


def test_a_quiet_run_gives_no_advice_but_warns_of_rows_without_captions(said, tmp_path, monkeypatch):
    monkeypatch.setattr("vlmdata.build.is_installed", lambda module: False)
    (tmp_path / "a.csv").write_text("url,caption\nhttps://e.invalid/1.jpg,\n")
    settings = ["--set", f"source.path={tmp_path}/a.csv", "--set", "clip_score=off"]
    out, heard = said("run", "captions", *settings, "--out", tmp_path / "out", "--workers", 1)
    assert out == "" and "caption" in heard
    assert "Ray is not installed" not in heard and "download.contact" not in heard


def test_verbs_that_tell_print_their_results(web, said):
    assert said("show", web.out)[0].startswith(f"{web.out}: 24 of 32 rows kept") and said("show", web.out)[1] == ""
    assert said("diff", web.out, web.out) == ("no row differs\n", "")
    assert "would be forgotten" in said("forget", web.out, "--domain", "127.0.0.1", "--dry-run")[0]


def test_errors_and_faults_are_printed(web, said, tmp_path):
    out, error = said("show", tmp_path, status=2)
    assert out == "" and "not a finished dataset" in error
    broken = shutil.copytree(web.out, tmp_path / "broken")
    (broken / "00000.tar").unlink()
    assert "00000.tar" in said("check", broken, status=1)[0]


def test_only_warnings_of_lost_data_are_printed(said, tmp_path, monkeypatch):
    def warn(*args, **options):
        warnings.warn("advice", notes.Note, stacklevel=2)
        warnings.warn("a sample is lost", stacklevel=2)
        warnings.warn("a library", FutureWarning, stacklevel=2)
        return tmp_path

    monkeypatch.setattr("vlmdata.loader.index.build_index.build_index", warn)
    assert said("index", tmp_path) == ("", "note: a sample is lost\n")


def test_notes_are_printed_again_after_a_quiet_verb(said, tmp_path, capfd):
    write_tar(tmp_path / "a.tar", [("0.jpg", b"x"), ("0.txt", b"y")])
    assert said("index", tmp_path) == ("", "")
    notes.note("at s3://u:SECRET@b/c")
    assert capfd.readouterr().err == "vlmdata: at s3://REDACTED@b/c\n" and not notes.is_quiet()


def test_a_quiet_training_says_only_which_samples_it_leaves_out(tmp_path, capfd):
    data = write_data(tmp_path / "data", captions=12)
    with notes.quiet():
        run_training(tiny_recipe(data, tmp_path / "out", steps=2))
    assert capfd.readouterr().err == ""
