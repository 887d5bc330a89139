"""LLaMA-Factory's `get_dataset` reads messages with placeholders, and makes token ids and labels as for training."""

import hashlib
import importlib.metadata
import json
import sys
import time
from pathlib import Path

from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import DataArguments, ModelArguments
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessor, Qwen2VLProcessor, Seq2SeqTrainingArguments
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

REQUIREMENTS = ["llamafactory==0.9.5", "torch==2.15", "torchvision==0.29.2"]
EXPORTS = [
    {"data": "chats", "to": "messages", "options": {"form": "placeholders"}},
    {"data": "rare_chats", "to": "messages", "options": {"form": "placeholders"}},
    {"data": "captions", "to": "messages", "options": {"form": "placeholders", "prompt": "Describe the image."}},
]
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def processor() -> Qwen2VLProcessor:
    """Return a processor of Qwen2-VL whose tokens are bytes, so that decoding gives the text back."""
    made = Tokenizer(
        models.BPE({letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": [*SPECIAL]})
    pixels = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    return Qwen2VLProcessor(Qwen2VLImageProcessor(size=pixels), tokenizer, Qwen2VLVideoProcessor(size=pixels), chat_template="")


def in_order(texts: list[str], whole: str) -> bool:
    """Return whether the texts are in `whole`, one after the other. White space at their ends does not count."""
    position = 0
    for text in map(str.strip, texts):
        found = whole.find(text, position)
        if found < 0:
            return False
        position = found + len(text)
    return True


def texts_of(want: dict, prompt: str) -> tuple[list[str], list[str]]:
    """Return all texts of a sample, and those that are trained."""
    if want["roles"] is None:
        return [prompt, *want["texts"]], want["texts"]
    pairs = list(zip(want["roles"], want["texts"], strict=True))
    return want["texts"], [text for role, text in pairs if role == "assistant"]


def main(folder: str, expected: str) -> None:
    start = time.monotonic()
    made = processor()
    tokenizer = made.tokenizer
    data = DataArguments(
        template="qwen2_vl", dataset="vlmdata", dataset_dir=folder, media_dir=folder, cutoff_len=1 << 20, overwrite_cache=True
    )
    template = get_template_and_fix_tokenizer(tokenizer, data)
    template.mm_plugin.expand_mm_tokens = True
    model = ModelArguments(model_name_or_path="none")
    training = Seq2SeqTrainingArguments("out", use_cpu=True, report_to=[])
    found = get_dataset(template, model, data, training, stage="sft", tokenizer=tokenizer, processor=made)["train_dataset"]
    lines = [json.loads(line) for line in Path(expected).read_text().splitlines()]
    if len(found) != len(lines):
        sys.exit(f"LLaMA-Factory keeps {len(found)} of {len(lines)} samples")
    for got, want in zip(found, lines, strict=True):
        images = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in got["images"] or []]
        if images != want["images"]:
            sys.exit(f"sample {want['key']}: LLaMA-Factory has other images: {got['images']}")
        whole = tokenizer.decode(got["input_ids"])
        answers = tokenizer.decode([label for label in got["labels"] if label >= 0])
        every, trained = texts_of(want, "Describe the image.")
        if not in_order(every, whole) or not in_order(trained, answers) or whole.count("<|vision_start|>") != len(images):
            sys.exit(f"sample {want['key']}: LLaMA-Factory reads {whole[:2000]!r}, expected {want['texts']}")
    result = {"samples": len(found), "images": sum(len(line["images"]) for line in lines), "seconds": time.monotonic() - start}
    print(json.dumps({**result, "version": importlib.metadata.version("llamafactory")}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
