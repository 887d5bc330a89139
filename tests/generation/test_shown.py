"""The card, the report, `why` and `diff` of a dataset whose texts a model wrote."""

import html
import json
import re

import pytest
import yaml

from tests.generation.scripted import recipe_of
from vlmdata import diff, run, why
from vlmdata.card import card
from vlmdata.cli import main
from vlmdata.generation.writers import Writer, writers
from vlmdata.takedown import forget

LOCAL = {"local": True, "workers": 1}
PROMPT = "first <img src=x> `code` | [a](b)"


def made(folder, **generator):
    step = f"prompts: [{json.dumps(PROMPT)}, second], banned: '02'"
    recipe, out = recipe_of(folder, 6, step, **generator), folder / "out"
    return recipe, out, run(recipe, out, **LOCAL)


@pytest.mark.whole
def test_the_card_names_the_models_and_the_prompts_as_code(own_folder):
    _, out, manifest = made(own_folder, failures={"second caption 01": "timeout"})
    text = (out / "README.md").read_text()
    section = text.partition("## Texts written by models\n")[2].partition("\n## ")[0]
    assert "| `louder` | `scripted <b>-1` (generator `scripted_writer.Scripted`) | 11 | 1 |" in section
    assert "- `louder`, `prompt_0`: `first <img src=x> 'code' ¦ [a](b)`" in section
    assert "- `louder`, `prompt_1`: `second`" in section
    assert yaml.safe_load(text.split("---")[1])["license"] == "unknown"
    long = {**manifest, "models": {"louder": [{"prompts": {"p": "word " * 1000}}]}}
    assert len(card(long, [], None).partition("`p`: `")[2].partition("`")[0]) == 600
    assert "written by models" not in card({**manifest, "generations": {}}, [], None)


@pytest.mark.whole
def test_the_report_shows_models_sums_and_texts_before_and_after(own_folder):
    recipe, out, _ = made(own_folder, failures={"second caption 01": "timeout"}, price=1)
    page = (out / "report.html").read_text()
    section = page.partition('<section id="written">')[2].partition("</section>")[0]
    words = html.unescape(" ".join(re.sub(r"<[^>]+>", " ", section).split()))
    assert "louder scripted <b>-1 , generator scripted_writer.Scripted" in words and "<b>-1" not in section
    for part in ("answers 11", "failed: timeout 1", "used 9", "not used: banned 2", "tokens of prompts 110", "cost 143.00"):
        assert part in words
    pairs = re.findall(rf"caption of the source caption (\d\d) written {re.escape(PROMPT.upper())} CAPTION (\d\d)", words)
    assert len(pairs) == 4 and all(before == after for before, after in pairs)
    assert "prompt_1: second" in words
    run(recipe, out, **LOCAL, overrides={"louder": False})
    assert 'id="written"' not in (out / "report.html").read_text()


@pytest.mark.whole
def test_the_report_shows_no_texts_of_a_private_step(own_folder):
    recipe = recipe_of(own_folder, 3)
    module = own_folder / "scripted_writer.py"
    reads = '    reads: ClassVar = ("texts",)\n'
    module.write_text(module.read_text().replace(reads, f"{reads}    is_private: ClassVar = True\n"))
    run(recipe, own_folder / "out", **LOCAL)
    page = (own_folder / "out" / "report.html").read_text()
    assert 'id="written"' in page and "FIRST CAPTION" not in page


@pytest.mark.whole
def test_a_takedown_keeps_the_sections_about_models(own_folder):
    _, out, _ = made(own_folder)
    forget(out, key=[next(line["key"] for line in _ledger(out) if line["outcome"] == "kept")])
    for name in ("README.md", "report.html"):
        assert "scripted_writer.Scripted" in (out / name).read_text()
    assert main(["check", str(out)]) == 0


def _ledger(out):
    import pyarrow.parquet as pq

    return pq.read_table(out / "ledger" / "00000.parquet").to_pylist()


@pytest.mark.whole
def test_why_names_the_failure_of_dropped_and_of_kept_rows(own_folder, capsys):
    _, out, _ = made(own_folder, failures={"caption 01": "http_400", "second caption 02": "timeout"})
    (dropped,) = why(out, "louder: http_400")
    assert dropped["louder.failed"] == "http_400"
    assert main(["why", str(out), dropped["key"]]) == 0
    printed = capsys.readouterr().out
    assert "dropped by louder: http_400" in printed
    (kept,) = [line for line in _ledger(out) if line["louder.failed"] == "timeout"]
    assert main(["why", str(out), kept["key"]]) == 0
    assert re.search(r"louder\.failed +timeout", capsys.readouterr().out)
    assert [line["louder.failed"] for line in _ledger(out)].count(None) == 4


@pytest.mark.whole
def test_diff_says_that_the_step_changed_the_texts(own_folder, capsys):
    recipe, out, _ = made(own_folder)
    other = own_folder / "other"
    run(recipe, other, **LOCAL, overrides={"louder.prompts": ["third", "second"]})
    (change,) = diff(out, other)
    assert (change.rows, change.after) == (6, "kept, but changed: text by louder")


def test_a_manifest_of_a_stranger_may_hold_any_facts():
    manifest = {
        "generations": {"a": {}, "b": {}},
        "models": {"a": [{"generator": 3, "prompts": {"p": 4}}, {"model": ["x"]}, {"model": "m", "prompts": "no"}]},
    }
    assert writers(manifest) == [Writer("a", "3", ["m"], {"p": "4"}), Writer("b", "", [], {})]
