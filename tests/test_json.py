"""With --json, a verb prints one JSON document, which matches its schema, and nothing else on standard output."""

import importlib
import json
import pkgutil
import re
import shutil
from pathlib import Path

import jsonschema
import pytest

import vlmdata.commands
from tests.engine.site import site
from vlmdata import run, why
from vlmdata.cli import main
from vlmdata.drop_reasons import dropped_for

pytestmark = pytest.mark.whole

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads((ROOT / "schemas" / "cli.json").read_text())
DEFINITIONS = SCHEMA["$defs"]


@pytest.fixture(scope="session")
def web(tmp_path_factory):
    folder = tmp_path_factory.mktemp("json")
    with site(folder, 32) as web:
        run(web.recipe, folder / "out", local=True, workers=1)
        web.out = folder / "out"
        yield web


@pytest.fixture
def printed(capsys):
    """Return a function that runs a verb with `--json`, checks its document by the verb's schema, and returns the document."""

    def call(words, *, status=0, schema=None):
        assert main([*map(str, words), "--json"]) == status
        document = json.loads(capsys.readouterr().out)
        jsonschema.validate(document, {**SCHEMA, "$ref": f"#/$defs/{schema or words[0]}"})
        return document

    return call


def test_the_schema_names_every_verb_that_prints_json():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    names = [module.name for module in pkgutil.iter_modules(vlmdata.commands.__path__)]
    verbs = {name: importlib.import_module(f"vlmdata.commands.{name}").command for name in names}
    able = {name for name, verb in verbs.items() if any(option.name == "as_json" for option in verb.params)}
    assert {name.partition("_")[0] for name in DEFINITIONS} - {"error"} == able


@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_page_lists_every_field_with_the_words_of_the_schema(name):
    page = (ROOT / "docs" / "cli.md").read_text()
    for field, facts in DEFINITIONS[name]["properties"].items():
        assert re.search(rf"^\| `{field}` \| .*\| {re.escape(facts['description'])} \|$", page, re.M), (name, field)


def test_show_prints_the_numbers_of_the_manifest_and_samples(web, printed):
    found = printed(["show", web.out, "--samples", "2"])
    assert (found["dataset"], found["rows"], found["kept"], found["tars"]) == (str(web.out), 32, 24, 1)
    assert {line["reason"]: line["rows"] for line in found["dropped"]}["min_side"] == 2
    assert found["tar_bytes"] == (web.out / "00000.tar").stat().st_size
    assert [sample["images"] for sample in found["samples"]] == [[{"width": 48, "height": 48}]] * 2


def test_run_prints_the_numbers_of_the_dataset(web, printed):
    totals = printed(["run", web.recipe, "--out", web.out, "--local"])
    assert {**totals, "samples": []} == printed(["show", web.out, "--samples", "0"])


def test_check_prints_the_notes_of_a_recipe_and_the_faults_of_a_dataset(web, printed, tmp_path):
    found = printed(["check", web.recipe], schema="check_recipe")
    assert found["steps"] == ["text_length", "download", "resize", "image_size"] and found["notes"] == found["imports"] == []
    wrong = printed(["check", web.recipe, "--set", "image_size.min_side=x"], schema="check_recipe", status=2)
    assert found["mistakes"] == [] and ["min_side" in line for line in wrong["mistakes"]] == [True]
    assert printed(["check", web.out], schema="check_dataset")["faults"] == []
    broken = shutil.copytree(web.out, tmp_path / "broken")
    (broken / "00000.tar").unlink()
    found = printed(["check", broken, "--bytes"], schema="check_dataset", status=1)
    assert len(found["faults"]) == 1 and "00000.tar" in found["faults"][0] and found["every_byte"] is True


def test_diff_prints_the_changes_with_their_rows(web, printed, tmp_path):
    run(web.recipe, tmp_path / "loose", overrides={"image_size.min_side": 10}, local=True, workers=1)
    found = printed(["diff", web.out, tmp_path / "loose"])
    assert [(one["before"], one["after"], one["rows"]) for one in found["changes"]] == [("image_size: min_side", "kept", 2)]
    assert printed(["diff", web.out, web.out])["changes"] == []


def test_retry_prints_what_it_retried_and_how_many_samples_more_it_kept(web, printed, tmp_path):
    out = shutil.copytree(web.out, tmp_path / "out")
    found = printed(["retry", out, "--local"])
    assert (found["retried"], found["more_kept"], found["kept"]) == ([], 0, 24)
    found = printed(["retry", out, "--local", "--only", "http_404"])
    assert (found["retried"], found["more_kept"], found["kept"]) == (["http_404"], 0, 24)


def test_forget_prints_the_receipt_before_and_after_the_removal(web, printed, tmp_path):
    out = shutil.copytree(web.out, tmp_path / "out")
    key = printed(["show", out, "--samples", "1"])["samples"][0]["key"]
    planned = printed(["forget", out, "--key", key, "--url", "https://gone.example/", "--dry-run"])
    assert (planned["dry_run"], planned["samples"], planned["not_found"]) == (True, 1, ["https://gone.example/"])
    assert {**printed(["forget", out, "--key", key]), "not_found": []} == {**planned, "dry_run": False, "not_found": []}
    assert printed(["show", out])["kept"] == 23


def test_why_prints_the_lines_of_the_ledger(web, printed):
    line = dropped_for(web.out, "min_side", 1).lines[0]
    assert printed(["why", web.out, line["key"]])["rows"] == why(web.out, line["key"]) == [line]
    found = printed(["why", web.out, "min_side", "--limit", "2"])
    assert len(found["rows"]) == 2 and found["count"] == dropped_for(web.out, "min_side", 1).total
    assert printed(["why", web.out, "nothing"], status=1)["rows"] == []


def test_index_export_and_new_print_what_they_wrote(web, printed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(web.out / "00000.tar", tmp_path)
    assert Path(printed(["index", tmp_path])["index"]) == tmp_path / "index.parquet"
    assert printed(["export", web.out, tmp_path / "files", "--to", "folder"])["samples"] == 24
    listed = {one["name"]: one["settings"] for one in printed(["new"], schema="new_all")["recipes"]}
    assert "source.path" in listed["captions"]
    assert printed(["new", "captions"], schema="new_name") == {"recipe": "captions", "path": "captions.yaml"}


def test_clean_prints_how_much_it_freed(web, printed, tmp_path):
    out = shutil.copytree(web.out, tmp_path / "out")
    size = sum(path.stat().st_size for path in (out / "work").rglob("*") if path.is_file())
    assert printed(["clean", out]) == {"dataset": str(out), "bytes": size}
    assert "has no work/" in printed(["clean", out], status=2, schema="error")["error"]


def test_long_verbs_show_their_progress_on_standard_error(web, printed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vlmdata.count_line.PIPE_INTERVAL_S", 0.0)
    assert main(["export", str(web.out), str(tmp_path / "files"), "--to", "folder", "--json"]) == 0
    captured = capsys.readouterr()
    assert "exporting samples: 24 of 24" in captured.err and json.loads(captured.out)["samples"] == 24
    assert main(["check", str(web.out), "--bytes"]) == 0
    captured = capsys.readouterr()
    total = sum(facts["bytes"] for facts in json.loads((web.out / "manifest.json").read_text())["files"].values())
    assert f"checking bytes: {total:,} of {total:,}" in captured.err and "every byte checked" in captured.out
    shutil.copy(web.out / "00000.tar", tmp_path)
    assert main(["index", str(tmp_path)]) == 0
    assert "indexing tars: 1 of 1" in capsys.readouterr().err


def test_a_failed_verb_prints_the_error_as_its_document(printed, tmp_path):
    assert "not a finished dataset" in printed(["show", tmp_path], status=2, schema="error")["error"]
    assert "no recipe 'caption'" in printed(["check", "caption"], status=2, schema="error")["error"]
