"""Does the trainer learn to look? Train a small model from scratch on textbook figures and their captions.

    python -m bench.learns_captions [--data ../shared/data/A_captioned/openstax_small] [--steps 1100] [--curve FILE.svg]

Trains on nine tenths of the distinct figures and prints the loss on the held-out figures, during training and at the end. At
the end, the loss is also measured with each figure exchanged for another one, and with all figures grey. The captions stay the
same in these two cases, so the increase of the loss shows what the model had read from the pixels.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from bench import curves
from bench.inputs.real_data import ROOT
from bench.inputs.tars import write_tar
from vlmdata_train.convert.restore import restore
from vlmdata_train.data import open_feed
from vlmdata_train.data.feed import Feed
from vlmdata_train.distributed import Ranks
from vlmdata_train.loop.held_out import blanked
from vlmdata_train.loop.loop import run_training
from vlmdata_train.loop.train_step import MicroBatch, ModelWithLoss
from vlmdata_train.model.batch import Batch
from vlmdata_train.recipe_file import parse

CPU = Ranks(0, 1, torch.device("cpu"))
RECIPE = {
    "stage": "align",
    "model": {
        "encoder": {"open_clip": {
            "config": {"width": 128, "layers": 4, "head_width": 32, "patch_size": 16, "image_size": 96},
            "layer": -1, "norm": True,
        }},
        "language": {"hf_causal": {"config": {
            "model_type": "llama", "hidden_size": 160, "intermediate_size": 448, "num_hidden_layers": 4,
            "num_attention_heads": 5, "num_key_value_heads": 5, "tie_word_embeddings": True,
        }}},
    },
    "tokenizer": {"vocabulary": 2048},
    "lr": 1.5e-3,
    "batches": {"tokens": 1536, "sample_tokens": 84},
    "optimizer": {"weight_decay": 0.05, "warmup": 0.05, "beta2": 0.95},
    "checkpoints": {"every": 10**6},
    "logs": {"every": 20},
}  # fmt: skip


def figures(root: Path) -> Iterator[tuple[str, bytes, str]]:
    """Yield each distinct figure once, as the hash of its bytes, its bytes, and its caption or else its description."""
    seen = set()
    for file in sorted(root.glob("*/captions.jsonl")):
        for line in file.read_text().splitlines():
            facts = json.loads(line)
            data = (file.parent / facts["image"]).read_bytes()
            key = hashlib.sha256(data).hexdigest()[:16]
            text = facts["caption"] or facts["alt"]
            if key not in seen and text:
                seen.add(key)
                yield key, data, text


def write_split(root: Path, folder: Path) -> tuple[int, int]:
    """Write shards of the training figures and of the held-out tenth, chosen by hash. Return the number of each."""
    learn: list[dict[str, Any]] = []
    held: list[dict[str, Any]] = []
    for key, data, text in figures(root):
        sample = {"__key__": key, "jpg": data, "txt": text.encode(), "json": b"{}"}
        (held if int(key[:8], 16) % 10 == 0 else learn).append(sample)
    write_tar(folder / "learn/00000.tar", learn)
    write_tar(folder / "held/00000.tar", held)
    return len(learn), len(held)


def exchanged(batch: Batch) -> Batch:
    """Give each caption the figure of its neighbour in the batch."""
    assert isinstance(batch.pixels, torch.Tensor)
    return dataclasses.replace(batch, pixels=batch.pixels.roll(1, 0))


@torch.no_grad()
def losses_with(step: ModelWithLoss, feed: Feed, change: Callable[[Batch], Batch]) -> dict[str, tuple[float, int]]:
    """Return the summed caption loss and the number of tokens of each held-out figure, after `change` is applied to each
    batch."""
    losses = {}
    for batch, _ in feed:
        micro = MicroBatch.of(change(batch), CPU.device)
        for key, loss, tokens in zip(batch.keys, step(micro)[1].tolist(), micro.answers, strict=True):
            losses[key] = (loss, tokens)
    return losses


def main() -> None:
    """Train, evaluate and print the losses."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=ROOT / "A_captioned/openstax_small")
    options.add_argument("--steps", type=int, default=1100)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--curve", type=Path, help="SVG file to draw the losses to")
    choice = options.parse_args()
    torch.set_num_threads(choice.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        learn, held = write_split(choice.data, folder)
        recipe = parse({
            **RECIPE, "data": str(folder / "learn"), "out": str(folder / "run"), "steps": choice.steps,
            "held_out": {"path": str(folder / "held"), "every": max(choice.steps // 4, 1), "samples": 10**9},
        })  # fmt: skip
        started, cpu = time.time(), time.process_time()
        result = run_training(recipe)
        seconds, cpu = time.time() - started, time.process_time() - cpu
        curve = [json.loads(line) for line in (folder / "run/log.jsonl").read_text().splitlines()]
        model, _ = restore(result.checkpoint, "cpu")
        feed = open_feed.feed_of(recipe, model, str(folder / "held"), CPU)
        step = ModelWithLoss(model, chunk=2048, autocast=False)
        print(f"{learn} figures to learn, {held} held out, {choice.steps} steps, {seconds:.0f} s, {cpu:.0f} CPU s")
        print(f"{'step':>6} {'held-out loss':>14}")
        for record in curve:
            if record["kind"] == "held_out":
                print(f"{record['step']:>6} {record['loss']:>14.4f}")
        own = losses_with(step, feed, lambda batch: batch)
        print(f"{'figures':<12} {'held-out loss':>14} {'own figure better':>18}")
        levels = {}
        for what, change in (("as they are", lambda b: b), ("exchanged", exchanged), ("grey", blanked)):
            found = losses_with(step, feed, change)
            mean = sum(loss for loss, _ in found.values()) / sum(tokens for _, tokens in found.values())
            levels[f"held out, {what}"] = mean
            better = sum(own[key][0] < found[key][0] for key in own) / len(own)
            print(f"{what:<12} {mean:>14.4f} " + (f"{'-':>18}" if what == "as they are" else f"{better:>18.1%}"))
        if choice.curve:
            del levels["held out, as they are"]  # the curve itself ends at this value
            title = "Loss per caption token: textbook figures"
            curves.draw(choice.curve, title, curves.losses(folder / "run/log.jsonl"), levels, top=7.0)


if __name__ == "__main__":
    main()
