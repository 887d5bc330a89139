"""The command line prints results on stdout and messages on stderr, and ends with the right exit status."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.site import site
from vlmdata.cli import main
from vlmdata.read_yaml import read_yaml
from vlmdata.recipe import read_settings

pytestmark = pytest.mark.whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "caption", "--out", "OUT"], "Did you mean 'captions'?"),
        (
            ["run", "datacomp_basic", "--set", "source.path=a.txt", "--set", "image_size.min_sid=3", "--out", "OUT"],
            "Did you mean 'min_side'?",
        ),
        (["run", "captions", "--set", "image_size", "--out", "OUT"], "write a setting as name=value"),
        (["run", "captions", "--set", "source.path={", "--out", "OUT"], "Put quotes around"),
        (["run", "datacomp_basic", "--set", "source.path=absent.parquet", "--out", "OUT"], "absent.parquet"),
        (["check", "datacomp_basic", "--set", "source.path=absent.parquet"], "absent.parquet"),
        (["steps", "clip_scores"], "Did you mean 'clip_score'?"),
        (["retry", "."], "is not a finished dataset"),
        (["clean", "."], "is not a finished dataset"),
    ],
)
def test_a_mistake_prints_one_line_on_stderr_and_exits_with_status_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("https://a.example/1.jpg\n")
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err and captured.err.count("\n") == 1
    assert not (tmp_path / "OUT").exists()


def test_the_module_runs_the_command():
    done = subprocess.run([sys.executable, "-m", "vlmdata", "steps"], capture_output=True, text=True, check=True)
    assert "url_list" in done.stdout


def test_only_the_entry_point_imports_the_early_signal_handler():
    code = "import sys, vlmdata.cli; print('vlmdata.__main__' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_value_is_read_as_intended_where_yaml_would_misread_it():
    pairs = ["source.path=*.warc.gz", "lr=1e-3", "data={a: 0.7}", "out=nan", "steps=[1, 2]", "label='1e-3'", "min_side=null"]
    assert list(read_settings(pairs).values()) == ["*.warc.gz", 1e-3, {"a": 0.7}, "nan", [1, 2], "1e-3", None]


def test_a_run_prints_the_funnel_on_stdout_and_progress_on_stderr(tmp_path):
    with site(tmp_path, 16) as web:
        command = [sys.executable, "-m", "vlmdata.cli", "run", str(web.recipe), "--out", str(tmp_path / "out"), "--local"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "12 of 16 rows kept" in done.stdout and "http_404" in done.stdout
    assert "ingest" in done.stderr and "\r" not in done.stderr
    assert done.stderr.splitlines()[-1] == f"vlmdata: next: vlmdata show {tmp_path}/out --open"
    assert main(["check", str(tmp_path / "out"), "--bytes"]) == 0


def test_a_warning_of_a_run_is_printed_without_its_place_in_the_code(tmp_path, capsys):
    (tmp_path / "page.html").write_text("<p>A page.</p>")
    sets = ["--set", "source.type=html", "--set", f"source.path={tmp_path}"]
    assert main(["check", "pages", *sets]) == 0
    printed = [line for line in capsys.readouterr().err.splitlines() if "no word list" in line]
    assert printed and all(line.startswith("note: ") for line in printed)


def test_check_finds_a_changed_byte(tmp_path, capsys):
    with site(tmp_path, 16) as web:
        assert main(["run", str(web.recipe), "--out", str(tmp_path / "out"), "--local", "--workers", "1"]) == 0
    tar = tmp_path / "out" / "00000.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.unlink()  # copied to a new file, because work/ holds another link to the old one
    tar.write_bytes(data)
    capsys.readouterr()
    assert main(["check", str(tmp_path / "out")]) == 0
    assert main(["check", str(tmp_path / "out"), "--bytes"]) == 1
    assert "00000.tar: the SHA-256 differs" in capsys.readouterr().out


def test_check_names_the_user_modules_that_a_recipe_imports(tmp_path, capsys, monkeypatch):
    (tmp_path / "own_steps.py").write_text(OWN_STEP)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "urls.txt").write_text("https://example.org/a.jpg\n")
    recipe = tmp_path / "own.yaml"
    recipe.write_text(f"source: {{type: url_list, path: {tmp_path}/urls.txt}}\nsteps: [text_length, own_steps.Nothing]\n")
    assert main(["check", str(recipe)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"{recipe} imports own_steps, so the code of this module runs"
    recipe.write_text("source: {type: no.such.Source}\nsteps: [{a.b.C: {}}, download, 5]\n")
    assert main(["check", str(recipe)]) == 2
    assert capsys.readouterr().out.splitlines() == [
        f"{recipe} imports {name}, so the code of this module runs" for name in ("a.b", "no.such")
    ]


OWN_STEP = '''"""A step of the user's own."""

from dataclasses import dataclass

from vlmdata.step import Step


@dataclass(frozen=True, kw_only=True)
class Nothing(Step):
    """Does nothing."""
'''


@pytest.mark.parametrize("text", ["12:30", "-1:30", "1:30.5"])
def test_a_number_to_base_60_is_a_text_in_a_setting_and_in_a_recipe(tmp_path, text):
    (tmp_path / "r.yaml").write_text(f"words: [{text}, 12, 1.5]\n")
    assert read_yaml(tmp_path / "r.yaml") == {"words": [text, 12, 1.5]}
    assert read_settings([f"a.b={text}", f"c=[{text}]", "d=12", "e=0x10"]) == {"a.b": text, "c": [text], "d": 12, "e": 16}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_dataset_without_permission_is_named_in_one_line(tmp_path, capsys):
    (tmp_path / "manifest.json").touch(mode=0)
    assert main(["show", str(tmp_path)]) == 1
    fix = "Change its permissions, and run the same command again"
    assert capsys.readouterr().err == f"vlmdata: {tmp_path}/manifest.json cannot be used: Permission denied. {fix}\n"
