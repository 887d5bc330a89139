"""The public API of vlmdata has functions with the names and options of the command line, and errors with one base class."""

import ast
import importlib
import inspect
import os
import pickle
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import vlmdata
from tests.engine.site import site
from vlmdata import errors, step
from vlmdata.engine.drive.publish import SumsDiffer
from vlmdata.loader.index.index_file import NoIndex
from vlmdata.loader.read_samples import DamagedSample
from vlmdata.loader.stream import ReadOptions
from vlmdata.recipe import load, parse

ROOT = Path(__file__).parent.parent
FUNCTIONS = ["build_index", "check", "diff", "export", "forget", "push", "retry", "run", "stream", "why"]
IN_PYTHON = {"--set": "overrides", "--bytes": "read_bytes", "tars": "paths"}
ONLY_PRINTED = {"--json", "--receipt", "--quiet"}  # a Python user has the value itself


def python(code: str, *options: str) -> str:
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_public_names_are_listed_and_documented():
    assert sorted(vlmdata.__all__) == sorted([*FUNCTIONS, "Decode", "Packing", "Error", "RecipeError", "__version__"])
    assert set(vlmdata.__all__) <= set(dir(vlmdata))
    for name in FUNCTIONS:
        assert inspect.isfunction(getattr(vlmdata, name)) and getattr(vlmdata, name).__doc__
    with pytest.raises(AttributeError, match="module 'vlmdata' has no attribute 'runs'"):
        vlmdata.runs  # noqa: B018


def test_a_type_checker_sees_the_names_that_python_exports():
    tree = ast.parse(Path(vlmdata.__file__).read_text())
    origin = {alias.name: node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    for name in set(vlmdata.__all__) - {"__version__"}:
        assert getattr(importlib.import_module(origin[name]), name) is getattr(vlmdata, name)


def test_no_module_shadows_a_public_name():
    modules = [module.name for module in pkgutil.iter_modules(vlmdata.__path__)]
    assert not set(modules) & set(vlmdata.__all__)
    code = f"""
import importlib, inspect
for name in {sorted(set(modules) - {"__main__"})!r}:
    importlib.import_module("vlmdata." + name)
import vlmdata
from vlmdata import {", ".join(FUNCTIONS)}
print(all(inspect.isfunction(getattr(vlmdata, name)) for name in {FUNCTIONS!r}), inspect.isfunction(why))
"""
    assert python(code).split() == ["True", "True"]


def test_importing_vlmdata_imports_nothing_large():
    code = "import sys, vlmdata; print({'numpy', 'pyarrow', 'torch', 'typing', 'yaml'} & set(sys.modules))"
    assert python(code, "-S", "-E").strip() == "set()"


def test_the_version_is_known_when_installed_and_in_a_checkout():
    code = "import vlmdata; print(vlmdata.__version__)"
    assert python(code).strip() == python(code, "-S").strip() == vlmdata.__version__


@pytest.mark.parametrize("verb", ["check", "diff", "export", "forget", "index", "push", "retry", "run", "why"])
def test_a_function_has_the_options_of_its_command(verb):
    command = importlib.import_module(f"vlmdata.commands.{verb}").command
    words = {parameter.opts[-1] for parameter in command.params}
    renamed = {**IN_PYTHON, "--set": "options"} if verb == "export" else IN_PYTHON
    function = getattr(vlmdata, {"index": "build_index"}.get(verb, verb))
    known = set(inspect.signature(function).parameters)
    for word in words - ONLY_PRINTED:
        name = renamed.get(word, word.strip("-").replace("-", "_"))
        assert name in known or (verb, name) == ("check", "recipe"), (verb, word)


def test_python_functions_build_change_and_read_a_dataset(tmp_path):
    out, where = tmp_path / "out", {"local": True, "workers": 1}
    with site(tmp_path, 16) as web:
        assert vlmdata.check(web.recipe) == []
        manifest = vlmdata.run(web.recipe, out, **where)
        assert (manifest["rows"], manifest["kept"]) == (16, 12)
        assert vlmdata.check(out) == vlmdata.check(out, read_bytes=True) == vlmdata.diff(out, out) == []
        missing = vlmdata.why(out, "http_404")
        assert [line["outcome"] for line in vlmdata.why(out, missing[0]["key"])] == ["dropped"]
        assert len(vlmdata.why(out, "http_404", limit=1)) == 1 < len(missing) + 1
        before = len(web.requests())
        assert vlmdata.retry(out, **where)["kept"] == 12 and len(web.requests()) == before  # no error passes
        assert vlmdata.retry(out, only="http_404", **where)["kept"] == 12
        assert len(web.requests()) == before + len(missing)
        kept = [sample["__key__"] for sample in vlmdata.stream(out, torch=False, reading=ReadOptions(cache=tmp_path / "cache"))]
        assert vlmdata.export(out, tmp_path / "pictures", to="folder") == len(kept) == 12
        receipt = vlmdata.forget(out, key=kept[0], dry_run=True)
        assert receipt["samples"] == 1 and vlmdata.check(out) == []
        assert vlmdata.forget(out, key=[kept[0]]) == receipt
        assert vlmdata.run(web.recipe, out, **where)["kept"] == 11
    (out / "00000.tar").write_bytes(b"")
    assert len(vlmdata.check(out)) == 1


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.RecipeError, ValueError),
        (errors.InputError, ValueError),
        (errors.WorkFailed, RuntimeError),
        (NoIndex, ValueError),
        (DamagedSample, ValueError),
        (SumsDiffer, AssertionError),
    ],
)
def test_every_error_has_our_base_class_hides_secrets_and_can_be_pickled(kind, builtin):
    error = pickle.loads(pickle.dumps(kind("no tars at s3://KEY:SECRET@bucket/set")))
    assert type(error) is kind and isinstance(error, vlmdata.Error) and isinstance(error, builtin)
    assert "SECRET@" not in str(error) and "bucket/set" in str(error)


def test_recipe_error_can_be_imported_from_its_former_module():
    assert step.RecipeError is vlmdata.RecipeError is errors.RecipeError


CHECKABLE = parse({"source": {"type": "html", "path": __file__}, "shards": {"layout": "documents"}})
NO_PATH = "must be a path or an address, not"
NO_DATASET = "is not a finished dataset, because it has no manifest.json"
KEY = "0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("function", "given", "says"),
    [
        ("run", {"overrides": "source.path=a"}, "overrides must be a mapping such as {'source.path': 'urls.parquet'}, not"),
        ("run", {"recipe": 5}, "recipe must be a file, the name of a shipped recipe, or a Recipe, not 5"),
        ("run", {"out": ""}, f"out {NO_PATH} ''"),
        ("run", {"workers": 0}, "workers must be an integer of at least 1, not 0"),
        ("run", {"workers": True}, "workers must be an integer of at least 1, not True"),
        ("run", {"limit": 1.5}, "limit must be an integer of at least 0, not 1.5"),
        ("run", {"local": "yes"}, "local must be True or False, not 'yes'"),
        ("run", {"retry": [503]}, "retry must be a string or a list of strings, not [503]"),
        ("run", {"address": 6379}, "address must be a string, not 6379"),
        ("run", {"recipe": "caption"}, "there is no recipe 'caption'. Did you mean 'captions'?"),
        ("check", {"target": None}, "recipe must be a file, the name of a shipped recipe, or a Recipe, not None"),
        ("check", {"target": "."}, NO_DATASET),
        ("check", {"target": ".", "overrides": {"part_rows": 5}}, ". is a dataset, but overrides apply only to a recipe"),
        ("check", {"target": "captions", "read_bytes": 1}, "read_bytes must be True or False, not 1"),
        ("check", {"target": "datacomp_basic", "overrides": {"source.path": "absent.parquet"}}, "absent.parquet"),
        ("why", {"out": 3, "word": "a"}, f"out {NO_PATH} 3"),
        ("why", {"out": ".", "word": 3}, "word must be a string, not 3"),
        ("why", {"out": ".", "word": "a", "limit": 0}, "limit must be an integer of at least 1, not 0"),
        ("why", {"out": ".", "word": "a"}, NO_DATASET),
        ("retry", {"out": []}, f"out {NO_PATH} []"),
        ("retry", {"out": ".", "only": 503}, "only must be a string or a list of strings, not 503"),
        ("retry", {"out": "."}, NO_DATASET),
        ("diff", {"a": ".", "b": None}, f"b {NO_PATH} None"),
        ("diff", {"a": ".", "b": "."}, NO_DATASET),
        (
            "export",
            {"out": ".", "target": "new", "to": "csv"},
            "to must be one of energon, folder, hf, img2dataset, llava, mds, messages, mmc4, obelics, parquet, tars, not 'csv'",
        ),
        ("export", {"out": ".", "target": 1}, f"target {NO_PATH} 1"),
        ("export", {"out": ".", "target": "s3://bucket/set"}, "export writes to a folder on this machine, not to an address"),
        ("export", {"out": ".", "target": "."}, "already exists. Name a new folder"),
        ("export", {"out": ".", "target": "new"}, NO_DATASET),
        ("push", {"out": 1, "repo": "a/b"}, f"out {NO_PATH} 1"),
        ("push", {"out": ".", "repo": 1}, "repo must be a string, not 1"),
        ("push", {"out": ".", "repo": "b"}, "b is no name of a repository. Write USER/NAME"),
        ("push", {"out": ".", "repo": "a/b", "private": 1}, "private must be True or False, not 1"),
        ("push", {"out": ".", "repo": "a/b", "revision": 1}, "revision must be a string, not 1"),
        ("push", {"out": ".", "repo": "a/b"}, "is neither a finished dataset nor an export with a card"),
        ("push", {"out": "s3://bucket/set", "repo": "a/b"}, "push reads a folder on this machine, not an address"),
        ("forget", {"out": "."}, "no sample to forget"),
        ("forget", {"out": ".", "url": ""}, "url must be a string or a list of strings, not ''"),
        ("forget", {"out": ".", "url": 1}, "url must be a string or a list of strings, not 1"),
        ("forget", {"out": ".", "like": [1]}, "like must be a path or a list of paths, not [1]"),
        ("forget", {"out": ".", "like": "absent.jpg"}, "cannot read absent.jpg as an image"),
        ("forget", {"out": ".", "key": KEY, "bits": -1}, "bits must be an integer of at least 0, not -1"),
        ("forget", {"out": ".", "key": KEY, "dry_run": 1}, "dry_run must be True or False, not 1"),
        ("forget", {"out": ".", "key": KEY}, NO_DATASET),
        ("build_index", {"paths": "absent"}, "absent does not exist"),
        ("build_index", {"paths": "."}, "no tars in ."),
        ("build_index", {"paths": 5}, "paths must be a path or a list of paths, not 5"),
        ("build_index", {"paths": ".", "workers": -1}, "workers must be an integer of at least 1, not -1"),
        ("build_index", {"paths": ".", "image_sizes": "no"}, "image_sizes must be True or False, not 'no'"),
        ("build_index", {"paths": ".", "on_error": "stop"}, "on_error must be one of raise, skip, not 'stop'"),
        ("build_index", {"paths": ".", "out": 5}, f"out {NO_PATH} 5"),
        ("build_index", {"paths": ".", "out": "."}, "out must be the path of a file, such as index.parquet, not '.'"),
        ("run", {"out": "foo://bucket/set", "recipe": CHECKABLE}, "foo://bucket/set: Protocol not known: foo"),
        ("why", {"out": "foo://bucket/set", "word": "a"}, "foo://bucket/set: Protocol not known: foo"),
        ("build_index", {"paths": ".", "report": 5}, "report must be a function, not 5"),
    ],
)
def test_a_wrong_argument_is_reported_in_one_line_before_any_work(function, given, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    always = {"recipe": "captions", "out": "out", "local": True} if function == "run" else {}
    with pytest.raises(vlmdata.Error) as caught:
        getattr(vlmdata, function)(**{**always, **given})
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert os.listdir() == []


def test_overrides_apply_to_a_recipe_file_and_not_to_a_loaded_recipe(tmp_path):
    recipe = load("captions", {"source.path": "urls.parquet"})
    with pytest.raises(errors.RecipeError, match="overrides apply only to recipe files"):
        vlmdata.run(recipe, tmp_path / "out", overrides={"part_rows": 10})
