"""A tiny model of each recipe that joins published parts is exported, and transformers loads it with the same ids and logits.

Hub models cannot be downloaded here, so tiny configurations and tokenizers of the same kinds replace them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.made import PARTS_TEMPLATE, tokenizer_with
from tests.train.shapes import CHATML
from tests.train.test_published import TOLERANCE, batch_of, ids_of, served
from tests.train.test_published_videos import batch_of as video_batch_of
from tests.train.test_published_videos import frames_of, inputs_of
from tests.train.test_shipped_recipes import tiny_parts
from tests.train.tiny import randomise
from vlmdata_train.convert.save_published import format_of, save_published
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import with_template, with_tokenizer
from vlmdata_train.recipe_file import load

pytestmark = pytest.mark.whole


def chatml() -> Any:
    """Return a tokenizer like that of Qwen2, whose template accepts texts only."""
    return tokenizer_with("<|im_start|>", "<|im_end|>", template=CHATML)


FORMATS = {  # recipe: the family whose format holds its model, without a published model as start
    "align": "LLaVA", "instruct": "LLaVA", "llava_next": "LLaVA", "llava_onevision": "LLaVA", "vip_llava": "ViP-LLaVA",
    "internvl": "InternVL", "smolvlm": "SmolVLM", "pixtral": "Pixtral", "deepseek_vl_small": "DeepSeek-VL",
    "deepseek_vl": "DeepSeek-VL's hybrid", "qwen2_vl": "Qwen2-VL", "qwen2_5_vl": "Qwen2.5-VL", "qwen3_vl": "Qwen3-VL",
}  # fmt: skip
# tokenizers like those of the published language models; the other models have the tokenizer of bytes
TOKENIZERS: dict[str, Callable[[], Any]] = {"qwen2_vl": chatml, "qwen2_5_vl": chatml, "qwen3_vl": chatml}


def recipe_model(name: str, folder: Path) -> VisionLanguageModel:
    """Return a tiny model of a recipe with a tokenizer like the published one, all weights at random."""
    parts = with_template(tiny_parts(name), load(name).chat_template)
    if name in TOKENIZERS:
        TOKENIZERS[name]().save_pretrained(folder / "tokenizer")
        parts = with_tokenizer(parts, str(folder / "tokenizer"))
    model = build_model(parts).eval()
    randomise(model, seed=1)
    return model


@pytest.mark.parametrize("name", FORMATS)
def test_a_published_format_holds_the_parts_of_a_recipe_with_equal_logits(name: str, tmp_path: Path) -> None:
    ours = recipe_model(name, tmp_path)
    assert format_of(ours).title == FORMATS[name]
    save_published(ours, tmp_path / "export")
    theirs, inputs = served(tmp_path / "export", 1)
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
