"""Tiny models with random weights, saved as folders, and what transformers itself answers, one prompt at a time."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tests.train.made import TEXT, special_ids
from tests.train.published import write_published
from tests.train.tiny import randomise
from vlmdata.generator import Answer, Prompt, Sampling
from vlmdata.models.text_writer import TextWriter
from vlmdata_train.model.tokens import byte_tokenizer

SHORT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96, "vocab_size": 320}
TEXT_MODELS: dict[str, Any] = {
    "Llama": lambda ids: LlamaForCausalLM(LlamaConfig(**TEXT, **ids)),
    "Qwen2": lambda ids: Qwen2ForCausalLM(Qwen2Config(**TEXT, **ids)),
    "GPT-2": lambda ids: GPT2LMHeadModel(GPT2Config(**SHORT, **ids)),  # has learned positions, and a context of 96 tokens
}
IMAGE_MODELS = ("LLaVA 1.5", "Qwen2-VL", "Qwen2.5-VL", "Idefics3")
GREEDY = Sampling(max_tokens=12)


def write_text_model(name: str, folder: Path, *, template: bool = True) -> Path:
    """Write a folder with a model that only reads text. `template` says whether it has a chat template."""
    tokenizer = byte_tokenizer()
    if not template:
        tokenizer.chat_template = None
    model = TEXT_MODELS[name](special_ids(tokenizer)).eval()
    randomise(model, seed=1, scale=0.25)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_model(name: str, folder: Path) -> Path:
    """Write a folder with a model of TEXT_MODELS or IMAGE_MODELS."""
    return write_text_model(name, folder) if name in TEXT_MODELS else write_published(name, folder)


def photo(number: int, width: int = 40, height: int = 32) -> bytes:
    """Return a PNG of noise that depends on `number`."""
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def prompts_for(name: str, count: int = 11) -> list[Prompt]:
    """Return prompts of different lengths. For models that see images, three of four have an image."""
    sees = name in IMAGE_MODELS
    return [
        Prompt("what is this? " * (number % 5) + str(number), (photo(number),) if sees and number % 4 else (), seed=number)
        for number in range(count)
    ]


def answers(writer: TextWriter, prompts: list[Prompt], sampling: Sampling = GREEDY) -> list[Answer]:
    """Return the answers in the order of the prompts, and check that each prompt has one."""
    found: dict[int, Answer] = {}

    def done(number: int, answer: Answer) -> None:
        assert number not in found
        found[number] = answer

    writer.answer(iter(prompts), sampling, done)
    return [found[number] for number in range(len(prompts))]


def texts_by_transformers(folder: Path, name: str, prompts: list[Prompt], max_tokens: int) -> list[tuple[str, int, int]]:
    """Return the greedy answer of transformers to each prompt alone: its text, its tokens, and the tokens of the prompt."""
    sees = name in IMAGE_MODELS
    writer = AutoProcessor.from_pretrained(folder) if sees else AutoTokenizer.from_pretrained(folder)
    model = (AutoModelForImageTextToText if sees else AutoModelForCausalLM).from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = writer.tokenizer if sees else writer
    found = []
    for prompt in prompts:
        pictures = [{"type": "image", "image": Image.open(io.BytesIO(body)).convert("RGB")} for body in prompt.images]
        content = [*pictures, {"type": "text", "text": prompt.text}] if sees else prompt.text
        inputs = writer.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        new = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)[0, inputs["input_ids"].shape[1] :].tolist()
        new = new[:-1] if new[-1] == tokenizer.eos_token_id else new
        found.append((tokenizer.decode(new, skip_special_tokens=True), len(new), inputs["input_ids"].shape[1]))
    return found
