"""Make the tiny CLIP that the demo and the tests score with, and print how well it separates true pairs from shuffled ones.

    python -m bench.tiny_clip FIGURES WORK [--epochs 60]

FIGURES holds folders with captions.jsonl and media/ (the OpenStax figures, CC BY 4.0). The figures are served over loopback,
written to shards by vlmdata, and open_clip's own program trains on them. A tenth of the figures, chosen by the hash of their
bytes, is held out. open_clip 3.3's program needs webdataset 0.2.86 or older: `pip install --no-deps --target OLD
webdataset==0.2.86`, then run this with PYTHONPATH=OLD. The result is WORK/clip, with weights in fp16, the configuration and a
tokenizer made from the captions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from vlmdata import recipe as recipes
from vlmdata import run
from vlmdata.demo.server import serving

CONTEXT = 32
VOCABULARY = 4096
MODEL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 96, "patch_size": 16, "width": 128, "head_width": 32, "layers": 4, "patch_dropout": 0.5},
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": VOCABULARY,
        "width": 128,
        "heads": 4,
        "layers": 3,
        "hf_tokenizer_name": "tokenizer",
        "tokenizer_kwargs": {"clean": "whitespace"},
        "pad_id": 0,
        "pool_type": "argmax",
    },
    "custom_text": True,
}


def pairs(figures: Path, address: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return training rows and held-out rows. A training figure has a row for its caption and one for its alt text, a
    held-out figure only one."""
    train, held = [], []
    for book in sorted(figures.glob("*/captions.jsonl")):
        for line in book.read_text().splitlines():
            figure = json.loads(line)
            path = book.parent / figure["image"]
            url = f"{address}/{book.parent.name}/{figure['image']}"
            texts = [text for text in (figure["caption"], figure["alt"]) if text and len(text.split()) > 2]
            if hashlib.sha256(path.read_bytes()).digest()[0] < 26:
                held += [{"url": url, "caption": text} for text in texts[:1]]
            else:
                train += [{"url": url, "caption": text} for text in texts]
    return train, held


def shards(rows: list[dict[str, str]], work: Path, name: str) -> Path:
    """Let vlmdata fetch the rows and write shards."""
    listing = work / f"{name}.parquet"
    pq.write_table(pa.Table.from_pylist(rows), listing)
    polite = {"allowed_hosts": ["127.0.0.1"], "host_requests_per_s": 0, "host_connections": 0}
    recipe = {
        "source": {"type": "url_list", "path": str(listing)},
        "steps": [{"download": polite}, {"resize": {"mode": "keep_ratio", "size": 128, "only_if_bigger": True}}],
        "shards": {"samples": 1000},
    }
    manifest = run(recipes.parse(recipe), work / name, local=True)
    print(f"{name}: {manifest['kept']} of {manifest['rows']} pairs kept", flush=True)
    return work / name


def make_tokenizer(texts: list[str], folder: Path) -> None:
    """Train a small byte-pair vocabulary where <pad> is 0, <start> is 1 and <end> is last, because open_clip pools at the
    largest id."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - 1, special_tokens=["<pad>", "<start>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(["<end>"])
    end = tokenizer.token_to_id("<end>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", end)]
    )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<start>", eos_token="<end>")
    wrapped.save_pretrained(folder)


def train(model: Path, data: Path, samples: int, work: Path, epochs: int) -> Path:
    """Run open_clip's training program and return the path of its last checkpoint."""
    tars = sorted(data.glob("*.tar"))
    command = [sys.executable, "-m", "open_clip_train.main", "--model", f"local-dir:{model}", "--dataset-type", "webdataset"]
    command += ["--train-data", f"{data}/{{{tars[0].stem}..{tars[-1].stem}}}.tar", "--train-num-samples", str(samples)]
    command += [
        "--epochs",
        str(epochs),
        "--batch-size",
        "256",
        "--lr",
        "6e-4",
        "--wd",
        "0.5",
        "--warmup",
        "100",
        "--workers",
        "1",
    ]
    command += ["--precision", "fp32", "--device", "cpu", "--logs", str(work), "--name", "run", "--seed", "0"]
    command += ["--aug-cfg", "scale=(0.3,1.0)", "--save-frequency", str(epochs)]
    shutil.rmtree(work / "run", ignore_errors=True)
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return work / "run" / "checkpoints" / f"epoch_{epochs}.pt"


def auc(model_folder: Path, data: Path) -> dict[str, float]:
    """Score each held-out pair and nine shuffled ones. Return the probability that the true pair scores higher, among other
    measures."""
    import io
    import tarfile

    import open_clip
    from PIL import Image

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{model_folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{model_folder}")
    model.eval()
    images, texts = [], []
    for tar in sorted(data.glob("*.tar")):
        with tarfile.open(tar) as members:
            for member in members:
                body = members.extractfile(member).read()  # type: ignore[union-attr]
                if member.name.endswith(".jpg"):
                    images.append(preprocess(Image.open(io.BytesIO(body)).convert("RGB")))
                elif member.name.endswith(".txt"):
                    texts.append(body.decode())
    with torch.no_grad():
        i = torch.nn.functional.normalize(model.encode_image(torch.stack(images)), dim=-1)
        t = torch.nn.functional.normalize(model.encode_text(tokenizer(texts)), dim=-1)
    scores = (i @ t.T).numpy()
    true = np.diag(scores)
    count = len(true)
    rank = np.random.default_rng(0)
    false = np.concatenate(
        [scores[np.arange(count), np.roll(np.arange(count), k)] for k in rank.choice(np.arange(1, count), 9, False)]
    )
    above = (true[:, None] > false[None, :]).mean() + 0.5 * (true[:, None] == false[None, :]).mean()
    top = (scores.argsort(1)[:, ::-1][:, :10] == np.arange(count)[:, None]).any(1).mean()
    return {
        "pairs": count,
        "auc": float(above),
        "recall_at_10": float(top),
        "true": float(true.mean()),
        "false": float(false.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--epochs", type=int, default=14)
    arguments = parser.parse_args()
    work, model = arguments.work, arguments.work / "clip"
    model.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    with serving(arguments.figures) as address:
        training, held = pairs(arguments.figures, address)
        data, unseen = shards(training, work, "train"), shards(held, work, "held")
    make_tokenizer([row["caption"] for row in training], model)
    means = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    config = {"model_cfg": MODEL, "preprocess_cfg": {**means, "interpolation": "bicubic", "resize_mode": "squash"}}
    (model / "open_clip_config.json").write_text(json.dumps(config, indent=1))
    samples = json.loads((data / "manifest.json").read_text())["kept"]
    checkpoint = train(model, data, samples, work, arguments.epochs)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    weights = {name.removeprefix("module."): value for name, value in state.items()}
    half = {name: value.half().contiguous() if value.is_floating_point() else value for name, value in weights.items()}
    save_file(half, str(model / "open_clip_model.safetensors"))
    size = sum(path.stat().st_size for path in model.iterdir())
    print(json.dumps({**auc(model, unseen), "bytes": size}, indent=1))


if __name__ == "__main__":
    main()
