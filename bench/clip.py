"""Pairs per second (on a CPU: per CPU second) that CLIPScore takes in vlmdata and in plain open_clip, in the same run.

    python -m bench.clip [MODEL ...] [--count N]     # ViT-B-32 and ViT-L-14; random weights, which do not change the speed

Pairs are pictures of 384 pixels on the short side at quality 95, as `captions` stores them, each with a different caption.
`open_clip` runs its preprocessing and both towers in fp32, on a GPU under autocast in bf16, batch after batch, as its README
shows. `ours` runs vlmdata.models.clip as `clip_score` does. Two upper bounds are printed too: `forward` runs both towers alone
on inputs that are already on the device, in the same type, compiled where ours is; `decode` runs the threads that prepare
pictures without a model. The share of `forward` tells how much of the model's speed remains; where `decode` is slower, decoding
limits the speed of any model on this machine. On a GPU, open_clip decodes in one thread and is measured on a tenth of the
pairs, and all compilation is done before.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image

from vlmdata.models.clip import BATCH, Clip, decoders
from vlmdata.models.image_batches import PixelCache

COUNTS = {"cpu": {"ViT-B-32": 48, "ViT-L-14": 16}, "cuda": {"ViT-B-32": 20_000, "ViT-L-14": 10_000}}
WORDS = ["a", "small", "red", "house", "beside", "the", "river", "under", "tall", "trees", "in", "early", "light"]


def pictures(count: int) -> list[bytes]:
    """Return JPEGs that differ: smooth noise with grain, 512 x 384, about 90 kB each."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(min(count, 256)):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
            (512, 384), Image.Resampling.BICUBIC
        )
        grain = np.asarray(coarse, np.int16) + random.integers(-12, 13, (384, 512, 3))
        out = io.BytesIO()
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=95)
        made.append(out.getvalue())
    return [made[number % len(made)] for number in range(count)]


def captions(count: int) -> list[str]:
    random = np.random.default_rng(1)
    return [f"{' '.join(random.choice(WORDS, 10))} {number}" for number in range(count)]


def plainly(model: str, weights: str, bodies: list[bytes], texts: list[str], device: str) -> Callable[[], np.ndarray]:
    net, _, preprocess = open_clip.create_model_and_transforms(model, pretrained=weights, device=device)
    tokenizer = open_clip.get_tokenizer(model)
    net.eval()
    size = BATCH[device]

    def work() -> np.ndarray:
        found = []
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            for start in range(0, len(bodies), size):
                some = [preprocess(Image.open(io.BytesIO(body))) for body in bodies[start : start + size]]
                images = net.encode_image(torch.stack(some).to(device), normalize=True)
                words = net.encode_text(tokenizer(texts[start : start + size]).to(device), normalize=True)
                found.append((images * words).sum(1).float().cpu().numpy())
        return np.concatenate(found)

    return work


def ours(clip: Clip, bodies: list[bytes], texts: list[str]) -> Callable[[], np.ndarray]:
    # other numbers avoid cache hits, so that a picture is decoded for each pair as for each row
    numbered = list(enumerate(bodies))

    def work() -> np.ndarray:
        units = clip.embed_images(range(len(numbered)), 0, lambda number: numbered[number][1])
        return np.array(clip.cosines(units, texts, list(range(len(texts)))))

    return work


def forward(clip: Clip, count: int) -> Callable[[], None]:
    """Return a function that runs both towers alone on as many full batches as `count` needs, with inputs already on the
    device."""
    size = BATCH[clip.device.type]
    pixels = torch.randint(0, 256, (size, 3, *clip.sides), dtype=torch.uint8).to(clip.device)
    tokens = clip.tokenizer(captions(size)).to(clip.device)

    def work() -> None:
        for _ in range(-(-count // size)):
            units = clip.image_units(pixels), clip.text_units(tokens)
        for unit in units:
            unit.cpu()

    return work


def decode(clip: Clip, bodies: list[bytes]) -> Callable[[], None]:
    def work() -> None:
        pixels = PixelCache(decoders())
        for _ in pixels.batches(clip.prepare, range(len(bodies)), lambda number: bodies[number], BATCH[clip.device.type]):
            pass

    return work


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds of a run: wall time with a GPU, CPU time without one, because other processes may use the CPU."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    work()
    return clock() - start


def measure(model: str, count: int, weights: str) -> None:
    """Print a line for each way of scoring. Two batches run first, because compilers and allocators work at the first use."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bodies, texts = pictures(count), captions(count)
    few = max(count // 10, BATCH[device]) if device == "cuda" else count
    clip = Clip(model, weights, "auto")
    if device == "cuda":
        warm = 2 * BATCH[device]
        ours(clip, bodies[:warm], texts[:warm])()
        plainly(model, weights, bodies[: BATCH[device]], texts[: BATCH[device]], device)()
        clip.pixels = PixelCache(decoders())  # forget the pictures that the first batches decoded
    found: dict[str, np.ndarray] = {}
    plain, own = plainly(model, weights, bodies[:few], texts[:few], device), ours(clip, bodies, texts)
    rows = [
        ("open_clip", few / seconds(lambda: found.update(theirs=plain()))),
        (f"ours, {clip.facts['computed']}", count / seconds(lambda: found.update(ours=own()))),
        ("forward alone", count / seconds(forward(clip, count))),
        (f"decode alone, {decoders()} threads", count / seconds(decode(clip, bodies))),
    ]
    for title, rate in rows:
        print(f"{model:10} {title:34}{rate:12.1f}{rate / rows[0][1]:12.2f}{rate / rows[2][1]:12.0%}", flush=True)
    differ = np.abs(found["theirs"] - found["ours"][:few]).max()
    print(f"{model:10} cosines differ from open_clip's by {differ:.1e} at most", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=["ViT-B-32", "ViT-L-14"])
    parser.add_argument("--count", type=int, default=0)
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(1)  # a worker has one core
    unit = "pairs/s" if device == "cuda" else "pairs/CPU s"
    print(f"{'':45}{unit:>12}{'x open_clip':>12}{'of forward':>12}", flush=True)
    for model in given.models:
        with tempfile.TemporaryDirectory() as folder:
            weights = str(Path(folder) / "random.pt")
            torch.manual_seed(0)
            torch.save(open_clip.create_model(model).state_dict(), weights)
            measure(model, given.count or COUNTS[device].get(model, 64), weights)


if __name__ == "__main__":
    main()
