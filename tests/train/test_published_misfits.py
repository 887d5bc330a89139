"""A model of a family with one other part has no format, and the error names the part."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.train.made import TEXT, VISION
from tests.train.made_cross import IDEFICS_TEMPLATE
from tests.train.published import write_published
from tests.train.test_encoders import SMALL
from tests.train.test_published import loaded
from tests.train.tiny import TINY
from vlmdata.step import RecipeError
from vlmdata_train.convert.checkpoint_folder import model_of
from vlmdata_train.convert.save_published import format_of, save_published
from vlmdata_train.model.model import build_model
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.tokens import CHAT_TEMPLATE, load_tokenizer

pytestmark = pytest.mark.whole

WITHOUT_BOS = IDEFICS_TEMPLATE.replace("{{ bos_token }}", "")
WITH_BLANKS = IDEFICS_TEMPLATE.replace("<image>", "<image> ")
WITH_EOS = IDEFICS_TEMPLATE.replace("<end_of_utterance>", "{{ eos_token }}")
GROUPED = {"model_type": "llama", **TEXT}
UNEVEN = {**GROUPED, "num_key_value_heads": 4, "num_hidden_layers": 3}

SIGLIP = {"hf_vision": {"config": {"model_type": "siglip_vision_model", **VISION, "image_size": 16, "patch_size": 4}}}
ONE_KIND = (SIGLIP, SIGLIP)
# (family, part, changed parameters, start of the message)
CASES: list[tuple[str, str, dict[str, Any], str]] = [
    ("Qwen2-VL", "writing", {"video_token": None}, "writing: Qwen2-VL's format supports only plain, or between with"),
    ("Qwen3-VL", "writing", {"frame": None}, "writing: Qwen3-VL's format supports only between with `start: "),
    ("InternVL", "preprocessing", {"thumbnail": False}, "preprocessing: InternVL's format supports only dynamic_tiles, with"),
    ("InternVL", "writing", {"around": "tile"}, "writing: InternVL's format supports only between around images"),
    ("InternVL", "abstractor", {"norm": False}, "abstractor: InternVL's format supports only pixel_shuffle of 2 layers"),
    ("InternVL", "encoder", {"layer": -2}, "encoder: InternVL's format supports only an InternViT by hf_vision"),
    ("Idefics3", "abstractor", {"bias": True}, "abstractor: Idefics3's format supports only pixel_shuffle of 1 layer"),
    ("Idefics3", "writing", {"overview": "<whole>"}, "writing: Idefics3's format supports only tile_grid with its defaults"),
    ("Idefics2", "abstractor", {"mlp_width": 40}, "abstractor: Idefics2's format supports only gated_resampler with the lang"),
    ("Idefics2", "writing", {"blank": False}, "writing: Idefics2's format supports only between with"),
    ("Pixtral", "writing", {"last_row_end": None}, "writing: Pixtral's format supports only rows with `last_row_end`"),
    ("Pixtral", "writing", {"end": "<end>"}, "writing: Pixtral's format supports only rows, without tokens around"),
    ("Mistral 3", "abstractor", {"eps": 0.1}, "abstractor: Mistral 3's format supports only normed_merger with the epsilon"),
    ("LLaVA-OneVision", "writing", {"video_token": None}, "writing: LLaVA's format supports only plain with a `video_token`"),
    ("PaliGemma", "language", {"chat_template": "{{ messages[0]['content'] }}"}, "language: PaliGemma's format supports only"),
    ("PaliGemma", "fusion", {"prefix": False}, "fusion: PaliGemma's format supports only tokens, with `prefix: true`"),
    ("Llama 3.2 Vision", "fusion", {"gates": "vector"}, "fusion: Llama 3.2 Vision's format supports only .* gates: scalar"),
    ("Llama 3.2 Vision", "fusion", {"runs": "latest"}, "fusion: Llama 3.2 Vision's format supports only .* runs: whole"),
    (
        "Llama 3.2 Vision",
        "writing",
        {"bos": "after_images", "bos_token": "<|end|>"},
        "writing: Llama 3.2 Vision's format supports only plain, with the tokenizer's BOS",
    ),
    ("Idefics 1, float gates", "encoder", {"tokens": "patches"}, "encoder: Idefics 1's format supports only a CLIP by hf_vi"),
    ("Idefics 1, float gates", "fusion", {"mlp_width": 40}, "fusion: Idefics 1's format supports only .* mlp_width: 48"),
    ("Idefics 1, float gates", "fusion", {"heads": 2}, "fusion: Idefics 1's format supports only .* heads: 4"),
    ("Idefics 1, vector gates", "fusion", {"first": 1}, "fusion: Idefics 1's format supports only .* first: 0"),
    ("Idefics 1, float gates", "abstractor", {"frames": 2}, "abstractor: Idefics 1's format supports only identity, or perc"),
    ("Idefics 1, float gates", "writing", {"blank": True}, "writing: Idefics 1's format supports only between with"),
    ("Idefics 1, vector gates", "language", {"config": GROUPED}, "language: Idefics 1's .* as many heads of keys as of que"),
    ("Idefics 1, float gates", "language", {"config": UNEVEN}, "fusion: Idefics 1's .* `every` that divides the number of"),
    *(
        ("Idefics 1, float gates", "language", {"chat_template": text}, "language: Idefics 1's .* chat template that write BOS")
        for text in (WITHOUT_BOS, WITH_BLANKS, WITH_EOS)
    ),
    ("DeepSeek-VL", "abstractor", {"activation": "relu"}, "abstractor: DeepSeek-VL's format supports only mlp, with its def"),
    ("DeepSeek-VL", "encoder", {"layer": -2}, "encoder: DeepSeek-VL's format supports only a SigLIP by hf_vision"),
    ("DeepSeek-VL", "writing", {"bos": "after_images"}, "writing: DeepSeek-VL's format supports only plain, with BOS first"),
    ("DeepSeek-VL, hybrid", "encoder", {"towers": ONE_KIND}, "encoder: DeepSeek-VL's hybrid's format supports only side_by"),
    ("Fuyu", "abstractor", {"bias": False}, "abstractor: Fuyu's format supports only linear, with a bias"),
    ("Fuyu", "preprocessing", {"max_width": 50}, "preprocessing: Fuyu's format supports only native, with limits of whole"),
    ("Fuyu", "writing", {"bos_token": None}, r"writing: Fuyu's format supports only rows with \|NEWLINE\| after each row"),
    ("Fuyu", "writing", {"end": "</s>"}, r"writing: Fuyu's format supports only rows with \|NEWLINE\| after each row"),
    ("Fuyu", "language", {"chat_template": "{{ messages[0]['content'] }}"}, "language: Fuyu's format supports only the to"),
    ("Fuyu", "language", {"tokenizer": "bytes"}, "language: Fuyu's format supports only the tokenizer of a published"),
    ("Kosmos-2", "encoder", {"tokens": "patches"}, "encoder: Kosmos-2's format supports only a CLIP by hf_vision"),
    ("Kosmos-2", "abstractor", {"queries": 32}, "abstractor: Kosmos-2's format supports only kosmos_resampler of 64 queries"),
    ("Kosmos-2", "writing", {"end": "</image>"}, "writing: Kosmos-2's format supports only between with `<image>`"),
    ("BLIP-2", "writing", {"bos": "first"}, "writing: BLIP-2's format supports only plain, with BOS after the images"),
    ("InstructBLIP", "writing", {"bos": "first"}, "writing: InstructBLIP's format supports only plain, with BOS after the"),
    ("Molmo 2", "encoder", {"norm": True}, "encoder: Molmo 2's format supports only a SigLIP by hf_vision, with `norm: false`"),
    ("Molmo 2", "preprocessing", {"antialias": True}, "preprocessing: Molmo 2's format supports only overlapping_crops, with"),
    ("Molmo 2", "fusion", {"two_way": False}, "fusion: Molmo 2's format supports only added_tokens, with `two_way: true`"),
    ("Molmo 2", "writing", {"end": None}, "writing: Molmo 2's format supports only rows with <im_patch>, <im_col>, <im_start>"),
    ("Molmo 2", "language", {"chat_template": CHAT_TEMPLATE}, "language: Molmo 2's format supports only prompts that begin"),
]


def changed(recipe: ModelRecipe, part: str, changes: dict[str, Any]) -> ModelRecipe:
    """Return a recipe with changed parameters of one part."""
    entry = getattr(recipe, part)
    ((name, parameters),) = ({entry: {}} if isinstance(entry, str) else entry).items()
    return replace(recipe, **{part: {name: {**parameters, **changes}}})


@pytest.mark.parametrize(("family", "part", "changes", "message"), CASES)
def test_a_part_that_the_format_cannot_hold_is_named(
    family: str, part: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    recipe = model_of(str(write_published(family, tmp_path)))
    with pytest.raises(ValueError, match=f"^{message}"):
        format_of(build_model(changed(recipe, part, changes)))


@pytest.mark.parametrize("layers", [1, 2])
def test_an_attention_pool_in_another_model_than_molmo_2_has_no_format(layers: int) -> None:
    """InternVL's and Idefics3's formats hold another abstractor with the parameters `factor` and `layers`."""
    tower = {"model_type": "siglip_vision_model", **SMALL}
    pool = {"layers": layers, "heads": 2, "head_width": 8}
    parts = replace(
        TINY, encoder={"hf_vision": {"config": tower, "layer": [-1, -2][:layers]}}, abstractor={"attention_pool": pool}
    )
    with pytest.raises(ValueError, match="No format of a published family can hold this model"):
        format_of(build_model(parts))


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("text_config", {"norm_after": True}, "language: .* has other norms or biases than a qwen3"),
        ("text_config", {"qk_norm_type": "olmo"}, "language: .* has other norms or biases than a qwen3"),
        (
            "text_config",
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}, "rope_scaling_layers": [1]},
            "language: .* scales the positions of some layers only",
        ),
        ("adapter_config", {"mlp_bias": True}, "abstractor: .* has other biases than attention_pool"),
        ("vision_config", {"attention_bias": False}, "encoder: .* has a tower with other heads than a SigLIP"),
    ],
)
def test_a_molmo_2_with_a_setting_that_the_trainer_lacks_is_refused(
    part: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = write_published("Molmo 2", tmp_path) / "config.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({**facts, part: {**facts[part], **changes}}))
    with pytest.raises(RecipeError, match=f"start: {message}"):
        model_of(str(tmp_path))


def test_an_export_that_needs_a_missing_package_names_it_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(model_of(str(write_published("SmolVLM", tmp_path / "start"))))
    monkeypatch.setattr("vlmdata_train.convert.families.smolvlm.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="SmolVLM's processor needs the package num2words: pip install num2words"):
        save_published(model, tmp_path / "export")
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize(
    ("family", "changed", "message"),
    [
        *(
            (
                "Qwen2-VL",
                lambda tensor, dtype=dtype: tensor.to(dtype),
                rf"language: .* has the type {str(dtype)[6:]}, but only bfloat16, .* can be trained\. Start from",
            )
            for dtype in (torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn)
        ),
        ("Llama 3.2 Vision", lambda tensor: tensor[:, 0].clone(), r"language: .* has the shape \(\d+,\), but the model needs"),
        ("Llama 3.2 Vision", lambda tensor: tensor[0, 0].clone(), r"language: .* has the shape \(\), but the model needs"),
    ],
)
def test_an_output_layer_of_another_kind_is_refused(family: str, changed: Any, message: str, tmp_path: Path) -> None:
    file = write_published(family, tmp_path) / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("lm_head.weight"))
    save_file({**tensors, name: changed(tensors[name])}, file)
    with pytest.raises(ValueError, match=message):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("half", "changes", "message"),
    [
        ("text_config", {"model_type": "lama"}, "text_config: transformers has no model_type 'lama'. Did you mean 'llama'?"),
        (
            "text_config",
            {"model_type": ["llama"]},
            "text_config: transformers has no model_type '['llama']'. Did you mean 'llama'?",
        ),
        ("vision_config", {"model_type": "??"}, "vision_config: transformers has no model_type '??'"),
        ("text_config", {"hidden_size": "big"}, "Field 'hidden_size' expected int, got str (value: 'big')"),
    ],
)
def test_a_configuration_that_transformers_refuses_is_one_line(
    half: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = write_published("LLaVA 1.5", tmp_path) / "config.json"
    facts = json.loads(file.read_text())
    facts[half] |= changes
    file.write_text(json.dumps(facts))
    with pytest.raises(RecipeError, match=f"^{re.escape(f'start: {file}: {message}')}$"):
        model_of(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("tokenizer.json", "{}", "the tokenizer of {folder} cannot be read: KeyError: 'added_tokens'"),
        ("tokenizer.json", '{"ver', "the tokenizer of {folder} cannot be read: JSONDecodeError: "),
        ("tokenizer_config.json", "no", "the tokenizer of {folder} cannot be read: JSONDecodeError: "),
        ("chat_template.json", "no", "{folder}/chat_template.json is not JSON: "),
    ],
)
def test_a_damaged_file_of_a_tokenizer_is_named(file: str, text: str, message: str, tmp_path: Path) -> None:
    write_published("Qwen2-VL", tmp_path)
    (tmp_path / file).write_text(text)
    expected = re.escape(message.replace("{folder}", str(tmp_path)))
    with pytest.raises(ValueError, match=f"^{expected}"):
        load_tokenizer(str(tmp_path))
