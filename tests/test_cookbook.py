"""The commands and recipes of docs/cookbook.md run, on small data of the kinds that each section describes.

`push` runs against a stand-in of the Hub in test_push.py, and the programs of other projects in tests/peers.
"""

import base64
import json
import re
import shlex
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import yaml
from PIL import Image

from tests.exporting.made import IMAGE, caption, chat, document, make_dataset
from tests.fixtures import fixture
from tests.generators.written_models import write_model
from tests.servers import LoopbackServer, reply
from tests.test_docs import COOKBOOK, blocks
from vlmdata.cli import main
from vlmdata.demo.recipe import HERE
from vlmdata.engine.output.manifest import load_manifest
from vlmdata.engine.store.folder_store import LocalStore

pytestmark = pytest.mark.whole

PHOTOS = sorted(fixture("A_captioned/coco_free_licence").glob("*.jpg"))
LISTED = list(map(json.loads, (PHOTOS[0].parent / "manifest.jsonl").read_text().splitlines()))
CAPTIONS = {line["image"]: line["captions"] for line in LISTED}
MODEL = f"local-dir:{HERE / 'clip'}"  # in place of published weights
COMMANDS = {  # title of a section -> its commands
    title: [shlex.split(line.replace("\\\n", " "), comments=True) for line in lines]
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", COOKBOOK, re.M | re.S)
    if (lines := re.findall(r"^    (vlmdata (?:.*\\\n)*.*)$", text, re.M)) and "push" not in text.split()
}
OWN = ["download.allowed_hosts=[127.0.0.1]", "download.retries=0", "download.contact=a@b.org"]  # the server is on this machine


@pytest.fixture(autouse=True)
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackServer]:
    """Serve the photos, and write urls.parquet, their list, to the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    with LoopbackServer() as server:
        rows: dict[str, list[Any]] = {"url": [], "caption": []}
        for photo in PHOTOS:
            server.routes[f"/{photo.name}"] = reply(photo.read_bytes(), headers={"Content-Type": "image/jpeg"})
            rows["url"].append(server.url(f"/{photo.name}"))
            rows["caption"].append(CAPTIONS[photo.name][0])
        scores = np.linspace(0.2, 0.4, len(PHOTOS)).tolist()
        datasets.Dataset.from_dict({**rows, "clip_l14_similarity_score": scores, "pwatermark": [0.1] * len(PHOTOS)}).to_parquet(
            "urls.parquet"
        )
        yield server


def kept(out: str) -> int:
    return load_manifest(LocalStore(Path(out)))["kept"]


def write_photos(folder: str) -> None:
    Path(folder).mkdir()
    for photo in PHOTOS:
        shutil.copy(photo, folder)
        (Path(folder) / f"{photo.stem}.txt").write_text(CAPTIONS[photo.name][0])
    shutil.copy(PHOTOS[0].parent / "manifest.jsonl", folder)


def prepare(title: str) -> None:
    """Write the user's files that a section names."""
    if "own pictures" in title:
        write_photos("photos")
    elif "Hugging Face dataset" in title:
        images = [{"bytes": photo.read_bytes(), "path": None} for photo in PHOTOS]
        rows = {"picture": images, "text": [CAPTIONS[photo.name][0] for photo in PHOTOS]}
        datasets.Dataset.from_dict(rows).cast_column("picture", datasets.Image()).save_to_disk("data")
    elif "Chats" in title:
        shutil.copytree(fixture("D_instruction/llava_demo"), "pictures")
        shutil.copy("pictures/demo/single_images.json", "chats.json")
    elif "saved pages" in title:
        shutil.copytree(fixture("B2_sites_with_images"), "site")
    elif title.startswith(("Find mistakes", "Try a recipe", "Nothing")):
        steps = ["text_length", {"download": {}}, "resize", {"image_size": {"min_side": 100}}]
        Path("my.yaml").write_text(json.dumps({"source": {"type": "url_list", "path": "urls.parquet"}, "steps": steps}))
    if title.startswith("Nothing"):
        assert main(["run", "my.yaml", *sets(OWN), "--local", "--workers", "1", "--out", "OUT"]) == 0
    if title.startswith(("Never", "Use a dataset", "Train with Megatron")):
        kinds = {
            "PAIRS": map(caption, range(4)),
            "TALKS": map(chat, range(4)),
            "PAGES": (document(n, ["a", IMAGE, "b"]) for n in range(4)),
            "OUT": map(caption, range(4)),
        }
        for name, samples in kinds.items():
            layout = "captions" if name in ("PAIRS", "OUT") else "documents"
            make_dataset(Path(name), samples, layout=layout, per_shard=2)


def sets(settings: list[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


@pytest.mark.parametrize("title", list(COMMANDS))
def test_the_commands_of_a_section_run_one_after_the_other(title):
    prepare(title)
    outs = set()
    for program, verb, *words in COMMANDS[title]:
        more: list[str] = []
        if verb in ("run", "check") and words[0] in ("captions", "my.yaml"):
            more = sets(OWN + ([f"clip_score.model={MODEL}", "clip_score.min_score=-1"] if words[0] == "captions" else []))
        if verb == "run":
            more += ["--workers", "1", *([] if "--local" in words else ["--local"])]
            outs.add(words[words.index("--out") + 1])
        assert (program, main([verb, *words, *more])) == ("vlmdata", 0), (verb, words)
    assert all(kept(out) for out in outs)


def write_references() -> None:
    """Write the evaluation sets and block lists that recipes name. They match none of the photos."""
    (Path("eval/questions")).mkdir(parents=True)
    Path("eval/questions/all.txt").write_text(
        "Which of these eleven words does no caption here ever contain, and why is it so?\n"
    )
    Path("eval/images").mkdir()
    Image.effect_noise((64, 64), 90).save("eval/images/noise.png")
    with tarfile.open("eval/coco.tar", "w") as tar:
        tar.add("eval/images/noise.png", "1.png")
        tar.add("eval/questions/all.txt", "1.txt")
    Path("optout.txt").write_text("no.example\n")
    Path("known.txt").write_text("0" * 64 + "\n")
    Path("hashes.csv").write_text("f" * 64 + "\n")


@pytest.mark.parametrize("number", range(len(blocks("yaml"))))
def test_every_recipe_of_the_page_builds_a_dataset(number, tmp_path, monkeypatch):
    tree = {"source": {"type": "url_list", "path": "urls.parquet"}, **yaml.safe_load(blocks("yaml")[number])}
    for step in tree["steps"]:
        for parameters in step.values() if isinstance(step, dict) else ():
            if "clip_score" in step or "model" in parameters:
                parameters["model"] = MODEL
            if "generator" in parameters:
                parameters["generator"] = {"hf": {"model": str(write_model("LLaVA 1.5", tmp_path / "captioner"))}}
                parameters["max_tokens"] = 8
    write_references()
    if tree["source"]["type"] == "webdataset":
        write_photos("photos")
        for out in tree["source"]["path"]:
            words = ["run", "captions_folder", *sets(["source.path=photos"]), "--local", "--workers", "1", "--out", out]
            assert main(words) == 0
    elif tree["source"]["path"] == "train.jsonl":
        texts = ["一只猫坐在桌子旁边的椅子上", "猫"]
        rows = (
            {"image_id": n, "image": base64.b64encode(p.read_bytes()).decode(), "caption": texts} for n, p in enumerate(PHOTOS)
        )
        Path("train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "mine.py").write_text(next(block for block in blocks("python") if block.startswith("# mine.py")))
    monkeypatch.syspath_prepend(tmp_path)
    Path("recipe.yaml").write_text(yaml.safe_dump(tree))
    own = sets(OWN) if "download" in tree["steps"] else []
    assert main(["check", "recipe.yaml", *own]) == 0
    assert main(["run", "recipe.yaml", *own, "--local", "--workers", "1", "--out", "OUT"]) == 0
    assert kept("OUT")


def test_the_loops_that_read_a_dataset_see_every_sample():
    write_photos("photos")
    settings = sets(["source.path=photos", "shards.samples=6"])
    assert main(["run", "captions_folder", *settings, "--local", "--workers", "1", "--out", "OUT"]) == 0
    loops = [block for block in blocks("python") if "OUT" in block]
    assert len(loops) == 2
    for block in loops:
        head, loop, body = block.partition("    sample[")
        seen: dict[str, Any] = {"seen": []}
        exec(f"{head}    seen.append(sample['__key__'])\n{loop}{body}", seen)
        assert len(set(seen["seen"])) == len(PHOTOS)
        assert len(seen["data"]) == len(PHOTOS) if "data" in seen else "stream" in block
