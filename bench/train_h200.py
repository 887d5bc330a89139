"""Training speed of the whole trainer, reading from tars, beside plain Transformers code on the same samples.

    python -m bench.train_h200 --out h200.jsonl            # LLaVA-1.5-7B shape and a small model on one GPU, at most 9 minutes
    python -m bench.train_h200 --out h200.jsonl            # again: continues with the rows that are missing
    python -m bench.train_h200 --only stage2               # only rows whose name begins with stage2
    python -m bench.train_h200 --tiny                      # the same rows at toy size on a CPU: checks only the program

Weights are random, images are noise at the tower's size, and texts are words with the lengths of LLaVA's sets (about 22 tokens
in stage 1, 246 in stage 2). Each row runs in a new process, so that its memory is measured alone. The rows to compare run
first, then one row per feature. `ours` is the trainer as it ships; each `without` row removes one feature, and its last column
is the speed of `ours` divided by the speed of that row. `transformers` is LlavaForConditionalGeneration, eager, SDPA, padded
batches, torch's fused AdamW in bf16, with batches prepared beforehand, so that it never waits for data.

samples/s and real tokens/s exclude padding. Model TFLOP/s counts 2 FLOPs per weight and token for the forward pass, 2 for the
gradient passed through and 2 for the gradient of trained weights, including the tower and excluding recomputation. A row that
fails, or runs out of memory or time, reports this and the others continue.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from bench.inputs.tars import document_sample, jpeg, write_tar
from vlmdata_train.data import open_feed
from vlmdata_train.distributed import Ranks
from vlmdata_train.loop import setup
from vlmdata_train.loop.flops import flops_per_token, matrix_peak
from vlmdata_train.loop.loop import run_training
from vlmdata_train.loop.meter import memory_bytes
from vlmdata_train.loop.prefetch import Prefetcher
from vlmdata_train.model import encode_images
from vlmdata_train.model.model import VisionLanguageModel, image_plan, load_tokenizer
from vlmdata_train.model.model_recipe import Part
from vlmdata_train.model.tokens import image_token_id
from vlmdata_train.recipe import Recipe
from vlmdata_train.recipe_file import parse

FROZEN = {"frozen": True}
SHAPES = {  # tower (width, layers, head width, patch, side) and language (width, inner, layers, heads, vocabulary)
    "7b": ((1024, 24, 64, 14, 336), (4096, 11008, 32, 32, 32064)),
    # a B/16 tower with SmolLM2-135M's shape and full attention heads
    "small": ((768, 12, 64, 16, 224), (576, 1536, 30, 9, 49152)),
    "tiny": ((32, 3, 16, 8, 32), (32, 64, 2, 2, 512)),
}
STAGES: dict[str, dict[str, Any]] = {
    "stage1": {"shape": "7b", "words": 12, "tokens": 16384, "parts": {"encoder": FROZEN, "language": FROZEN}, "batch": 32},
    "stage2": {"shape": "7b", "words": 130, "tokens": 8192, "parts": {"encoder": FROZEN}, "batch": 8},
    "small": {"shape": "small", "words": 60, "tokens": 16384, "parts": {}, "batch": 32},
}
TARGETS = {"stage1": ("samples", 32.0), "stage2": ("tokens", 12_000.0)}  # the targets for one H200
ROW_S = 240  # seconds that one row may take


def one_image_at_a_time() -> None:
    """Run the tower for each tile separately."""
    encode = encode_images.encode_tower
    encode_images.encode_tower = lambda model, pixels: torch.cat([encode(model, tile[None]) for tile in pixels])


def nothing_ahead() -> None:
    """Fetch and copy a batch only when it is requested, instead of prefetching it."""
    take, fetch = Prefetcher.take, Prefetcher.fetch

    def late(self: Any, count: int) -> list[Any]:
        self.fetch = partial(fetch, self)
        micros = take(self, count)
        self.fetch = lambda: None
        return micros

    Prefetcher.take = late  # type: ignore[method-assign]


def varlen() -> None:
    """Compute attention with FlashAttention's variable-length kernel."""
    make = setup.make_model

    def made(*words: Any) -> tuple[VisionLanguageModel, Callable[[], None]]:
        model, read = make(*words)
        model.attention = "varlen"
        return model, read

    setup.make_model = made


WITHOUT: dict[str, dict[str, Any] | Callable[[], None]] = {
    "ours": {},
    "without compile": {"speed": {"compile": False}},
    "without packing": {"batches": {"pack": False}},
    "without choosing blocks": {"speed": {"recompute": "all"}},
    "without chunked loss": {"speed": {"loss_chunk": 10**9}},
    "without batched tower": one_image_at_a_time,
    "without prefetch": nothing_ahead,
    "without bf16 weights": {"speed": {"precision": "autocast"}, "dtype": "float32"},
    "varlen, not FlexAttention": varlen,
}


def shape_of(stage: str, tiny: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the sizes of the tower and of the language model."""
    return SHAPES["tiny" if tiny else STAGES[stage]["shape"]]


def recipe_of(stage: str, changes: dict[str, Any], data: str, out: str, steps: int, tiny: bool) -> Recipe:
    """Return the recipe of one row."""
    (width, layers, head, patch, side), (dim, inner, blocks, heads, vocabulary) = shape_of(stage, tiny)
    facts = STAGES[stage]
    tree: dict[str, Any] = {
        "stage": "instruct", "data": data, "out": out, "steps": steps, "lr": 1e-4, "parts": facts["parts"],
        "model": {
            "encoder": {"open_clip": {"config": {"width": width, "layers": layers, "head_width": head, "patch_size": patch,
                                                 "image_size": side}, "layer": -2}},
            "language": {"hf_causal": {"dtype": changes.get("dtype", "float32" if tiny else "bfloat16"), "config": {
                "model_type": "llama", "hidden_size": dim, "intermediate_size": inner, "num_hidden_layers": blocks,
                "num_attention_heads": heads, "num_key_value_heads": heads, "vocab_size": vocabulary,
                "max_position_embeddings": 4096}}},
        },
        "tokenizer": {"vocabulary": 400 if tiny else 4096, "samples": 200},
        "batches": {"tokens": 512 if tiny else facts["tokens"], "sample_tokens": 256 if tiny else 2048, "workers": 8,
                    "samples": 4 if tiny else facts["batch"]},
        "optimizer": {"compact": True}, "checkpoints": {"every": 0}, "logs": {"every": 1, "tensorboard": False},
        "speed": {"precision": "fp32" if tiny else "bf16", "compile": not tiny, "device": "cpu" if tiny else "cuda"},
    }  # fmt: skip
    for name in changes.keys() & {"speed", "batches"}:
        tree[name] = {**tree[name], **changes[name]}
    if tiny:
        tree["speed"]["compile"] = False
    return parse(tree)


def write_samples(folder: Path, stage: str, count: int, tiny: bool) -> None:
    """Write conversations of one image and one answer each, with lengths spread around the stage's mean."""
    rng, side = random.Random(0), shape_of(stage, tiny)[0][4]
    syllables = [a + b for a in "bcdfghklmnprst" for b in "aeiou"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 3))) for _ in range(3000)]
    mean = 6 if tiny else STAGES[stage]["words"]
    noise = np.random.default_rng(0).integers(0, 255, (16, side, side, 3), dtype=np.uint8)
    images = [jpeg(pixels) for pixels in noise]
    samples = []
    for i in range(count):
        length = max(3, min(int(rng.lognormvariate(0, 0.6) * mean * 0.84), 8 * mean))
        answer = " ".join(rng.choices(words, k=length))
        samples.append(document_sample(f"{i:06d}", [images[i % 16], "tell me", answer], ["user", "user", "assistant"]))
    write_tar(folder / "00000.tar", samples)


def ours(stage: str, row: str, data: str, steps: int, tiny: bool) -> dict[str, float]:
    """Train and return the rates over the second half of the steps."""
    change = WITHOUT[row]
    if callable(change):
        change()
    with tempfile.TemporaryDirectory() as out:
        run_training(recipe_of(stage, {} if callable(change) else change, data, out, steps, tiny))
        lines = [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]
    late = [line for line in lines if line["kind"] == "train"][steps // 2 - 1 :]
    seconds = late[-1]["time"] - late[0]["time"]
    mean = {name: float(np.mean([line[name] for line in late[1:]])) for name in ("padding", "data_wait")}
    total = {name: sum(line[name] * line["step_s"] for line in late[1:]) for name in ("tokens_per_s", "model_tflops")}
    return {
        "samples": (late[-1]["samples"] - late[0]["samples"]) / seconds,
        "tokens": total["tokens_per_s"] / seconds,
        "tflops": total["model_tflops"] / seconds,
        "padding": mean["padding"],
        "wait": mean["data_wait"],
        "gib": late[-1]["memory_gib"],
    }


def transformers_rows(stage: str, tiny: bool) -> dict[str, dict[str, Any]]:
    """Return the Transformers settings to compare with: batch sizes, with activations kept or recomputed."""
    batches = [4] if tiny else [STAGES[stage]["batch"], STAGES[stage]["batch"] // 2]
    return {f"transformers, batch {batch}": {"batch": batch, "again": stage == "stage2"} for batch in batches}


def plain(stage: str, settings: dict[str, Any], data: str, steps: int, tiny: bool) -> dict[str, float]:
    """Train LlavaForConditionalGeneration in a plain loop, on the prompts that our trainer makes."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    recipe = recipe_of(stage, {"batches": {"pack": False, "samples": settings["batch"]}}, data, data + "/hf", steps, tiny)
    device = torch.device("cpu" if tiny else "cuda")
    ranks = Ranks(0, 1, device)
    parts = setup.model_parts(recipe, Path(recipe.out), ranks)
    (width, layers, head, patch, side), (dim, inner, blocks, heads, vocabulary) = shape_of(stage, tiny)
    tokenizer = load_tokenizer(parts)
    reader: Any = SimpleNamespace(plan=image_plan(parts), tokenizer=tokenizer)  # only what a feed needs of a model
    feed = open_feed.feed_of(recipe, reader, data, ranks, epochs=None)
    batches = [batch for (batch, _), _ in zip(feed, range(min(steps, 8)), strict=False)]
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // head, patch_size=patch, image_size=side,
            intermediate_size=4 * width),
        text_config=LlamaConfig(hidden_size=dim, intermediate_size=inner, num_hidden_layers=blocks, num_attention_heads=heads,
                    vocab_size=vocabulary, max_position_embeddings=4096),
        image_token_id=image_token_id(tokenizer), vision_feature_layer=-2, image_seq_length=(side // patch) ** 2,
    )  # fmt: skip
    with device:
        model = LlavaForConditionalGeneration(config).to(torch.float32 if tiny else torch.bfloat16).train()
    own = {"encoder": model.model.vision_tower, "abstractor": model.model.multi_modal_projector, "fusion": torch.nn.Identity(),
           "language": torch.nn.ModuleList([model.model.language_model, model.lm_head])}  # fmt: skip
    trained = {name: not recipe.parts.get(name, Part()).frozen for name in own}
    costs = flops_per_token(own, trained)
    for name, part in own.items():
        part.requires_grad_(trained[name])
    if settings["again"]:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    samples = tokens = flops = 0.0
    started = time.perf_counter()
    for step in range(steps):
        if step == steps // 2:
            _wait(device)
            started, samples, tokens, flops = time.perf_counter(), 0.0, 0.0, 0.0
        batch = batches[step % len(batches)]
        pixels = (batch.pixels.float() / 127.5 - 1).to(device, model.dtype)  # type: ignore[union-attr]
        mask = (batch.segment_ids > 0).long().to(device)
        model(input_ids=batch.input_ids.to(device), pixel_values=pixels, attention_mask=mask,
              labels=batch.labels.to(device)).loss.backward()  # fmt: skip
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        real = int((batch.segment_ids > 0).sum())
        samples, tokens = samples + len(batch.keys), tokens + real
        patches = len(batch.pixels) * (side // patch) ** 2
        flops += real * costs["language"] + patches * (costs["encoder"] + costs["abstractor"])
    _wait(device)
    seconds = time.perf_counter() - started
    padding = 1 - sum(int((b.segment_ids > 0).sum()) for b in batches) / sum(b.labels.numel() for b in batches)
    return {"samples": samples / seconds, "tokens": tokens / seconds, "tflops": flops / seconds / 1e12, "padding": padding,
            "wait": 0.0, "gib": memory_bytes() / 2**30}  # fmt: skip


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def run_row(stage: str, row: str, data: str, steps: int, tiny: bool) -> dict[str, float]:
    """Measure one row in this process."""
    if row in WITHOUT:
        return ours(stage, row, data, steps, tiny)
    return plain(stage, transformers_rows(stage, tiny)[row], data, steps, tiny)


def planned(only: str, tiny: bool) -> list[tuple[str, str]]:
    """Return (stage, row) in order: the main rows, then one row per feature, then Transformers' other batch sizes."""
    ranked = []
    for number, stage in enumerate(STAGES):
        others = list(transformers_rows(stage, tiny))
        for row in [*WITHOUT, *others]:
            rank = 0 if row in ("ours", others[0]) else 1 if row in WITHOUT else 2
            if f"{stage}: {row}".startswith(only):
                ranked.append((rank, number, stage, row))
    return [(stage, row) for _, _, stage, row in sorted(ranked, key=lambda one: one[:2])]


def measured(stage: str, row: str, data: Path, seconds: float, choice: argparse.Namespace) -> dict[str, Any]:
    """Measure a row in a new process. If that fails, return the reason as `failed`."""
    command = [sys.executable, "-m", "bench.train_h200", "--steps", str(choice.steps), "--row", stage, row, str(data / stage)]
    try:
        done = subprocess.run(
            [*command, *(["--tiny"] if choice.tiny else [])], capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"took more than {seconds:.0f} s"}
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "")
        return {"failed": reason.strip()[:160] or f"ended with status {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def line(name: str, got: dict[str, Any], own: dict[str, Any] | None, peak: float | None) -> str:
    """Return a row of the table. `own` is the result of our trainer, if it was measured."""
    if "failed" in got:
        return f"{name:<34} not measured: {got['failed']}"
    of_peak = f"{got['tflops'] * 1e12 / peak:.0%}" if peak else "-"
    gain = f"{own['samples'] / got['samples']:.2f}" if own and own is not got else "-"
    cells = [f"{got['samples']:.1f}", f"{got['tokens']:,.0f}", f"{got['tflops']:.1f}", of_peak, f"{got['padding']:.1%}",
             f"{got['wait']:.1%}", f"{got['gib']:.1f}", gain]  # fmt: skip
    return f"{name:<34} " + " ".join(f"{cell:>9}" for cell in cells)


def main() -> int:
    """Print the table, with a new process for each row. Return the exit status."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--only", default="", help="only rows whose name begins with this: stage1, stage2, small, 'stage1: ours'"
    )
    options.add_argument("--steps", type=int, default=16, help="steps per row, of which the second half is measured (16)")
    options.add_argument("--minutes", type=float, default=9.0, help="time after which no further row starts (9)")
    options.add_argument(
        "--out", type=Path, help="file of JSON lines for the results; rows already in it are not measured again"
    )
    options.add_argument("--tiny", action="store_true", help="toy sizes on a CPU, which check the program but not its speed")
    options.add_argument(
        "--row", nargs=3, metavar=("STAGE", "ROW", "DATA"), help="measure one row in this process and print it as JSON"
    )
    choice = options.parse_args()
    if choice.row:
        print(json.dumps(run_row(*choice.row, choice.steps, choice.tiny)))
        return 0
    if not choice.tiny and not torch.cuda.is_available():
        print("error: torch finds no CUDA device. Use --tiny to check the program on a CPU.", file=sys.stderr)
        return 2
    began = time.monotonic()
    peak = None if choice.tiny else matrix_peak(torch.device("cuda"))
    print(f"torch {torch.__version__}, " + ("toy sizes on a CPU: not a measurement of speed" if peak is None else
          f"{torch.cuda.get_device_name()}, bare bf16 matrix product {peak / 1e12:.0f} TFLOP/s"))  # fmt: skip
    heads = ("samples/s", "tokens/s", "TFLOP/s", "of peak", "padding", "waiting", "GiB", "ours is")
    print(f"{'row':<34} " + " ".join(f"{head:>9}" for head in heads))
    known: dict[str, dict[str, Any]] = {}
    if choice.out and choice.out.exists():
        known = {r["row"]: r for r in map(json.loads, choice.out.read_text().splitlines()) if "failed" not in r}
    with tempfile.TemporaryDirectory() as name:
        for stage, row in planned(choice.only, choice.tiny):
            title = f"{stage}: {row}"
            left = choice.minutes * 60 - (time.monotonic() - began)
            if title not in known:
                if not (Path(name) / stage).exists():
                    write_samples(Path(name) / stage, stage, 64 if choice.tiny else 1000, choice.tiny)
                known[title] = (
                    measured(stage, row, Path(name), min(ROW_S, left), choice) if left > 0 else {"failed": "no time was left"}
                )
                if choice.out:
                    with open(choice.out, "a") as file:
                        file.write(json.dumps({"row": title, "peak": peak, **known[title]}) + "\n")
            own = known.get(f"{stage}: ours")
            print(line(title, known[title], own if own and "failed" not in own else None, peak), flush=True)
    for stage, (unit, target) in TARGETS.items():
        got = known.get(f"{stage}: ours", {}).get(unit)
        if got is not None and not choice.tiny:
            print(f"{stage}: {got:,.1f} {unit}/s, {'reaches' if got >= target else 'misses'} {target:,.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
