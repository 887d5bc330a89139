"""Both command lines have help, usage errors and shell completion."""

import importlib
import json
import math
import os
import pkgutil
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

import vlmdata.commands
import vlmdata_train.commands
from vlmdata import cli, verbs
from vlmdata_train import __main__ as trainer

PACKAGES = {"vlmdata": vlmdata.commands, "vlmdata_train": vlmdata_train.commands}
MAIN = {"vlmdata": cli.main, "vlmdata_train": trainer.main}
TYPED = {"vlmdata": "vlmdata", "vlmdata_train": "vlmdata train"}  # what users type before a verb
VERBS = [(program, module.name) for program, package in PACKAGES.items() for module in pkgutil.iter_modules(package.__path__)]
FIRST = {
    "vlmdata": ["demo", "new", "check", "run", "show"],
    "vlmdata_train": ["align", "instruct", "stages", "evaluate", "chat"],
}
PROGRAM, RUN, SHOW = "vlmdata [OPTIONS] VERB ...", "vlmdata run [OPTIONS] RECIPE", "vlmdata show [OPTIONS] OUT"
ALL_VERBS = "demo, new, check, run, show, why, clean, completion, diff, export, forget, index, push, retry, steps, train"
OF_COMPLETION = 'Example: eval "$(vlmdata completion bash)"'
OF_SHOW, COMPLETION = "Example: vlmdata show OUT", "vlmdata completion [OPTIONS] SHELL"
OF_RUN = "Example: vlmdata run captions --set source.path=urls.parquet --out OUT"
HEAVY = ["torch", "pyarrow", "ray", "numpy", "transformers", "yaml", "pydantic"]


def examples(program: str, verb: str) -> list[str]:
    text = importlib.import_module(f"{program}.commands.{verb}").EXAMPLES
    return [line.strip() for line in text.strip().splitlines()]


@pytest.mark.parametrize(("program", "verb"), VERBS)
def test_the_help_of_a_verb_ends_with_its_examples_unchanged(program, verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert MAIN[program]([verb, "--help"]) == 0
    captured = capsys.readouterr()
    head, tail = captured.out.split("\nExamples:\n")
    assert tail.splitlines() == [f"  {line}" for line in examples(program, verb)]
    assert any(f"{TYPED[program]} {verb} " in f"{line} " for line in examples(program, verb))
    assert not any("python -m" in line for line in examples(program, verb))
    assert max(map(len, head.splitlines())) <= 40 and "\x1b" not in captured.out and captured.err == ""


@pytest.mark.parametrize("program", MAIN)
def test_the_help_of_a_program_lists_every_verb_with_the_first_needed_on_top(program, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert MAIN[program](["--help"]) == 0
    asked = capsys.readouterr().out
    listed = [line.split()[0] for line in asked.split("Verbs:\n")[1].splitlines() if line[:2] == "  " and line[2:3].isalpha()]
    assert sorted(listed) == sorted(verb for name, verb in VERBS if name == program)
    assert listed[:5] == FIRST[program]
    assert MAIN[program]([]) == 2  # a command without a verb is a mistake, answered with the help
    assert capsys.readouterr().out == asked


def test_the_trainer_without_its_packages_still_gives_help(capsys, monkeypatch):
    monkeypatch.setattr(trainer, "PACKAGES", ("no_such_package",))
    assert [trainer.main(words) for words in (["help", "align"], ["align", "-h"], ["help"], ["--help"])] == [0] * 4
    assert capsys.readouterr().err == ""
    for words in (["align"], ["--quiet", "align"]):
        assert trainer.main(words) == 2
        assert "the trainer needs the package 'no_such_package'" in capsys.readouterr().err


def test_the_help_of_check_says_that_a_dataset_can_be_checked_too(capsys):
    assert cli.main(["check", "--help"]) == 0
    assert "such as captions; or a finished dataset" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("program", "verb"), [*VERBS, *((program, None) for program in MAIN)])
def test_help_as_a_word_is_help_as_an_option(program, verb, capsys):
    words = [verb] if verb else []
    assert MAIN[program](["help", *words]) == MAIN[program]([*words, "--help"]) == 0
    first, second = capsys.readouterr().out.split("Usage:")[1:]
    assert first == second


@pytest.mark.parametrize("program", MAIN)
def test_help_and_version_import_nothing_slow(program):
    calls = [["--version"], ["--help"], *([verb, "--help"] for name, verb in VERBS if name == program)]
    code = "import importlib, sys\nmain = importlib.import_module(sys.argv[1]).main\n"
    code += f"for words in {calls}:\n    assert main(words) == 0\n    print('heavy:', words, sys.modules.keys() & set({HEAVY}))"
    module = {"vlmdata": "vlmdata.cli", "vlmdata_train": "vlmdata_train.__main__"}[program]
    done = subprocess.run([sys.executable, "-c", code, module], capture_output=True, text=True, check=True)
    found = [line for line in done.stdout.splitlines() if line.startswith("heavy:")]
    assert found == [f"heavy: {words} set()" for words in calls]


@pytest.mark.parametrize("program", MAIN)
def test_the_printed_version_is_that_of_the_package(program):
    done = subprocess.run([sys.executable, "-m", program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"vlmdata {importlib.metadata.version('vlmdata')}\n"


@pytest.mark.parametrize(
    ("words", "usage", "mistake"),
    [
        (["completion"], COMPLETION, f"Missing argument 'SHELL'. Choose from: bash, zsh, fish. {OF_COMPLETION}"),
        (["help", "runn"], PROGRAM, "No such verb 'runn'. Did you mean 'run'?"),
        (["runn"], PROGRAM, "No such verb 'runn'. Did you mean 'run'?"),
        (["zzz"], PROGRAM, f"No such verb 'zzz'. The verbs are {ALL_VERBS}"),
        (["--verson"], PROGRAM, "No such option '--verson'. Did you mean '--version'?"),
        (["run"], RUN, f"Missing argument 'RECIPE'. {OF_RUN}"),
        (["run", "captions"], RUN, f"Missing option '--out'. {OF_RUN}"),
        (["run", "captions", "--out"], RUN, f"Option '--out' requires an argument. {OF_RUN}"),
        (["run", "captions", "--limt", "3"], RUN, "No such option '--limt'. Did you mean '--limit'?"),
        (["show", "--samples", "x"], SHOW, "Invalid value for '--samples': 'x' is not a valid integer."),
        (["show", "a", "b"], SHOW, "Got unexpected extra argument (b). Example: vlmdata show OUT"),
        (["show", "a", "s3://ID:SECRET@b/c"], SHOW, f"Got unexpected extra argument (s3://REDACTED@b/c). {OF_SHOW}"),
        (["train", "--sett"], "vlmdata train [OPTIONS] VERB ...", "No such option '--sett'."),
    ],
)  # fmt: skip
def test_a_usage_error_prints_the_usage_of_the_verb_and_one_line(words, usage, mistake, capsys):
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"Usage: {usage}\nvlmdata: {mistake}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["diff", "a"], "Missing argument 'B'. Example: vlmdata diff OLD NEW"),
        (["diff", "a", "b", "--jsn"], "No such option '--jsn'. Did you mean '--json'?"),
        (["diff", "gone", "b"], "gone"),
        (["runn"], "No such verb 'runn'. Did you mean 'run'?"),
    ],
)
def test_an_error_with_json_is_a_document_with_the_line_of_stderr(words, message, capsys):
    assert cli.main([*words[:1], "--json", *words[1:]]) == 2
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert list(found) == ["error"] and message in found["error"]
    assert captured.err.endswith(f"vlmdata: {found['error']}\n")


def test_words_after_two_dashes_do_not_ask_for_json(capsys):
    assert cli.main(["show", "--", "--json"]) == 2
    assert capsys.readouterr().out == ""


def test_json_has_no_secrets_no_infinities_and_only_ascii(capsys):
    verbs.print_json(
        {"a": [math.nan, -math.inf, 0.5, 2**60], "é": "https://u:pass@h/", "password": "x", "when": date(2020, 1, 2)}
    )
    printed = capsys.readouterr().out
    assert printed.isascii() and printed.endswith("}\n")
    found = {"a": [None, None, 0.5, 2**60], "é": "https://REDACTED@h/", "password": "REDACTED", "when": "2020-01-02"}
    assert json.loads(printed) == found


def test_the_trainer_reports_usage_errors_in_the_same_form(capsys):
    assert trainer.main(["evaluate", "a"]) == 2
    usage, mistake = capsys.readouterr().err.splitlines()
    assert usage == "Usage: vlmdata train evaluate [OPTIONS] CHECKPOINT DATA"
    assert mistake.startswith("vlmdata train: Missing argument 'DATA'. Example: vlmdata train evaluate ")


@pytest.mark.parametrize(
    "words",
    [
        ["--set", "part_rows=7", "--set", "source.path=-gone-.csv", "captions"],
        ["captions", "--set", "part_rows=7", "--set=source.path=-gone-.csv"],
        ["--set", "part_rows=7", "captions", "--set", "source.path=-gone-.csv"],
    ],
)
def test_options_may_follow_arguments_and_values_may_begin_with_a_dash(words, capsys):
    assert cli.main(["check", *words]) == 2
    assert "-gone-.csv" in capsys.readouterr().err
    assert cli.main(["check", *words, "--set", "part_rows=-3"]) == 2
    assert "part_rows must be an integer of at least 1, not -3" in capsys.readouterr().err


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], ["new", "captions"]])
def test_a_closed_output_pipe_ends_the_command_silently(words, unbuffered, tmp_path):
    reads, writes = os.pipe()
    os.close(reads)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "vlmdata", *words]
    done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)
    os.close(writes)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a shell that finds the command, in a folder with a recipe and a dataset."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "vlmdata"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m vlmdata "$@"\n')
    command.chmod(0o700)
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "built").mkdir()
    return {**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb"}


COMPLETIONS = [  # a line, and the completions of its last word
    ("vlmdata ru", ["run"]),
    ("vlmdata train in", ["instruct"]),
    ("vlmdata run --wo", ["--workers"]),
    ("vlmdata run captions", ["captions", "captions_folder", "captions_hf"]),
    ("vlmdata check --set a.b=c laion", ["laion", "laion5b"]),
    ("vlmdata new datacomp_b", ["datacomp_basic", "datacomp_best"]),
    ("vlmdata steps clip_", ["clip_loss", "clip_score"]),
    ("vlmdata export OUT --to f", ["folder"]),
    ("vlmdata train align tin", ["tiny"]),
    ("vlmdata train align tiny --s", ["--set"]),
    ("vlmdata train chat c --device a", ["auto"]),
    ("vlmdata nonsense a", []),
]
PATHS = [("vlmdata run min", "mine.yaml"), ("vlmdata show bui", "built/"), ("vlmdata run x --out bui", "built/")]
BASH = r"""
eval "$(vlmdata completion bash)"
while read -r line; do
    read -ra COMP_WORDS <<< "$line"; COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
    compopt() { :; }  # it works only while readline completes
    _vlmdata_completion vlmdata
    echo "${COMPREPLY[*]}"
done
"""


@pytest.mark.whole
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_verbs_options_and_names(shell, tmp_path):
    lines = "".join(f"{line}\n" for line, _ in COMPLETIONS)
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH], input=lines, capture_output=True, text=True, check=True, env=shell, cwd=tmp_path
    )
    assert done.stderr == ""
    assert [line.split() for line in done.stdout.splitlines()] == [found for _, found in COMPLETIONS]


@pytest.mark.whole
@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish")
def test_fish_completes_verbs_options_names_and_paths(shell, tmp_path):
    cases = [*COMPLETIONS, *((line, [path]) for line, path in PATHS)]
    script = (
        "vlmdata completion fish | source\nwhile read -l line\n  echo (complete -C $line | string replace -r '\\t.*' '')\nend"
    )
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], input="".join(f"{line}\n" for line, _ in cases), capture_output=True, text=True,
        check=True, env=shell, cwd=tmp_path,
    )  # fmt: skip
    assert [line.split() for line in done.stdout.splitlines()] == [found for _, found in cases]


@pytest.mark.whole
@pytest.mark.parametrize(("name", "start"), [("bash", ["--norc", "-i"]), ("zsh", ["-f", "-i"])])
def test_a_terminal_completes_a_line_and_the_path_of_a_file(name, start, shell, tmp_path):
    """The test presses Tab in a real terminal. Typed characters are echoed; only completion adds the rest of a word."""
    if shutil.which(name) is None:
        pytest.skip(f"no {name}")
    prepare = "autoload -Uz compinit && compinit -u -D\n" if name == "zsh" else ""
    parent, child = os.openpty()
    process = subprocess.Popen(
        [name, *start], stdin=child, stdout=child, stderr=child, env=shell, cwd=tmp_path, start_new_session=True
    )
    os.close(child)
    try:
        os.write(parent, f'{prepare}eval "$(vlmdata completion {name})" && echo re""ady\n'.encode())
        read_until(parent, "ready")
        for line, found in [("vlmdata ru", "run "), *PATHS]:
            os.write(parent, f"{line}\t".encode())
            read_until(parent, f"{line.rpartition(' ')[0]} {found}")
            os.write(parent, b"\x15")  # clears the line
    finally:
        process.kill()
        process.wait()
        os.close(parent)


def read_until(terminal: int, text: str) -> None:
    """Read what a terminal shows until the text appears. A text that never appears fails by the time limit of the test."""
    shown = ""
    while text not in shown:
        shown += os.read(terminal, 4096).decode(errors="replace")


@pytest.mark.parametrize(
    ("words", "end"),
    [
        (["image_size"], "No such verb 'image_size'. It is a step, which `vlmdata steps image_size` explains"),
        (["help", "image_size"], "No such verb 'image_size'. It is a step, which `vlmdata steps image_size` explains"),
        (["url_list"], "No such verb 'url_list'. It is a source, which `vlmdata steps url_list` explains"),
        (["captions"], "It is a recipe: `vlmdata run captions` builds it, and `vlmdata new captions` copies it"),
        (["show"], "Missing argument 'OUT'. Example: vlmdata show OUT"),
        (["show", "A", "--samples"], "Option '--samples' requires an argument. Example: vlmdata show OUT"),
    ],
)
def test_a_wrong_line_is_answered_with_the_verb_or_an_example(words, end, capsys):
    assert cli.main(words) == 2
    assert capsys.readouterr().err.rstrip("\n").endswith(end)


def test_an_export_option_of_a_format_without_options_is_refused(capsys, tmp_path):
    assert cli.main(["export", "OUT", str(tmp_path / "X"), "--set", "nonsense=1"]) == 2
    assert (
        capsys.readouterr().err == "vlmdata: export --to parquet: Parquet has no parameter 'nonsense'. It has no parameters\n"
    )
    assert cli.main(["export", "OUT", str(tmp_path / "X"), "--to", "messages", "--set", "nonsense=1"]) == 2
    assert "Known names: " in capsys.readouterr().err
