"""A tiny model learns to point: trained on boxes in a form, it finds a square in pictures that it has not seen."""

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.inputs.tars import document_sample, jpeg, write_tar
from vlmdata.grounding.spans import Grounding, Span, plain_boxes
from vlmdata_train.__main__ import main
from vlmdata_train.convert.checkpoint_folder import latest
from vlmdata_train.convert.restore import restore
from vlmdata_train.data.open_feed import feed_of, some_samples
from vlmdata_train.distributed import Ranks
from vlmdata_train.loop.answers import generate_answers
from vlmdata_train.loop.box_score import overlap
from vlmdata_train.loop.score import score

pytestmark = pytest.mark.slow

WIDTH, HEIGHT, STEP = 96, 48, 12  # pixels; the squares lie on a grid
COLOURS = {"red": (220, 30, 30), "blue": (40, 60, 220)}
RECIPE: dict[str, Any] = {
    "stage": "instruct",
    "model": {
        "encoder": {"open_clip": {
            "config": {"width": 64, "layers": 1, "head_width": 16, "patch_size": 8, "image_size": 64}, "layer": -1,
        }},
        "preprocessing": "pad",
        "abstractor": {"mlp": {"layers": 1}},
        "language": {"hf_causal": {"config": {
            "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True,
        }}},
        "grounding": "paligemma",
    },
    "lr": 3e-3, "steps": 320, "batches": {"tokens": 2560, "sample_tokens": 128},
    "optimizer": {"warmup": 0.05, "beta2": 0.95}, "checkpoints": {"every": 10**6},
    "logs": {"every": 50, "tensorboard": False}, "speed": {"device": "cpu", "threads": 1},
}  # fmt: skip


def scene(number: int, rng: random.Random) -> dict[str, Any]:
    """Return a conversation about one of two rectangles on grey, as vlmdata stores it."""
    pixels = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    asked = rng.choice(list(COLOURS))
    for colour in sorted(COLOURS, key=lambda name: name == asked):  # the one that is asked for is never covered
        width, height = rng.choice((2, 3)) * STEP, rng.choice((2, 3)) * STEP
        x, y = rng.randrange(0, WIDTH - width + 1, STEP), rng.randrange(0, HEIGHT - height + 1, STEP)
        pixels[y : y + height, x : x + width] = COLOURS[colour]
    box = [float(edge) for edge in (x, y, x + width, y + height)]
    question, name = f"Where is the {asked} square?", f"the {asked} square"
    answer = plain_boxes([(box[0] / WIDTH, box[1] / HEIGHT, box[2] / WIDTH, box[3] / HEIGHT)])
    start, end = question.index(name), question.index(name) + len(name)
    spans = Span(start, end, end, name, 0, ()), Span(0, 0, len(answer), answer, 0, (0,))
    groundings = [Grounding("refer", (span,)) for span in spans]
    sample = document_sample(f"{number:05d}", [jpeg(pixels), question, answer], ["user", "user", "assistant"])
    facts = json.loads(sample["json"])
    facts["metadata"][0] |= {"boxes": [box], "box_labels": [f"{asked} square"]}
    facts["grounding"] = [None, *(one.as_json() for one in groundings)]
    return {**sample, "json": json.dumps(facts).encode()}


def test_a_model_learns_to_find_a_square_by_its_colour(tmp_path: Path) -> None:
    rng = random.Random(0)
    write_tar(tmp_path / "learn/00000.tar", [scene(number, rng) for number in range(4000)])
    write_tar(tmp_path / "held/00000.tar", [scene(number, rng) for number in range(100)])
    recipe = tmp_path / "point.yaml"
    recipe.write_text(json.dumps({**RECIPE, "data": str(tmp_path / "learn"), "out": str(tmp_path / "run")}))
    assert main(["instruct", str(recipe)]) == 0
    checkpoint = latest(tmp_path / "run/checkpoints")
    assert checkpoint is not None
    model, trained = restore(checkpoint, "cpu")
    feed = feed_of(trained, model, str(tmp_path / "held"), Ranks(0, 1, next(model.parameters()).device))
    samples = list(some_samples(feed.reading, str(tmp_path / "held"), 100))
    answers = generate_answers(model, feed.reading, samples, max_new_tokens=40)
    blind = generate_answers(model, feed.reading, samples, max_new_tokens=40, blank=True)
    found, unseen = (score(each)["held"].boxes for each in (answers, blind))
    truths = [answer.truth for answer in answers]
    chance = [overlap(one, other, model.plan.grounding, 64, 64) or 0.0 for one, other in pairwise(truths)]
    mean = sum(answer.overlap or 0.0 for answer in answers) / len(answers)
    print(f"IoU >= 0.5: {found:.0%}, grey {unseen:.0%}; mean IoU {mean:.2f}, of another answer {sum(chance) / 99:.2f}")
    assert found is not None and unseen is not None
    assert mean > 2 * sum(chance) / len(chance)
    assert found > unseen + 0.2
