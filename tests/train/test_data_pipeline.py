"""The steps of any pipeline turn conversations with images on the web into instruction shards, and the trainer reads these."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.inputs.tars import jpeg
from tests.engine.site import download, ledger
from tests.servers import LoopbackServer, reply
from tests.train.runs import made_model, tiny_recipe
from tests.train.shards import drawing
from vlmdata import run
from vlmdata_train.data import open_feed
from vlmdata_train.distributed import Ranks
from vlmdata_train.loop.loop import run_training
from vlmdata_train.model.model import VisionLanguageModel

pytestmark = pytest.mark.whole

JPEG = {"Content-Type": "image/jpeg"}
COLOURS = ("red", "green", "blue", "yellow")


def as_llava(image: str | None, *turns: str) -> dict[str, Any]:
    """Return a record in LLaVA's form."""
    values = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(turns)]
    return {"conversations": values, **({"image": image} if image else {})}


def as_messages(image: str | None, *turns: str) -> dict[str, Any]:
    """Return a record of chat messages whose image is an address in a part of the first turn."""
    messages: list[dict[str, Any]] = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(turns)]
    if image:
        messages[0]["content"] = [
            {"type": "image_url", "image_url": {"url": image}},
            {"type": "text", "text": turns[0].replace("<image>", "").strip()},
        ]
    return {"messages": messages}


def build(folder: Path, web: LoopbackServer, kind: str) -> Path:
    """Build shards of 13 conversations: 8 about an image on the web, 2 of text, 2 about a missing image, 1 that does not
    fit."""
    record = as_llava if kind == "llava_json" else as_messages
    records = []
    for colour in COLOURS:  # two conversations about each image
        address = web.url(f"/{colour}.jpg")
        records.append(record(address, "<image>\nWhat colour is it?", colour, "And the shape?", "a square"))
        records.append(record(address, "<image>\nIs it round?", "no"))
    records += [record(None, f"What is {n} and {n}?", str(2 * n)) for n in (1, 2)]
    records += [record(web.url("/lost.jpg"), "<image>\nWhere?", "nowhere")] * 2
    records.append(as_llava(web.url("/red.jpg"), "<image><image> both?", "no") if kind == "llava_json" else {"messages": []})
    (folder / "chats.json").write_text(json.dumps(records))
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps({
        "source": {"type": kind, "path": str(folder / "chats.json"), "joined": True},
        "steps": [download(timeout_s=200, connect_timeout_s=200), {"resize": {"size": 32}}],
        "shards": {"samples": 4, "layout": "documents"}, "part_rows": 4,
    }))  # fmt: skip
    run(recipe, folder / "out", local=True, workers=1)
    return folder / "out"


@pytest.mark.parametrize("kind", ["llava_json", "messages"])
def test_conversations_with_web_images_become_prompts_with_their_pixels(tmp_path, kind):
    routes = {f"/{colour}.jpg": reply(jpeg(drawing(colour, "square", 48)), headers=JPEG) for colour in COLOURS}
    with LoopbackServer(routes) as web:
        out = build(tmp_path, web, kind)
        asked = [request.path for request in web.requests]
    assert all(asked.count(f"/{colour}.jpg") == 1 for colour in COLOURS)  # both conversations about an image are in one row
    outcomes = sorted(str(line["reason"]) for line in ledger(out))
    placeholders = "more_placeholders_than_images" if kind == "llava_json" else "no_turns"
    assert outcomes == sorted(["None"] * 6 + ["http_404", placeholders])

    recipe = tiny_recipe(str(out), tmp_path / "run", steps=2)
    ranks = Ranks(0, 1, torch.device("cpu"))
    model: VisionLanguageModel = made_model(recipe, recipe.model, ranks)
    batches = [batch for batch, _ in open_feed.feed_of(recipe, model, str(out), ranks)]
    texts, colours = [], set()
    for batch in batches:
        marks = batch.input_ids[0] == model.fusion.image_token_id
        for number in range(1, len(batch.keys) + 1):
            own = batch.segment_ids[0] == number
            texts.append(model.tokenizer.decode(batch.input_ids[0][own & ~marks]))
            assert int((own & marks).sum()) == (0 if "What is" in texts[-1] else 4)
        colours |= {tuple((tile[:, 16, 16] // 64).tolist()) for tile in batch.pixels}  # the middle of each picture
    assert len(texts) == 6 and len(colours) == 4
    for colour in COLOURS:
        (text,) = [text for text in texts if f"{colour}<|end|>" in text]
        assert text.count("<|user|>") == 3 and "Is it round?<|end|><|assistant|>no<|end|>" in text
    assert run_training(recipe).steps == 2
