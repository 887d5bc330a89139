"""A tiny model of each recipe that joins published parts is exported, and transformers loads it with the same ids and logits.

Hub models cannot be downloaded here, so tiny configurations and tokenizers of the same kinds replace them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PaliGemmaProcessor

from tests.train import made_kosmos
from tests.train.made import PARTS_TEMPLATE, tokenizer_with
from tests.train.made_more import fuyu_tokenizer
from tests.train.made_whole import paligemma_images, with_bos
from tests.train.shapes import CHATML
from tests.train.test_published import TOLERANCE, batch_of, ids_of, served
from tests.train.test_published_videos import batch_of as video_batch_of
from tests.train.test_published_videos import frames_of, inputs_of
from tests.train.test_shipped_recipes import tiny_parts
from tests.train.tiny import randomise
from vlmdata_train.convert.families import kosmos2
from vlmdata_train.convert.families.blip2 import Blip2
from vlmdata_train.convert.families.instructblip import InstructBlip
from vlmdata_train.convert.save_published import format_of, save_published
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import with_template, with_tokenizer
from vlmdata_train.model.tokens import byte_tokenizer
from vlmdata_train.recipe_file import load

pytestmark = pytest.mark.whole


def chatml(**names: str | None) -> Any:
    """Return a tokenizer like that of Qwen2 or Qwen3, whose template accepts texts only. `names` are its special tokens."""
    tokenizer = tokenizer_with("<|im_start|>", "<|im_end|>", template=CHATML)
    for name, token in names.items():
        setattr(tokenizer, name, token)
    return tokenizer


def paligemma() -> Any:
    """Return a tokenizer with the tokens of PaliGemma's."""
    tokenizer = byte_tokenizer()
    PaliGemmaProcessor(paligemma_images(), tokenizer)  # adds them
    return tokenizer


def kosmos() -> Any:
    """Return a tokenizer with the tokens and the chat template that a start from a Kosmos-2 has."""
    tokenizer = made_kosmos.tokenizer()
    made_kosmos.processor(tokenizer)  # adds tokens
    tokenizer.chat_template = kosmos2.TEMPLATE.replace("IMAGE", "<mask>")
    return tokenizer


def with_template_of(family: type[Blip2]) -> Any:
    """Return a tokenizer that adds BOS to each text, with the chat template that a start from this family has."""
    return with_bos(tokenizer_with(template=family.template))


@dataclass(frozen=True)
class Case:
    """What a test of a recipe needs."""

    family: str  # whose format holds the recipe's model, without a published model as start
    tokenizer: Callable[[], Any] = byte_tokenizer  # like that of the published language model
    prompt: str | None = None  # see `made.Made`
    backend: str = "pil"


FORMATS: dict[str, Case] = {
    **dict.fromkeys(("align", "instruct", "llava_next", "llava_onevision"), Case("LLaVA")),
    "vip_llava": Case("ViP-LLaVA"), "internvl": Case("InternVL"), "smolvlm": Case("SmolVLM"), "pixtral": Case("Pixtral"),
    "deepseek_vl_small": Case("DeepSeek-VL"), "deepseek_vl": Case("DeepSeek-VL's hybrid"),
    "qwen2_vl": Case("Qwen2-VL", chatml), "qwen2_5_vl": Case("Qwen2.5-VL", chatml), "qwen3_vl": Case("Qwen3-VL", chatml),
    "idefics2": Case("Idefics2"), "idefics3": Case("Idefics3"), "mistral3": Case("Mistral 3"),
    "llama32_vision": Case("Llama 3.2 Vision", lambda: tokenizer_with(template="{{ messages[0]['content'] }}")),
    "blip2": Case("BLIP-2", partial(with_template_of, Blip2), "Question: What is it? Answer:"),
    "instructblip": Case("InstructBLIP", partial(with_template_of, InstructBlip), "What is it?"),
    "kosmos2": Case("Kosmos-2", kosmos, "Question: What is it? Answer:"),
    "molmo2": Case("Molmo 2", partial(chatml, bos_token=None, eos_token="<|im_end|>")),
    "paligemma": Case("PaliGemma", paligemma), "fuyu": Case("Fuyu", fuyu_tokenizer, "What is it?\n", "torchvision"),
}  # fmt: skip


def recipe_model(name: str, folder: Path) -> VisionLanguageModel:
    """Return a tiny model of a recipe with a tokenizer like the published one, all weights at random."""
    parts = with_template(tiny_parts(name), load(name).chat_template)
    FORMATS[name].tokenizer().save_pretrained(folder / "tokenizer")
    parts = with_tokenizer(parts, str(folder / "tokenizer"))
    model = build_model(parts).eval()
    randomise(model, seed=1)
    return model


@pytest.mark.parametrize("name", FORMATS)
def test_a_published_format_holds_the_parts_of_a_recipe_with_equal_logits(name: str, tmp_path: Path) -> None:
    ours, case = recipe_model(name, tmp_path), FORMATS[name]
    assert format_of(ours).title == case.family
    save_published(ours, tmp_path / "export")
    theirs, inputs = served(tmp_path / "export", 1, case.prompt, case.backend)
    batch = batch_of(ours, 1)
    assert ids_of(inputs, ours.image_token_id) == batch.input_ids.tolist()
    with torch.no_grad():
        logits = theirs(**inputs).logits[0]
        own = ours.logits(batch)[0, :, : logits.shape[1]]
        assert (own - logits).abs().max() < TOLERANCE * logits.abs().max()
        assert (own - ours.logits(batch_of(ours, 0))[0, -1, : logits.shape[1]]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_the_processor_of_a_recipe_of_qwen_writes_a_video_as_the_trainer_does(name: str, tmp_path: Path) -> None:
    ours = recipe_model(name, tmp_path)
    save_published(ours, tmp_path / "export")
    frames = frames_of((64, 64))
    assert inputs_of(tmp_path / "export", frames)["input_ids"].tolist() == video_batch_of(ours, frames).input_ids.tolist()


def test_a_template_without_the_tokens_around_an_image_has_no_format_of_qwen(tmp_path: Path) -> None:
    tokenizer = tokenizer_with("<|image_pad|>", template=PARTS_TEMPLATE.replace("IMAGE", "<|image_pad|>"))
    tokenizer.save_pretrained(tmp_path)
    model = build_model(with_tokenizer(tiny_parts("qwen2_vl"), str(tmp_path)))
    with pytest.raises(ValueError, match=r"language: Qwen2-VL's format supports only a chat template that writes <\|vision_"):
        format_of(model)
