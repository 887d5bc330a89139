"""Each shipped training recipe names valid parts, counts an image's tokens as published, and trains what it says.

Hub models cannot be downloaded here, so tiny configurations of the same model types replace them."""

import json
import re
import shlex
from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.train.parity import of_own_shapes
from tests.train.test_encoders import FAMILIES, SMALL
from tests.train.test_sam import SAM
from tests.train.tiny import LLAMA
from vlmdata.recipe import read_settings
from vlmdata.shipped import PIPELINES
from vlmdata_train.convert.checkpoint_folder import model_of
from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.freezing import apply_parts
from vlmdata_train.model.image_plan import ImagePlan
from vlmdata_train.model.model import PLANNED, build_model
from vlmdata_train.model.model_recipe import ModelRecipe, Part
from vlmdata_train.model.parts import make_part
from vlmdata_train.recipe_file import load, read_tree

pytestmark = pytest.mark.whole

NAMES = sorted(path.stem for path in PIPELINES.glob("train/*.yaml") if path.stem != "tiny")
HALF = (0.5, 0.5, 0.5)


def facts(image_size: int, patch_size: int, **more: Any) -> EncoderFacts:
    """Return facts of a published tower. The width does not change the number of tokens."""
    return EncoderFacts(8, image_size, patch_size, HALF, HALF, **more)


CLIP_336, SIGLIP_384 = facts(336, 14), facts(384, 14)
TWO = replace(facts(1024, 16, side=24), towers=(facts(1024, 16, side=24), facts(384, 16)))
# the facts of the published tower of each recipe, and the tokens of an image of 1024 x 768 px in the published model
PUBLISHED: dict[str, tuple[EncoderFacts, int]] = {
    "align": (CLIP_336, 576), "instruct": (CLIP_336, 576), "vip_llava": (CLIP_336, 576), "llava_next": (CLIP_336, 2340),
    "llava_onevision": (SIGLIP_384, 4725), "qwen2_vl": (facts(56, 14), 999), "qwen2_5_vl": (facts(56, 14), 999),
    "internvl": (facts(448, 14), 3328), "idefics2": (facts(384, 14), 64), "idefics3": (facts(364, 14), 13 * 169),
    "smolvlm": (facts(512, 16), 13 * 64), "paligemma": (facts(224, 14), 256), "pixtral": (facts(64, 16), 64 * 48),
    "fuyu": (facts(300, 30), 35 * 26), "blip2": (facts(224, 14, extra=1), 32), "minigpt4": (facts(224, 14, extra=1), 32),
    "instructblip": (facts(224, 14, extra=1), 32), "llama_vid": (facts(224, 14), 2),
    "yi_vl": (facts(448, 14), 1024), "cogvlm": (facts(490, 14), 1225), "honeybee": (facts(224, 14), 144),
    "molmo": (CLIP_336, 1152), "molmo2": (facts(378, 14), 955),
    "deepseek_vl": (TWO, 576), "prismatic": (SIGLIP_384, 729), "flamingo": (facts(224, 14), 1),
    "idefics": (facts(224, 14, extra=1), 1),
    "llava1": (facts(224, 14), 256), "mixture_of_depths": (CLIP_336, 576), "deepseek_vl_small": (facts(384, 16), 576),
    "qwen_vl": (facts(448, 14), 256), "minicpm_v": (facts(384, 14), 5 * 64), "phi3_vision": (CLIP_336, 1921),
    "moondream2": (facts(378, 14), 729), "qwen3_vl": (facts(32, 16, levels=3), 768), "mistral3": (facts(28, 14), 37 * 28),
    "otterhd": (facts(300, 30), 35 * 26), "beit3": (facts(224, 16), 14 * 14),
    "kosmos2": (facts(224, 14, extra=1), 64),
    "llama32_vision": (facts(560, 14, extra=1, tile_grids=((1, 1), (1, 2), (2, 1), (2, 2))), 1),
}  # fmt: skip


def planned(name: str, **settings: Any) -> int:
    """Return the tokens of an image of 1024 x 768 px, with these settings of the model's parts."""
    model = replace(load(name).model, **settings)
    plan = ImagePlan(facts=PUBLISHED[name][0], **{kind: make_part(kind, getattr(model, kind)) for kind in PLANNED})
    return plan.tokens_of(1024, 768)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_has_as_many_tokens_as_in_the_published_model(name: str) -> None:
    recipe, (_, tokens) = load(name), PUBLISHED[name]
    assert planned(name) == tokens
    assert tokens < recipe.batches.sample_tokens <= (recipe.batches.tokens if recipe.batches.pack else 1 << 20)


def test_an_image_has_as_many_tokens_as_in_other_versions_of_published_models() -> None:
    assert planned("phi3_vision", preprocessing={"hd_crops": {"max_crops": 4}}) == 757  # Phi-3.5-Vision
    assert planned("minicpm_v", abstractor={"query_resampler": {"queries": 96, "grid_queries": False}}) == 480  # 2.5


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_published_systems_names_the_recipe(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs/models.md").read_text()
    assert f"`{name}`" in page.split("## Published systems\n")[1].split("\n### ")[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_part_of_a_recipe_has_a_name_and_parameters_that_exist(name: str) -> None:
    model = load(name).model
    for kind, entry in asdict(model).items():
        if entry is not None:
            make_part(kind, entry)
    for tower in model.encoder.get("side_by_side", {}).get("towers", ()):
        make_part("encoder", tower)


VISION = {"image_size": 64, "patch_size": 8}
GEMMA = {"model_type": "gemma", **{key: value for key, value in LLAMA.items() if key != "model_type"}, "head_dim": 8}
OPT = {"model_type": "opt", "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
       "word_embed_proj_dim": 32, "max_position_embeddings": 512}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {  # a tiny configuration of the type of each published model
    "openai/clip-vit-large-patch14-336": {"model_type": "clip_vision_model", **SMALL, **VISION, "num_hidden_layers": 12},
    "openai/clip-vit-large-patch14": {"model_type": "clip_vision_model", **SMALL, **VISION},
    **{f"laion/CLIP-ViT-{size}": {"model_type": "clip_vision_model", **SMALL}
       for size in ("H-14-laion2B-s32B-b79K", "bigG-14-laion2B-39B-b160k")},
    **{f"google/siglip-{size}": {"model_type": "siglip_vision_model", **SMALL, **VISION}
       for size in ("so400m-patch14-384", "so400m-patch14-224", "base-patch16-512")},
    "google/siglip2-so400m-patch14-384": {"model_type": "siglip_vision_model", **SMALL, **VISION, "num_hidden_layers": 9},
    "google/siglip-large-patch16-384": {"model_type": "siglip_vision_model", **SMALL},
    "facebook/dinov2-with-registers-large": {"model_type": "dinov2_with_registers", **SMALL, "mlp_ratio": 2},
    "facebook/sam-vit-base": SAM,
    "OpenGVLab/InternVL3-1B-hf": {"model_type": "internvl_vision", **SMALL, **FAMILIES["internvl_vision"]},
    "Qwen/Qwen2-VL-7B-Instruct": {"depth": 2, "embed_dim": 16, "num_heads": 2, "hidden_size": 32},
    "Qwen/Qwen2.5-VL-7B-Instruct": {"depth": 2, "hidden_size": 16, "num_heads": 2, "intermediate_size": 20,
                                    "out_hidden_size": 16, "fullatt_block_indexes": [1]},
    "Salesforce/blip2-opt-2.7b": {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2,
                                  "image_size": 32, "patch_size": 8},
    "mistral-community/pixtral-12b": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8,
                                      "intermediate_size": 20, "patch_size": 16, "image_size": 128},
    "mistralai/Mistral-Small-3.1-24B-Base-2503": {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8, "intermediate_size": 20,
        "patch_size": 14, "image_size": 112},
    "Qwen/Qwen3-VL-8B-Instruct": {
        "depth": 2, "hidden_size": 16, "num_heads": 2, "intermediate_size": 20, "out_hidden_size": 16, "patch_size": 16,
        "deepstack_visual_indexes": [0], "num_position_embeddings": 16},
    "meta-llama/Llama-3.2-11B-Vision": {
        "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_global_layers": 1, "attention_heads": 2,
        "image_size": 28, "patch_size": 14, "intermediate_layers_indices": [0], "vision_output_dim": 32},
    "Qwen/Qwen1.5-7B": {**LLAMA, "model_type": "qwen2"}, "Qwen/Qwen3-8B": {**LLAMA, "model_type": "qwen3", "head_dim": 8},
    "microsoft/phi-1_5": {**LLAMA, "model_type": "phi"}, "microsoft/Phi-3-mini-128k-instruct": {**LLAMA, "model_type": "phi3"},
    **{f"Qwen/{name}": {**LLAMA, "model_type": "qwen2"}
       for name in ("Qwen2-7B", "Qwen2-7B-Instruct", "Qwen2.5-7B-Instruct", "Qwen2.5-0.5B-Instruct")},
    **dict.fromkeys(
        ("lmsys/vicuna-7b-v1.3", "deepseek-ai/deepseek-coder-1.3b-base",
         "lmsys/vicuna-7b-v1.5", "01-ai/Yi-6B-Chat", "meta-llama/Llama-2-7b-hf", "meta-llama/Llama-3.1-8B-Instruct",
         "HuggingFaceTB/SmolLM2-135M-Instruct", "deepseek-ai/deepseek-llm-7b-base"), LLAMA),
    "meta-llama/Llama-3.1-8B": {**LLAMA, "num_hidden_layers": 4, "num_attention_heads": 8, "rms_norm_eps": 1e-5},
    "huggyllama/llama-7b": {**LLAMA, "num_key_value_heads": 4},
    "mistralai/Mistral-7B-v0.1": {**LLAMA, "model_type": "mistral"},
    **{f"mistralai/Mistral-{name}": {**LLAMA, "model_type": "mistral", "rms_norm_eps": 1e-5}
       for name in ("Nemo-Base-2407", "Small-24B-Base-2501")},
    "google/gemma-2b": GEMMA,
    "facebook/opt-125m": {**OPT, "num_hidden_layers": 4}, "facebook/opt-2.7b": OPT,
    "microsoft/kosmos-2-patch14-224": {"embed_dim": 32, "layers": 2, "ffn_dim": 48, "attention_heads": 4},
    "togethercomputer/RedPajama-INCITE-Base-3B-v1": {
        "model_type": "gpt_neox", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4},
    "adept/persimmon-8b-base": {"model_type": "persimmon", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                                "num_attention_heads": 4},
}  # fmt: skip
EVA = {"timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token", "image_size": 42}
OPEN_CLIP = {
    "EVA01-g-14": EVA, "EVA02-E-14-plus": EVA,
    "ViT-L-14": {"width": 32, "layers": 3, "head_width": 16, "patch_size": 8, "image_size": 32},
}  # fmt: skip
Q_FORMER = {"queries": 4, "width": 16, "layers": 2, "heads": 2, "mlp_width": 24}
SIZES: dict[str, dict[str, Any]] = {  # parameters that must fit the tiny models
    "q_former": Q_FORMER, "instruct_q_former": {**Q_FORMER, "tokenizer": "bytes"},
    "context_tokens": {"q_former": Q_FORMER, "tokenizer": "bytes"},
    "c_abstractor": {"side": 2, "width": 16, "blocks": 1}, "gated_mlp": {"mlp_width": 24},
    "gated_resampler": {"latents": 4, "layers": 1, "heads": 2, "key_heads": 1, "head_width": 8, "mlp_width": 48},
    "perceiver": {"latents": 4, "layers": 1, "heads": 2, "head_width": 8}, "mrope": {"sections": [1, 1, 2]},
    "smart_size": {"min_pixels": 3136, "max_pixels": 10_000}, "edges": {"shortest": 16, "longest": 48},
    "longest_edge": {"longest": 64}, "native": {"max_height": 60, "max_width": 60}, "square_tiles": {"longest": 128},
    "siglip_navit": {"table": 8}, "sam": {"side": 4}, "slices": {"side": 32}, "paired_crops": {"margin": 1},
    "query_resampler": {"queries": 4, "head_width": 8}, "mlp": {"mlp_width": 24}, "raw_patches": {"image_size": 64},
    "interleaved_mrope": {"sections": [2, 1, 1]}, "overlapping_crops": {"margin": 1},
    "attention_pool": {"heads": 2, "head_width": 8, "mlp_width": 24}, "kosmos_resampler": {"head_width": 8},
    "cross_attention": {"every": 2, "first": 1, "key_heads": 2, "mlp_width": 48},
}  # fmt: skip


def tiny(entry: Any) -> Any:
    """Return a recipe's entry with tiny models in place of published ones, and sizes that fit them."""
    if not isinstance(entry, Mapping):
        return entry
    name, parameters = next(iter(entry.items()))
    values = {key: value for key, value in (parameters or {}).items() if key not in ("name", "pretrained", "model", "dtype")}
    values.update({key: value for key, value in SIZES.get(name, {}).items() if key in values})
    if name == "hf_causal":
        values.pop("tokenizer", None)
    if name == "side_by_side":
        values["towers"] = [tiny(tower) for tower in values["towers"]]
    if "name" in (parameters or {}):
        values["config"] = MODELS[parameters["name"]]
        if name == "siglip_navit":
            values["config"] = {key: value for key, value in values["config"].items() if key != "model_type"}
    if "model" in (parameters or {}):
        values["config"] = OPEN_CLIP[parameters["model"]]
    if name in ("hf_vision", "open_clip") and "image_size" in values:
        values["image_size"] = 2 * 32 if name == "hf_vision" else 42
    return {name: values}


def tiny_parts(name: str) -> ModelRecipe:
    """Return the parts of a recipe with tiny models."""
    return ModelRecipe(**{kind: tiny(entry) for kind, entry in asdict(load(name).model).items()})


def after_training(name: str) -> tuple[Any, dict[str, Tensor]]:
    """Train the tiny version of a recipe for two steps on noise. Return the model and its weights before.

    The first step only opens gates that are closed at birth."""
    recipe = load(name)
    torch.manual_seed(0)
    model = build_model(tiny_parts(name)).train()
    parts = {part: replace(table, lora=table.lora and replace(table.lora, rank=2)) for part, table in recipe.parts.items()}
    apply_parts(model.parts(), parts)
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    batch = of_own_shapes(model, [(64, 64), (64, 64)])
    if len({tile.shape for tile in batch.pixels}) == 1:
        batch = replace(batch, pixels=torch.stack(list(batch.pixels)))
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2, weight_decay=0.0)
    for _ in range(2):
        loss = functional.cross_entropy(model.logits(batch)[0, :-1], batch.input_ids[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
    return model, before


@pytest.mark.parametrize("name", NAMES)
def test_training_changes_the_parts_that_a_recipe_trains_and_no_others(name: str) -> None:
    model, before = after_training(name)
    parts = load(name).parts
    changed = {key for key, weight in model.named_parameters() if not torch.equal(weight, before[key])}
    assert all(model.get_parameter(key).requires_grad for key in changed)
    for part in ("encoder", "abstractor", "fusion", "language"):
        weights = {key for key in before if key.startswith(f"{part}.")}
        table = parts.get(part, Part())
        assert bool(changed & weights) == bool(weights and (table.is_trained or table.rules)), part


def test_deepseek_trains_only_the_reducer_and_the_neck_of_its_first_tower() -> None:
    model, before = after_training("deepseek_vl")
    trained = {key for key in before if key.startswith("encoder.") and model.get_parameter(key).requires_grad}
    neck = "encoder.towers.0.model.vision_encoder.neck."
    assert trained == {key for key in before if key.startswith((neck, "encoder.towers.0.reducer."))}


def commands_of(path: Path) -> list[list[str]]:
    """Return the arguments of `vlmdata train` and of `torchrun -m vlmdata_train` in the comment of a recipe."""
    lines = [line.removeprefix("#") for line in path.read_text().splitlines() if line.startswith("#")]
    commands = re.findall(
        r"^   (?:vlmdata train|torchrun .*? -m vlmdata_train) (.*)", "\n".join(lines).replace("\\\n", ""), re.M
    )
    return [shlex.split(command, comments=True) for command in commands]


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_in_the_comment_of_a_recipe_are_valid(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("CHECKPOINT").mkdir()
    Path("CHECKPOINT/recipe.json").write_text(json.dumps({"model": asdict(load(name).model)}))
    commands = commands_of(PIPELINES / "train" / f"{name}.yaml")
    assert any(command[1] == name for command in commands) or name in ("align", "instruct")
    for verb, *rest in commands:
        recipe, words = (verb, rest) if rest[0] == "--set" else (rest[0], rest[1:])
        parser = ArgumentParser()
        parser.add_argument("--set", action="append", default=[])
        settings = read_settings(parser.parse_args(words).set)
        settings |= {"start": "CHECKPOINT"} if "start" in settings else {}
        if verb == "stages":
            assert {place.split(".")[1] for place in settings} == set(read_tree(PIPELINES / f"stages/{recipe}.yaml")["stages"])
            continue
        model = load(recipe, stage=verb, overrides=settings).model or model_of("CHECKPOINT")
        for kind, entry in asdict(model).items():
            if entry is not None:
                make_part(kind, entry)
