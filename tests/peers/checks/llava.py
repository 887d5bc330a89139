"""LLaVA's own `LazySupervisedDataset` reads llava.json and the images, and makes token ids and labels as for training."""

import contextlib
import hashlib
import importlib.metadata
import io
import json
import sys
import time
from pathlib import Path

import llava.train.train as train
import sentencepiece
from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from transformers import CLIPImageProcessor, LlamaTokenizer

REQUIREMENTS = [
    "llava @ git+https://github.com/haotian-liu/LLaVA@c121f0432da27facab705978f83c4ada465e46fd",  # requires torch 2.1.2
    "peft==0.10",  # newer ones do not fit the accelerate that LLaVA requires
    "numpy<2",
]
EXPORTS = [
    {"data": "chats", "to": "llava", "options": {"form": "trainer"}},
    {"data": "captions", "to": "llava", "options": {"form": "trainer", "prompt": "Describe the image."}},
    {"data": "rare_chats", "to": "llava", "options": {"form": "trainer"}},
]
SIDE = 28  # pixels
PROMPT = "Describe the image."


def tokenizer_of(texts: list[str]) -> LlamaTokenizer:
    """Return a tokenizer of Llama's kind, made of the texts, whose tokens give any text back."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*texts, "USER: ASSISTANT: " * 20]),
        model_prefix="tiny",
        model_type="bpe",
        vocab_size=700,
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=0.99,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        max_sentence_length=1 << 16,
        minloglevel=2,
    )
    made = LlamaTokenizer("tiny.model", legacy=True, model_max_length=1 << 20)
    made.pad_token = made.unk_token
    return made


def plain(text: str) -> str:
    """Return a text without white space and without the marks of ends."""
    return "".join(text.replace("</s>", "").split())


def conversation_of(want: dict) -> list[tuple[str, str]]:
    """Return (role, text) of each message of EXPECTED, without white space. Reasoning is in the text of its message."""
    if want["roles"] is None:
        return [("user", plain(PROMPT)), ("assistant", plain(want["texts"][0]))]
    found: list[tuple[str, str]] = []
    for role, text in zip(want["roles"], want["texts"], strict=True):
        text = f"<think>{text}</think>" if text == "I count two." else text
        if found and found[-1][0] == role:
            found[-1] = (role, found[-1][1] + plain(text))
        else:
            found.append((role, plain(text)))
    return found


def check(number: int, rows: train.LazySupervisedDataset, want: dict, tokenizer: LlamaTokenizer, folder: Path) -> None:
    """Exit if LLaVA reads a sample otherwise than EXPECTED says, or if it trains something else than the answers."""
    record, said = rows.list_data_dict[number], io.StringIO()
    with contextlib.redirect_stdout(said):
        row = rows[number]
    if said.getvalue():
        sys.exit(f"sample {want['key']}: LLaVA warns: {said.getvalue()}")
    images = [hashlib.sha256((folder / record["image"]).read_bytes()).hexdigest()] if "image" in record else []
    count = int((row["input_ids"] == IMAGE_TOKEN_INDEX).sum())
    if images != want["images"] or count != len(images) or row["image"].any() != bool(images):
        sys.exit(f"sample {want['key']}: LLaVA reads {count} images, and the record names {images}, not {want['images']}")
    kept = row["input_ids"][row["input_ids"] != IMAGE_TOKEN_INDEX]
    whole = plain(tokenizer.decode(kept, spaces_between_special_tokens=False))
    trained = row["labels"][(row["labels"] != IGNORE_INDEX) & (row["labels"] != IMAGE_TOKEN_INDEX)]
    answers = plain(tokenizer.decode(trained, spaces_between_special_tokens=False))
    turns = conversation_of(want)
    named = "".join({"user": "USER:", "assistant": "ASSISTANT:"}[role] + text for role, text in turns)
    if not whole.endswith(named) or answers != "".join(text for role, text in turns if role == "assistant"):
        sys.exit(f"sample {want['key']}: LLaVA reads {whole!r}, of which it trains {answers!r}, expected {turns}")


def main(folder: str, expected: str) -> None:
    start = time.monotonic()
    lines = [json.loads(line) for line in Path(expected).read_text().splitlines()]
    tokenizer = tokenizer_of([text for line in lines for text in line["texts"]])
    train.conversation_lib.default_conversation = train.conversation_lib.conv_templates["v1"]
    settings = train.DataArguments(
        data_path=f"{folder}/llava.json", is_multimodal=True, image_folder=folder, image_aspect_ratio="pad"
    )
    settings.image_processor = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    settings.mm_use_im_start_end = False
    made = train.make_supervised_data_module(tokenizer, settings)
    rows = made["train_dataset"]
    if len(rows) != len(lines):
        sys.exit(f"LLaVA reads {len(rows)} of {len(lines)} samples")
    for number, line in enumerate(lines):
        check(number, rows, line, tokenizer, Path(folder))
    for first in range(0, len(lines), 4):
        batch = made["data_collator"]([rows[number] for number in range(first, min(first + 4, len(lines)))])
        if batch["images"].shape[1:] != (3, SIDE, SIDE) or batch["input_ids"].shape != batch["labels"].shape:
            sys.exit(f"the collator gives images of {tuple(batch['images'].shape)}")
    result = {"samples": len(lines), "images": sum(len(line["images"]) for line in lines), "seconds": time.monotonic() - start}
    print(json.dumps({**result, "version": importlib.metadata.version("llava")}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
