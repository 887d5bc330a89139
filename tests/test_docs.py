"""The recipes and commands in the documentation work."""

import base64
import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from tests.rows import captions
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata import catalog, exports
from vlmdata.recipe import load, parse
from vlmdata.shipped import PIPELINES
from vlmdata.sources.url_list import UrlList
from vlmdata.step import RecipeError

COOKBOOK = (Path(__file__).parent.parent / "docs" / "cookbook.md").read_text()
SOURCE = {"type": "url_list", "path": "urls.parquet"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", COOKBOOK, re.S)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(next(block for block in blocks("python") if block.startswith("# mine.py")))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mine", None)


@pytest.mark.parametrize("number", range(len(blocks("yaml"))))
def test_every_recipe_of_the_cookbook_is_valid(number, mine):
    assert parse({"source": SOURCE, **yaml.safe_load(blocks("yaml")[number])}).steps


def test_the_step_written_in_the_cookbook_drops_the_stated_rows(mine):
    step = parse({"source": SOURCE, "steps": [{"mine.NoShouting": {"max_share": 0.3}}]}).steps[0]
    done = step.run(captions(["BUY IT NOW", "a quiet caption"]))
    assert done["reason"].to_pylist() == ["max_share", None]
    assert done["drop"].to_pylist() == ["mine", None]


def test_the_two_files_of_chinese_clip_are_joined_as_check_suggests(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = base64.b64encode(picture()).decode()
    (tmp_path / "train_imgs.tsv").write_text(f"7\t{image}\n8\t{image}\n")
    texts = [{"text_id": 1, "text": "一只猫", "image_ids": [7, 9]}, {"text_id": 2, "text": "猫", "image_ids": [7]}]
    (tmp_path / "train_texts.jsonl").write_text("\n".join(json.dumps(text) for text in texts))
    for options in ({}, {"columns": ["id", "image"], "image": "image"}):
        with pytest.raises(RecipeError, match=r"train_imgs\.tsv has its captions in .*train_texts\.jsonl\. Join both files"):
            UrlList(path="train_imgs.tsv", **options).check()
    UrlList(path="train_imgs.tsv", columns=["id", "image"], image="image", caption="").check()
    exec(next(block for block in blocks("python") if block.startswith("# join.py")), {})
    rows = read_all(UrlList(path="train.jsonl", image="image")).to_pylist()
    found = [(row["texts"][1]["text"], row["texts"][1]["alternatives"], row["images"][0]["width"]) for row in rows]
    assert found == [("一只猫", ["猫"], 8), ("", None, 8)]


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("build/*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_that_ships_loads_and_opens_with_a_comment(path):
    assert path.read_text().startswith("# ")
    assert load(path.stem).steps


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size.min_sid": 3}, "ImageSize has no parameter 'min_sid'. Did you mean 'min_side'?"),
        ({"image_size.min_side": "wide"}, "ImageSize.min_side = 'wide'"),
        ({"imagesize.min_side": 3}, "Did you mean 'image_size'?"),
        ({"shards.sample": 3}, "Did you mean 'samples'?"),
        ({"source.type": "urllist"}, "there is no source 'urllist'. Did you mean 'url_list'?"),
        ({"part_rows": 0}, "part_rows must be an integer of at least 1, not 0"),
    ],
)
def test_a_mistake_in_a_recipe_is_reported_in_one_line_with_the_fix(changes, message):
    with pytest.raises(RecipeError) as caught:
        load("captions", changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_step_that_reads_a_value_without_a_measurement_is_refused():
    with pytest.raises(RecipeError, match="top_fraction reads the column 'clip_scores'"):
        parse({"source": SOURCE, "steps": [{"top_fraction": {"score": "clip_scores", "fraction": 0.3}}]})


def test_two_steps_with_the_same_name_need_a_label():
    with pytest.raises(RecipeError, match="Give this step a `label`"):
        parse({"source": SOURCE, "steps": ["text_length", "text_length"]})


def test_the_commands_in_contributing_exist():
    root = Path(__file__).parent.parent
    text = (root / "CONTRIBUTING.md").read_text()
    paths = {word for word in re.findall(r"tests/[\w/*.]+", text) if not word.endswith(".")}
    assert len(paths) > 15 and not [path for path in paths if not list(root.glob(path))]
    makefile = (root / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", text):
        assert f"\n{target}:" in makefile, target


@pytest.mark.parametrize("page", ["cli.md", "cookbook.md"])
def test_no_line_of_code_on_a_page_for_newcomers_is_wider_than_a_browser_shows(page):
    text = (Path(__file__).parent.parent / "docs" / page).read_text()
    code = re.findall(r"^```.*?^```|^ {4}[^\n]*$", text, re.M | re.S)
    assert [line for block in code for line in block.splitlines() if len(line) > 108] == []


def test_every_reason_in_the_table_of_hostile_input_exists():
    text = (Path(__file__).parent.parent / "docs" / "hostile.md").read_text()
    named = set(re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)`", text))
    words = {
        word
        for path in (Path(__file__).parent.parent / "vlmdata").rglob("*.py")
        for word in re.findall(r"\w+", path.read_text())
    }
    # `wrong_` and `page_` are prefixes of the reasons
    assert [reason for reason in sorted(named) if reason not in words and reason.partition("_")[2] not in words] == []


def test_the_page_of_sources_lists_every_source():
    text = (Path(__file__).parent.parent / "docs" / "sources.md").read_text()
    table = text.partition("| source | reads |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(catalog.names("sources"))


def test_the_page_of_formats_lists_every_export_and_a_source_that_exists():
    text = (Path(__file__).parent.parent / "docs" / "formats.md").read_text()
    table = text.partition("| read back with |\n")[2].partition("\n\n")[0]
    found = re.findall(r"^\| `(\w+)` \|.*\| `(\w+)` \|$", table, re.MULTILINE)
    assert sorted(name for name, _ in found) == exports.names()
    assert {source for _, source in found} <= set(catalog.names("sources"))


ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_between_pages_leads_to_a_heading_of_the_file_on_github(page):
    links = re.findall(r"\]\(([\w./-]+\.md)?(?:#([\w-]+))?\)", page.read_text())
    broken = []
    for name, anchor in links:
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append((name, anchor))
    assert broken == []
