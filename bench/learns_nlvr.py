"""Does the trainer learn to look closely? Train on questions about NLVR's drawn scenes that are answered in words.

    python -m bench.learns_nlvr [--data ../shared/data/D_instruction/nlvr] [--steps 1000] [--curve FILE.svg]

A scene has three boxes. A sample is one box and one question about it, so that no answer can be inferred from another sample.
Questions are made from `structured_rep`: how many objects there are, of a colour or of a shape; whether there is one of some
kind; and which colour or shape all have. Scenes are split by the identifier before the dash, so that the four scenes written
for one sentence stay together. The output is the exact match on held-out boxes of the model, of the model with grey images, and
of the commonest answer to each question.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import torch

from bench import curves
from bench.inputs.real_data import ROOT
from bench.inputs.tars import document_sample, jpeg, write_tar
from vlmdata_train.convert.restore import restore
from vlmdata_train.data import open_feed
from vlmdata_train.distributed import Ranks
from vlmdata_train.loop.answers import generate_answers
from vlmdata_train.loop.held_out import held_out_loss
from vlmdata_train.loop.loop import run_training
from vlmdata_train.loop.train_step import ModelWithLoss
from vlmdata_train.recipe_file import parse

CPU = Ranks(0, 1, torch.device("cpu"))
COLOURS = {"Yellow": "yellow", "Black": "black", "#0099ff": "blue"}
SHAPES = ("square", "circle", "triangle")
BOX_PX, GAP_PX = 100, 50  # a file shows three boxes of 100 x 100 pixels, separated by grey
RECIPE = {
    "stage": "instruct",
    "model": {
        "encoder": {"open_clip": {
            "config": {"width": 96, "layers": 3, "head_width": 24, "patch_size": 8, "image_size": 64},
            "layer": -1, "norm": True,
        }},
        "abstractor": {"pixel_shuffle": {"factor": 2, "layers": 2}},
        "language": {"hf_causal": {"config": {
            "model_type": "llama", "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True,
        }}},
    },
    "tokenizer": {"vocabulary": 400},
    "lr": 1e-3,
    "batches": {"tokens": 2048, "sample_tokens": 64},
    "optimizer": {"weight_decay": 0.05, "warmup": 0.05, "beta2": 0.95},
    "checkpoints": {"every": 10**6},
    "logs": {"every": 50},
}  # fmt: skip


def questions(box: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return every question about a box with its answer."""
    colours = Counter(COLOURS[o["color"]] for o in box)
    shapes = Counter(o["type"] for o in box)
    kinds = {(COLOURS[o["color"]], o["type"]) for o in box}
    asked = [("How many objects are there?", str(len(box)))]
    asked += [(f"How many {c} objects are there?", str(colours[c])) for c in COLOURS.values()]
    asked += [(f"How many {s}s are there?", str(shapes[s])) for s in SHAPES]
    asked += [(f"Is there a {c} {s}?", "yes" if (c, s) in kinds else "no") for c in COLOURS.values() for s in SHAPES]
    if len(colours) == 1:
        asked.append(("What colour are they?", next(iter(colours))))
    if len(shapes) == 1:
        asked.append(("What shape are they?", next(iter(shapes))))
    return asked


def boxes(root: Path) -> Iterator[tuple[str, list[dict[str, Any]], bytes]]:
    """Yield each box of each scene as the scene's identifier, the objects of the box, and its picture as a JPEG file."""
    folder = root / "nlvr/dev"
    for line in (folder / "dev.json").read_text().splitlines():
        facts = json.loads(line)
        path = folder / "images" / facts["directory"] / f"dev-{facts['identifier']}-0.png"  # in the order of structured_rep
        pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        for i, box in enumerate(facts["structured_rep"]):
            start = i * (BOX_PX + GAP_PX)
            yield f"{facts['identifier']}-{i}", box, jpeg(pixels[:, start : start + BOX_PX])


def write_split(root: Path, folder: Path, asked: int) -> tuple[int, int]:
    """Write all questions about the training boxes and `asked` held-out questions. Return the number of each."""
    learn, held, rng = [], [], random.Random(0)
    for name, box, image in boxes(root):
        is_held = int(name.split("-")[0]) % 6 == 0
        for number, pair in enumerate(questions(box)):
            sample = document_sample(f"{name}-{number}", [image, *pair], ["user", "user", "assistant"])
            (held if is_held else learn).append(sample)
    rng.shuffle(held)
    write_tar(folder / "learn/00000.tar", learn)
    write_tar(folder / "held/00000.tar", held[:asked])
    return len(learn), len(held[:asked])


def last_question(sample: dict[str, Any]) -> str:
    """Return the question of a held-out sample."""
    return next(text for text in json.loads(sample["json"])["texts"] if text)


def exact(pairs: list[tuple[str, str]]) -> float:
    """Return the share of pairs whose two strings are equal."""
    return sum(a == b for a, b in pairs) / len(pairs)


def main() -> None:
    """Train, generate answers and print the results."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=ROOT / "D_instruction/nlvr")
    options.add_argument("--steps", type=int, default=1000)
    options.add_argument("--asked", type=int, default=600)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--curve", type=Path, help="SVG file to draw the losses to")
    choice = options.parse_args()
    torch.set_num_threads(choice.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        learn, held = write_split(choice.data, folder, asked=choice.asked)
        recipe = parse({
            **RECIPE, "data": str(folder / "learn"), "out": str(folder / "run"), "steps": choice.steps,
            "held_out": {"path": str(folder / "held"), "every": max(choice.steps // 6, 1), "samples": 200},
        })  # fmt: skip
        started, cpu = time.time(), time.process_time()
        result = run_training(recipe)
        seconds, cpu = time.time() - started, time.process_time() - cpu
        model, _ = restore(result.checkpoint, "cpu")
        feed = open_feed.feed_of(recipe, model, str(folder / "held"), CPU)
        samples = list(open_feed.some_samples(feed.reading, str(folder / "held"), held))
        asked = {sample["__key__"]: last_question(dict(sample)) for sample in samples}
        seen = list(generate_answers(model, feed.reading, samples, max_new_tokens=6))
        blind = list(generate_answers(model, feed.reading, samples, max_new_tokens=6, blank=True))
        truths = defaultdict(Counter)
        for a in seen:
            truths[asked[a.key]][a.truth] += 1
        commonest = {question: counts.most_common(1)[0][0] for question, counts in truths.items()}
        print(f"{learn} questions to learn from, {held} held-out questions")
        print(f"{choice.steps} steps, {seconds:.0f} s, {cpu:.0f} CPU s")
        print("held-out loss: " + ", ".join(
            f"{r['step']}: {r['loss']:.3f}" for line in (folder / "run/log.jsonl").read_text().splitlines()
            if (r := json.loads(line))["kind"] == "held_out"))  # fmt: skip
        print(f"{'questions':<12} {'n':>5} {'model':>8} {'grey':>8} {'commonest':>10}")
        for kind, words in (("all", ""), ("how many", "How many"), ("is there", "Is there"), ("which", "What")):
            own = [i for i, a in enumerate(seen) if asked[a.key].startswith(words)]
            if not own:
                continue
            rows = [
                [(seen[i].truth, seen[i].given) for i in own],
                [(blind[i].truth, blind[i].given) for i in own],
                [(seen[i].truth, commonest[asked[seen[i].key]]) for i in own],
            ]
            print(f"{kind:<12} {len(own):>5} {exact(rows[0]):>8.1%} {exact(rows[1]):>8.1%} {exact(rows[2]):>10.1%}")
        grey = held_out_loss(ModelWithLoss(model, chunk=2048, autocast=False), feed, 200, CPU, blank=True).loss
        print(f"held-out loss with grey images: {grey:.3f}")
        if choice.curve:
            title = "Loss per answer token: questions about NLVR's boxes"
            levels = {"held out, grey": grey}
            curves.draw(choice.curve, title, curves.losses(folder / "run/log.jsonl"), levels, top=1.0)


if __name__ == "__main__":
    main()
