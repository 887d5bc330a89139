"""The recipes for a beginner's own data work as a beginner uses them: `new`, `check`, `run`, `show`, then a loop that reads."""

import io
import json
import shlex
import shutil
from pathlib import Path

import datasets
import pytest
from PIL import Image

from tests.fixtures import fixture
from tests.real_data import real_data
from vlmdata import stream
from vlmdata.cli import main
from vlmdata.demo.recipe import HERE, figures
from vlmdata.engine.output.manifest import load_manifest
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.shipped import about, build_recipes

pytestmark = pytest.mark.whole

FIGURES = HERE / "figures"
PHOTOS = fixture("A_captioned/coco_free_licence")
BOOKS = fixture("B2_sites_with_images")
SIZE = (224, 168)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(recipe: str, capsys: pytest.CaptureFixture[str], *settings: str) -> dict:
    """Build OUT as `vlmdata new` says, each command with `--set` for the settings, and return the manifest."""
    sets = [word for setting in settings for word in ("--set", setting)]
    assert main(["new", recipe]) == 0
    assert main(["check", f"{recipe}.yaml", *sets]) == 0
    assert main(["run", f"{recipe}.yaml", *sets, "--local", "--workers", "1", "--out", "OUT"]) == 0
    capsys.readouterr()
    assert main(["show", "OUT"]) == 0
    manifest = load_manifest(LocalStore(Path("OUT")))
    assert capsys.readouterr().out.startswith(f"OUT: {manifest['kept']:,} of {manifest['rows']:,} rows kept")
    return manifest


def dropped(manifest: dict) -> dict[str, int]:
    return {f"{line['step']}: {line['reason']}": line["rows"] for line in manifest["dropped"]}


def read() -> list[dict]:
    samples = list(stream("OUT", seed=0))
    assert len({sample["__key__"] for sample in samples}) == len(samples)
    return samples


def photo(number: int) -> bytes:
    """Return one of twelve real photos."""
    return sorted(PHOTOS.glob("*.jpg"))[number].read_bytes()


@pytest.mark.parametrize("width", [40, 80, 300])
def test_new_lists_every_recipe_with_its_purpose_and_what_to_set(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["new"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= min(width, 100)
    expected = [f"{path.stem} {about(path).summary} set {', '.join(about(path).settings)}" for path in build_recipes()]
    assert " ".join(printed.split()).startswith(" ".join(expected)) and all("set source.path" in one for one in expected)


def test_the_help_of_new_lists_every_recipe(capsys):
    assert main(["new", "--help"]) == 0
    helped = " ".join(capsys.readouterr().out.split())
    assert all(f"{path.stem} {about(path).summary}" in helped for path in build_recipes())


def test_new_prints_the_commands_for_the_copy(capsys, here):
    assert main(["new", "chats", "my chats.yaml"]) == 0
    first, check, run = capsys.readouterr().out.splitlines()
    sets = ["--set", "source.path=chats.json", "--set", "source.images=images"]
    assert first == "my chats.yaml written. Set source.path, source.images in it or as below, change what you like, and run"
    assert shlex.split(check) == ["vlmdata", "check", "my chats.yaml", *sets]
    assert shlex.split(run) == ["vlmdata", "run", "my chats.yaml", *sets, "--out", "OUT"]
    assert main(["new", "my chats.yaml", "copy.yaml"]) == 0
    assert "vlmdata run copy.yaml --out OUT" in capsys.readouterr().out
    assert (here / "copy.yaml").read_bytes() == (here / "my chats.yaml").read_bytes()


@pytest.mark.parametrize("recipe", ["captions", "captions_folder", "captions_hf", "chats", "pages", "pages_html"])
def test_a_recipe_without_data_says_which_setting_to_set(recipe, capsys):
    assert main(["check", recipe]) == 2
    captured = capsys.readouterr()
    mistakes = [line for line in captured.err.splitlines() if not line.startswith("note: ")]
    assert all(line.startswith("vlmdata: ") for line in mistakes) and "Set source.path to " in captured.err


def test_chats_keeps_the_turns_and_drops_what_cannot_be_shown(here, capsys):
    shutil.copytree(fixture("D_instruction/llava_demo"), here / "pictures")
    talks = json.loads((here / "pictures/demo/single_images.json").read_text())
    (here / "pictures/broken.jpg").write_bytes(photo(0)[:3000])
    Image.new("RGB", (900, 9)).save(here / "pictures/strip.png")
    asked = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "A line."}]
    extra = [{"image": name, "conversations": asked} for name in ("broken.jpg", "gone.jpg", "strip.png")]
    alone = {"conversations": [{"from": "human", "value": "Say yes."}, {"from": "gpt", "value": "Yes."}]}
    (here / "chats.json").write_text(json.dumps([*talks, talks[0], *extra, alone]))
    manifest = made("chats", capsys, "source.path=chats.json", "source.images=pictures")
    assert (manifest["rows"], manifest["kept"]) == (8, 4)
    assert dropped(manifest) == {
        "dedupe_exact: same_row": 1, "source: truncated": 1, "source: no_file": 1, "image_size: min_side": 1,
    }  # fmt: skip
    found = {}
    for sample in read():
        facts = json.loads(sample["json"])
        assert facts["roles"][-1] == "assistant" and ("0.jpg" in sample) == any(facts["metadata"])
        found[" ".join(text for text in facts["texts"] if text)] = facts["roles"]
    assert found == {
        "Is there a tower with four blocks? Yes": ["user", "user", "assistant"],
        "How many blocks are in the picture? 6": ["user", "user", "assistant"],
        "Which box holds a black square? The third one": ["user", "user", "assistant"],
        "Say yes. Yes.": ["user", "assistant"],
    }
    assert main(["export", "OUT", "--to", "messages", "MESSAGES"]) == 0
    lines = [json.loads(line) for line in (here / "MESSAGES/messages.jsonl").read_text().splitlines()]
    assert sorted(line["messages"][-1]["content"] for line in lines) == ["6", "The third one", "Yes", "Yes."]
    assert all((here / "MESSAGES" / name).is_file() for line in lines for name in line.get("images", ()))


def test_chats_in_openais_form_need_another_type(here, capsys):
    folder = fixture("D_instruction/messages_demo")
    manifest = made("chats", capsys, f"source.path={folder}/mllm_demo.json", f"source.images={folder}")
    kept = {sample["json"] for sample in read()}
    shutil.rmtree(here / "OUT")
    (here / "chats.yaml").unlink()
    source = f"source={{type: messages, path: {folder}/mllm_demo.json, folder: {folder}}}"
    assert made("chats", capsys, source)["kept"] == manifest["kept"] == 4
    assert {sample["json"] for sample in read()} == kept


ODD = ["plain.jpg", "ein Bär — ours.JPG", "emoji 🐻.jpeg", "quote'\"&%20#;.jpg", "a.b.c.jpg", "-set.jpg", "新しい写真.jpg"]


def test_captions_folder_reads_three_kinds_of_sidecars_in_nested_folders(here, capsys):
    expected = {}
    for number, name in enumerate(ODD):
        folder = here / "photos" / ("" if number == 0 else "deep/er level/" * (number % 3 + 1))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(photo(number))
        stem, text = name.rpartition(".")[0], f"the caption of photo {number}, “ä” & 猫"
        if number % 3 == 0:
            (folder / f"{stem}.txt").write_text(f"{text}\n")
        elif number % 3 == 1:
            (folder / f"{name}.caption").write_text(text)
        else:
            (folder / f"{stem}.json").write_text(json.dumps({"caption": text, "licence": "CC BY 2.0"}))
        expected[text] = number
    (here / "photos/bare.jpg").write_bytes(photo(7))  # no caption
    for name, text, number in [("IMG_0042.jpg", "IMG_0042.JPG", 8), ("label.jpg", "bear", 9)]:
        (here / "photos" / name).write_bytes(photo(number))
        (here / "photos" / name.replace(".jpg", ".txt")).write_text(text)
    (here / "photos/copy.jpg").write_bytes(photo(0))
    (here / "photos/copy.txt").write_text("another caption of photo 0")
    (here / "photos/lost.txt").write_text("a caption without a photo")
    manifest = made("captions_folder", capsys, "source.path=photos")
    assert (manifest["rows"], manifest["kept"]) == (11, 7)
    assert dropped(manifest) == {
        "source: no_caption": 1, "alt_junk: file_name": 1, "text_length: min_words": 1, "dedupe_exact: same_sha256": 1,
    }  # fmt: skip
    assert manifest["other_records"] == {"text_without_image": 1}
    found = {}
    for sample in read():
        facts = json.loads(sample["json"])
        texts = {sample["txt"].decode(), *facts.get("alternatives", ())}
        (text,) = texts & expected.keys()
        found[text] = texts - {text}
        whole = Image.open(io.BytesIO(photo(expected[text])))
        assert Image.open(io.BytesIO(sample["jpg"])).size == whole.size == (facts["width"], facts["height"])
        assert facts.get("licence") == ("CC BY 2.0" if expected[text] % 3 == 2 else None)
    assert found == {text: {"another caption of photo 0"} if number == 0 else set() for text, number in expected.items()}


def test_a_built_captions_folder_comes_back_from_its_exported_files(here, capsys):
    (here / "photos").mkdir()
    for number in range(3):
        (here / f"photos/{number}.jpg").write_bytes(photo(number))
        (here / f"photos/{number}.txt").write_text(f"the photo number {number}")
    made("captions_folder", capsys, "source.path=photos")
    first = {(sample["txt"], Image.open(io.BytesIO(sample["jpg"])).size) for sample in read()}
    assert main(["export", "OUT", "--to", "folder", "FILES"]) == 0
    shutil.rmtree(here / "OUT")
    (here / "captions_folder.yaml").unlink()
    assert made("captions_folder", capsys, "source.path=FILES")["kept"] == 3
    assert {(sample["txt"], Image.open(io.BytesIO(sample["jpg"])).size) for sample in read()} == first


@pytest.mark.parametrize("form", ["save_to_disk", "parquet", "streamed"])
def test_captions_hf_reads_a_folder_with_an_image_and_a_caption_column(form, here, capsys):
    chosen = figures()[:8]
    rows = {
        "picture": [{"bytes": (FIGURES / one["file"]).read_bytes(), "path": one["file"]} for one in [*chosen, chosen[0]]],
        "text": [*(figure["caption"] for figure in chosen), "the same figure with another caption"],
        "book": [figure["book"] for figure in [*chosen, chosen[0]]],
    }
    data = datasets.Dataset.from_dict(rows).cast_column("picture", datasets.Image())
    if form == "save_to_disk":
        data.save_to_disk(str(here / "data"))
    else:
        (here / "data").mkdir()
        data.to_parquet(str(here / "data/train.parquet"))
    settings = ["source.path=data", "source.image=picture", "source.caption=text"]
    manifest = made("captions_hf", capsys, *settings, *(["source.streaming=true"] if form == "streamed" else []))
    assert (manifest["rows"], manifest["kept"]) == (9, 8)
    assert dropped(manifest) == {"dedupe_exact: same_sha256": 1}
    captions = {figure["caption"]: figure for figure in chosen}
    for sample in read():
        facts = json.loads(sample["json"])
        texts = {sample["txt"].decode(), *facts.get("alternatives", ())}
        figure = captions.pop(next(text for text in texts if text in captions))
        assert facts["book"] == figure["book"]
        assert Image.open(io.BytesIO(sample["jpg"])).size == Image.open(FIGURES / figure["file"]).size
        assert (len(texts) == 2) == (figure is chosen[0])
    assert captions == {}


def test_captions_hf_names_the_column_that_is_meant(here, capsys):
    datasets.Dataset.from_dict({"image": [str(FIGURES / figures()[0]["file"])], "captoin": ["a figure of a book"]}).cast_column(
        "image", datasets.Image()
    ).save_to_disk(str(here / "data"))
    assert main(["check", "captions_hf", "--set", "source.path=data"]) == 2
    assert "there is no column 'caption'. Did you mean 'captoin'?" in capsys.readouterr().err


def test_pages_html_keeps_texts_and_pictures_in_reading_order(here, capsys):
    shutil.copytree(BOOKS, here / "site")
    (here / "site/prose.html").write_text(f"<h1>No picture</h1><p>{'This page has only words. ' * 20}</p>")
    manifest = made("pages_html", capsys, "source.path=site")
    assert (manifest["rows"], manifest["kept"]) == (4, 3)
    assert dropped(manifest) == {"document_quality: min_images": 1}
    counts = {}
    for sample in read():
        facts = json.loads(sample["json"])
        images = [place["file"] for place in facts["metadata"] if place]
        assert images == sorted(name for name in sample if name.endswith(".jpg")) and images
        assert len(facts["texts"]) == len(facts["images"]) == len(facts["metadata"])
        assert all((text is None) != (place is None) for text, place in zip(facts["texts"], facts["metadata"], strict=True))
        counts[facts["url"].rpartition("/")[2]] = len(images)
    assert counts == {"18304-h.htm": 4, "52834-h.htm": 3, "Gulls_&_Friends.html": 1}


def test_chats_on_a_published_demo_of_conversations(capsys):
    folder = real_data("D_instruction/llamafactory_mllm_demo")
    manifest = made("chats", capsys, f"source.path={folder}/mllm_demo.json", f"source.images={folder}")
    assert manifest["kept"] == manifest["rows"] == len(json.loads((folder / "mllm_demo.json").read_text())) == len(read())


@pytest.mark.slow
def test_pages_html_on_the_pages_of_books_and_an_encyclopedia(capsys):
    manifest = made("pages_html", capsys, f"source.path={real_data('B2_sites_with_images')}")
    assert (manifest["rows"], manifest["kept"], len(read())) == (88, 63, 63)
    assert dropped(manifest) == {
        "document_quality: min_images": 23, "document_quality: max_char_repetition": 1, "source: empty_page": 1,
    }  # fmt: skip


def test_captions_folder_on_real_photos_with_a_table_of_captions(capsys):
    folder = real_data("A_captioned/coco_free_licence")
    settings = [f"source.path={folder}", "source.table=manifest.jsonl", "source.file=image", "source.caption=captions"]
    manifest = made("captions_folder", capsys, *settings)
    assert (manifest["rows"], manifest["kept"]) == (111, 111)
    assert all(len(json.loads(sample["json"])["alternatives"]) == 4 for sample in read())
