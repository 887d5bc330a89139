"""Towers return the features of their own libraries, for the requested layers and tokens."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    Blip2Config,
    Blip2ForConditionalGeneration,
    CLIPConfig,
    CLIPModel,
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)

from tests.train.tiny import TOWER, randomise
from vlmdata_train.encoders.hf_vision import HfVision
from vlmdata_train.encoders.open_clip import OpenClip
from vlmdata_train.encoders.raw_patches import RawPatches
from vlmdata_train.encoders.side_by_side import SideBySide
from vlmdata_train.model.parts import make_part, part_names

pytestmark = pytest.mark.whole

SMALL = {
    "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "clip_vision_model": {}, "siglip_vision_model": {}, "dinov2": {"mlp_ratio": 2}, "vit": {},
    "dinov2_with_registers": {"num_register_tokens": 3, "mlp_ratio": 2}, "dinov3_vit": {"num_register_tokens": 2},
    "internvl_vision": {"image_size": [32, 32], "patch_size": [8, 8]},
}  # fmt: skip


def test_every_encoder_is_tested() -> None:
    # tested with their families in test_parity_* and test_sam
    elsewhere = ["blip2", "mistral3", "mllama", "pixtral", "qwen2_5_vl", "qwen2_vl", "qwen3_vl", "sam", "siglip_navit"]
    assert part_names("encoder") == sorted(["hf_vision", "open_clip", "raw_patches", "side_by_side", *elsewhere])


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_hf_vision_gives_the_hidden_states_of_transformers(family: str) -> None:
    config = {"model_type": family, **SMALL, **FAMILIES[family]}
    part, patches = (HfVision(config=config, layer=(-2, 1, -1), tokens=tokens) for tokens in ("all", "patches"))
    tower, bare = part.build().eval(), patches.build().eval()
    randomise(tower)
    bare.load_state_dict(tower.state_dict())
    reference = AutoModel.from_config(AutoConfig.for_model(**config)).eval()
    reference.load_state_dict(tower.model.state_dict())
    pixels, facts = torch.randn(2, 3, 32, 32), part.facts()
    with torch.no_grad():
        states = reference(pixels, output_hidden_states=True).hidden_states
        ours = tower(pixels)
        torch.testing.assert_close(ours, torch.cat([states[-2], states[1], states[-1]], -1), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(bare(pixels), ours[:, facts.extra :])
    assert ours.shape[1:] == (facts.grid(32, 32).tokens, facts.width)
    assert patches.facts().grid(32, 32).tokens == 16


def test_hf_vision_with_the_last_norm_equals_the_output_of_the_tower() -> None:
    for family in ("siglip_vision_model", "dinov2"):
        part = HfVision(config={"model_type": family, **SMALL, **FAMILIES[family]}, layer=-1, tokens="all", norm=True)
        tower, pixels = part.build().eval(), torch.randn(1, 3, 32, 32)
        randomise(tower)
        torch.testing.assert_close(tower(pixels), tower.model(pixels).last_hidden_state)


def test_hf_vision_loads_the_tower_of_a_clip_with_its_normalisation(tmp_path: Path) -> None:
    text = {**SMALL, "vocab_size": 50, "max_position_embeddings": 8}
    for name in ("image_size", "patch_size"):
        del text[name]
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=SMALL, projection_dim=16)).eval()
    randomise(clip)
    clip.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_processor_type": "CLIPImageProcessor", "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}'
    )
    part = HfVision(name=str(tmp_path))
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        states = clip.vision_model(pixels, output_hidden_states=True).hidden_states
        torch.testing.assert_close(part.build().eval()(pixels), states[-2][:, 1:])
    assert (part.facts().mean, part.facts().std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_hf_vision_loads_the_tower_of_a_whole_vision_language_model(tmp_path: Path) -> None:
    text = {"model_type": "qwen2", "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 30}  # fmt: skip
    vision = {**SMALL, **FAMILIES["internvl_vision"]}
    whole = InternVLForConditionalGeneration(InternVLConfig(vision_config=vision, text_config=text, image_token_id=5))
    randomise(whole)
    whole.save_pretrained(tmp_path)
    half = (0.5, 0.5, 0.5)
    tower = HfVision(name=str(tmp_path), layer=-1, mean=half, std=half).build()
    for name, value in whole.model.vision_tower.state_dict().items():
        assert torch.equal(value, tower.model.state_dict()[name])


def test_hf_vision_refuses_a_folder_without_the_weights_of_the_tower(tmp_path: Path) -> None:
    AutoModel.from_config(AutoConfig.for_model("vit", **SMALL)).save_pretrained(tmp_path)
    AutoConfig.for_model("dinov2", **SMALL).save_pretrained(tmp_path)  # the weights have the names of another model
    with pytest.raises(ValueError, match="has no weights of an image tower with the name encoder"):
        HfVision(name=str(tmp_path), mean=(0.5,) * 3, std=(0.5,) * 3).build()


def test_hf_vision_accepts_another_image_size() -> None:
    for family in ("siglip_vision_model", "dinov2"):
        part = HfVision(config={"model_type": family, **SMALL, **FAMILIES[family]}, image_size=48)
        assert part.facts().grid(48, 48).tokens == 36
        assert part.build()(torch.randn(1, 3, 48, 48)).shape == (1, 36, 32)


@pytest.mark.parametrize("layer", [-2, (1, 3)])
def test_open_clip_returns_the_outputs_of_its_blocks(layer: Any) -> None:
    part = OpenClip(config=TOWER, layer=layer, tokens="all")
    tower = part.build().eval()
    randomise(tower)
    seen: list[torch.Tensor] = []
    blocks = tower.visual.transformer.resblocks
    for block in blocks:
        block.register_forward_hook(lambda block, inputs, output: seen.append(output))
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tower.visual(pixels)
        outputs = list(seen)
        layers = (layer,) if isinstance(layer, int) else layer
        wanted = torch.cat([outputs[index if index < 0 else index - 1] for index in layers], -1)
        torch.testing.assert_close(tower(pixels), wanted)
    assert part.facts().grid(32, 32).tokens == 17


@pytest.mark.parametrize(
    ("model", "layer", "expected"),
    [("ViT-B-32", -2, (49, 768)), ("ViT-B-16-SigLIP", -1, (196, 768)), ("RN50", -1, (49, 2048))],
)
def test_the_facts_of_every_kind_of_open_clip_tower_are_right(model: str, layer: int, expected: tuple[int, int]) -> None:
    part = OpenClip(model=model, layer=layer)
    facts = part.facts()
    with torch.device("meta"):
        features = part.bare().forward_intermediates(
            torch.zeros(1, 3, facts.image_size, facts.image_size), indices=[layer], intermediates_only=True
        )["image_intermediates"][0]
    assert features.flatten(2).shape[1:] == expected[::-1]
    assert (facts.grid(facts.image_size, facts.image_size).tokens, facts.width) == expected
    assert facts.mean == ((0.5, 0.5, 0.5) if "SigLIP" in model else open_clip.OPENAI_DATASET_MEAN)


def test_open_clip_loads_a_folder_with_its_normalisation(tmp_path: Path) -> None:
    text = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
    whole = open_clip.CLIP(embed_dim=8, vision_cfg=TOWER, text_cfg=text)
    torch.save(whole.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    config = {
        "model_cfg": {"embed_dim": 8, "vision_cfg": TOWER, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    part = OpenClip(model=f"local-dir:{tmp_path}")
    assert torch.equal(part.build().visual.conv1.weight, whole.visual.conv1.weight)
    assert (part.facts().mean, part.facts().std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_raw_patches_are_the_pixels_in_reading_order() -> None:
    part = RawPatches(patch_size=2)
    pixels = torch.arange(3 * 4 * 6).view(1, 3, 4, 6).float()
    features = part.build()(pixels)
    assert features.shape == (1, 6, part.facts().width)
    assert features[0, 4].view(2, 2, 3)[1, 0].tolist() == pixels[0, :, 3, 2].tolist()  # the patch in row 1, column 1


def test_combined_towers_each_get_the_image_in_their_size_and_normalisation() -> None:
    clip = {"hf_vision": {"config": {"model_type": "clip_vision_model", **SMALL}, "mean": [0.4, 0.5, 0.6], "std": [0.2] * 3}}
    dino = {"hf_vision": {"config": {"model_type": "dinov2", **SMALL, "mlp_ratio": 2, "image_size": 64, "patch_size": 16}}}
    part = SideBySide((clip, dino))
    towers = part.build().eval()
    image = torch.rand(1, 3, 32, 32)
    seen: list[torch.Tensor] = []
    towers.towers[1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        features = towers((image - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / 0.2)
    large = torch.nn.functional.interpolate(image, (64, 64), mode="bicubic", antialias=True)
    torch.testing.assert_close(seen[0], (large - 0.5) / 0.5, rtol=1e-4, atol=1e-5)
    assert features.shape == (1, 16, part.facts().width) == (1, 16, 64)
    torch.testing.assert_close(features[..., 32:], towers.towers[1](seen[0]))


def test_towers_with_different_grids_cannot_be_combined() -> None:
    fine = {"hf_vision": {"config": {"model_type": "dinov2", **SMALL, "patch_size": 4}}}
    coarse = {"hf_vision": {"config": {"model_type": "dinov2", **SMALL}}}
    with pytest.raises(ValueError, match="grids of 8 x 8, 4 x 4"):
        SideBySide((fine, coarse)).facts()


@pytest.mark.parametrize(
    ("part", "parameters", "message"),
    [
        (OpenClip, {}, "exactly one of model"),
        (OpenClip, {"model": "ViT-B-33"}, "Did you mean"),
        (OpenClip, {"config": TOWER, "layer": (1, -1)}, "or all negative"),
        (HfVision, {"config": {"hidden_size": 3}}, "model_type"),
        (HfVision, {"config": {}, "name": "x"}, "exactly one of name"),
    ],
)
def test_a_wrong_choice_is_refused(part: type, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        part(**parameters)


def test_a_layer_that_the_tower_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="layer must be 1 to 4"):
        HfVision(config={"model_type": "clip_vision_model", **SMALL}, layer=-5).build()


WHOLE: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "qwen2_vl": (Qwen2VLConfig, Qwen2VLForConditionalGeneration, {"depth": 1, "embed_dim": 16, "num_heads": 2}),
    "qwen2_5_vl": (
        Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration,
        {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 20, "out_hidden_size": 16},
    ),
    "qwen3_vl": (
        Qwen3VLConfig, Qwen3VLForConditionalGeneration,
        {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 20, "out_hidden_size": 16,
         "num_position_embeddings": 16, "deepstack_visual_indexes": []},
    ),
    "qwen3_vl (mixture of experts)": (
        Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration,
        {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 20, "out_hidden_size": 16,
         "num_position_embeddings": 16, "deepstack_visual_indexes": []},
    ),
    "mistral3": (
        Mistral3Config, Mistral3ForConditionalGeneration,
        {"model_type": "pixtral", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8,
         "intermediate_size": 20},
    ),
    "pixtral": (
        LlavaConfig, LlavaForConditionalGeneration,
        {"model_type": "pixtral", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8,
         "intermediate_size": 20},
    ),
    "siglip_navit": (
        Idefics2Config, Idefics2ForConditionalGeneration,
        {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20, "image_size": 32,
         "patch_size": 8},
    ),
}  # fmt: skip


def test_a_published_model_with_a_tower_of_another_kind_is_refused(tmp_path: Path) -> None:
    configuration, _, vision = WHOLE["qwen2_vl"]
    configuration(vision_config=vision).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"^encoder: the tower of .* is a qwen2_vl\S*, but this part needs a qwen3_vl"):
        make_part("encoder", {"qwen3_vl": {"name": str(tmp_path)}}).load_config()


@pytest.mark.parametrize("tower", sorted(WHOLE))
def test_the_tower_of_a_published_model_is_loaded_with_its_weights(tower: str, tmp_path: Path) -> None:
    configuration, model_of, vision = WHOLE[tower]
    text = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 30,
            "num_key_value_heads": 2}  # fmt: skip
    model_of(configuration(vision_config=vision, text_config=text)).save_pretrained(tmp_path)
    part = make_part("encoder", {tower.split()[0]: {"name": str(tmp_path)}})
    built, whole = part.build(), model_of.from_pretrained(tmp_path)
    theirs = whole.model.get_submodule(part.place)
    for name, value in built.model.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name])
    facts = part.facts()
    assert (facts.width, facts.patch_size) == (16, theirs.config.patch_size)
    side = 4 * facts.image_size
    assert built(torch.randn(2, 3, side, side)).shape == (2, facts.grid(side, side).tokens, 16)


def test_the_tower_of_blip2_is_loaded_with_its_weights_and_returns_the_last_states(tmp_path: Path) -> None:
    config = Blip2Config(vision_config=SMALL, text_config={"model_type": "llama", "vocab_size": 30, **SMALL})
    Blip2ForConditionalGeneration(config).save_pretrained(tmp_path)
    part = make_part("encoder", {"blip2": {"name": str(tmp_path)}})
    whole = Blip2ForConditionalGeneration.from_pretrained(tmp_path).eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        states = part.build().eval()(pixels)
        assert torch.equal(states, whole.vision_model(pixels).last_hidden_state)
    assert states.shape[1:] == (part.facts().grid(32, 32).tokens, part.facts().width)
