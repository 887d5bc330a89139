"""TRL reads messages in Parquet: each row is conversational, and the collator of SFTTrainer makes batches of pixels."""

import hashlib
import importlib.metadata
import json
import sys
import time
from pathlib import Path

from datasets import Image, List, load_dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessor, Qwen2VLProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from trl.data_utils import is_conversational
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

REQUIREMENTS = ["trl==1.16", "pillow", "torchvision"]
EXPORTS = [
    {"data": "chats", "to": "messages", "options": {"form": "parquet"}},
    {"data": "rare_chats", "to": "messages", "options": {"form": "parquet"}},
    {"data": "captions", "to": "messages", "options": {"form": "parquet", "prompt": "Describe the image."}},
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
TEMPLATE = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] or [] %}
{%- if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}
{%- endfor %}{% endif %}{% for call in message['tool_calls'] or [] %}{{ call['function']['name'] }}{% endfor %}<|im_end|>
{% endfor %}"""


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
    images, videos = Qwen2VLImageProcessor(size=pixels), Qwen2VLVideoProcessor(size=pixels)
    return Qwen2VLProcessor(images, tokenizer, videos, chat_template=TEMPLATE)


def texts_in(messages: list[dict]) -> list[str]:
    """Return the texts of messages in order. A tool call counts as its name."""
    found = []
    for message in messages:
        found += [message["reasoning_content"]] if message.get("reasoning_content") else []
        found += [part["text"] for part in message["content"] or [] if part["type"] != "image"]
        found += [call["function"]["name"] for call in message.get("tool_calls") or []]
    return found


def wanted(want: dict) -> list[str]:
    """Return the texts of EXPECTED in the form of `texts_in`."""
    texts = want["texts"] if want["roles"] else ["Describe the image.", *want["texts"]]
    return ["weather" if text.startswith('{"name": "weather"') else text for text in texts]


def main(folder: str, expected: str) -> None:
    start = time.monotonic()
    rows = load_dataset(folder, split="train")
    stored = rows.cast_column("images", List(Image(decode=False)))
    lines = [json.loads(line) for line in Path(expected).read_text().splitlines()]
    if len(rows) != len(lines):
        sys.exit(f"datasets reads {len(rows)} of {len(lines)} samples")
    for got, want in zip(stored, lines, strict=True):
        hashes = [hashlib.sha256(image["bytes"]).hexdigest() for image in got["images"]]
        if not is_conversational(got):
            sys.exit(f"sample {want['key']} is not conversational")
        if hashes != want["images"] or texts_in(got["messages"]) != wanted(want):
            sys.exit(f"sample {want['key']}: found {texts_in(got['messages'])}, expected {wanted(want)}")
    made = processor()
    collate = DataCollatorForVisionLanguageModeling(made)
    with_images = [number for number, line in enumerate(lines) if line["images"]]
    for first in range(0, len(with_images), 4):
        numbers = with_images[first : first + 4]
        batch = collate([rows[number] for number in numbers])
        count = sum(len(lines[number]["images"]) for number in numbers)
        if len(batch["image_grid_thw"]) != count:
            sys.exit(f"the collator gives {len(batch['image_grid_thw'])} images of samples with {count}")
        for number, tokens in zip(numbers, batch["input_ids"], strict=True):
            text = made.tokenizer.decode(tokens)
            missing = [one for one in wanted(lines[number]) if one.strip() not in text and one != "I count two."]
            if missing:
                sys.exit(f"sample {lines[number]['key']}: the batch lacks the texts {missing}: {text[:2000]!r}")
    result = {"samples": len(rows), "images": sum(len(line["images"]) for line in lines), "seconds": time.monotonic() - start}
    print(
        json.dumps({**result, "version": importlib.metadata.version("trl"), "note": f"{len(with_images)} samples in batches"})
    )


if __name__ == "__main__":
    main(*sys.argv[1:3])
