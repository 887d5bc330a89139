"""The towers of published designs have known facts without weights, and tiny towers of the same kinds learn."""

from typing import Any

import pytest
import torch

from tests.train.tiny import TOWER
from vlmdata_train.encoders.hf_vision import HfVision
from vlmdata_train.model.parts import make_part

pytestmark = pytest.mark.whole

EVA_02_TINY = {"timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token", "image_size": 42}
NFNET_TINY = {"timm_model_name": "nf_regnet_b0"}  # the smallest network without batch norms in timm

# towers of published designs: what a recipe writes, the grid at the tower's size, and the width
TOWERS: dict[str, tuple[dict[str, Any], int, int]] = {
    "CLIP ViT-L/14 of OpenAI": ({"model": "ViT-L-14-336", "pretrained": "openai"}, 24, 1024),
    "SigLIP so400m": ({"model": "ViT-SO400M-14-SigLIP-384", "pretrained": "webli", "layer": -1}, 27, 1152),
    "EVA01-g of BLIP-2": ({"model": "EVA01-g-14", "pretrained": "laion400m_s11b_b41k"}, 16, 1408),
    "EVA02-E of CogVLM": ({"model": "EVA02-E-14-plus", "pretrained": "laion2b_s9b_b144k", "image_size": 490}, 35, 1792),
    "OpenCLIP ViT-g": ({"model": "ViT-g-14", "pretrained": "laion2b_s34b_b88k"}, 16, 1408),
    "OpenCLIP ViT-bigG of Qwen-VL": ({"model": "ViT-bigG-14", "pretrained": "laion2b_s39b_b160k", "image_size": 448}, 32, 1664),
    "NFNet-F6 of Flamingo": (
        {"config": {"timm_model_name": "dm_nfnet_f6", "timm_model_pretrained": True, "image_size": 448}, "layer": -1}, 14, 3072,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", TOWERS)
def test_the_facts_of_a_published_tower_are_known_without_its_weights(name: str) -> None:
    parameters, side, width = TOWERS[name]
    part = make_part("encoder", {"open_clip": parameters})
    facts = part.facts()
    pixels = torch.zeros(1, 3, facts.image_size, facts.image_size, device="meta")
    found = part.bare().forward_intermediates(pixels, indices=[part.layers[0]], intermediates_only=True)
    assert found["image_intermediates"][0].shape == (1, width, side, side)
    assert (facts.grid(facts.image_size, facts.image_size).tokens, facts.width) == (side * side, width)
    if name == "NFNet-F6 of Flamingo":
        assert facts.mean == (0.485, 0.456, 0.406)  # ImageNet's, with which DeepMind's weights were trained


@pytest.mark.parametrize(
    ("model_type", "more", "side"),
    [  # CLIP-L/14-336, SigLIP so400m-384, DINOv2-L at 518 and InternViT-300M-448
        ("clip_vision_model", {"hidden_size": 1024, "num_attention_heads": 16, "image_size": 336, "patch_size": 14}, 24),
        ("siglip_vision_model", {"hidden_size": 1152, "num_attention_heads": 16, "image_size": 384, "patch_size": 14}, 27),
        ("dinov2", {"hidden_size": 1024, "num_attention_heads": 16, "image_size": 518, "patch_size": 14}, 37),
        ("internvl_vision", {"hidden_size": 1024, "image_size": [448, 448], "patch_size": [14, 14]}, 32),
    ],
)  # fmt: skip
def test_the_facts_of_a_tower_of_hugging_face_follow_from_its_configuration(
    model_type: str, more: dict[str, Any], side: int
) -> None:
    facts = HfVision(config={"model_type": model_type, **more}).facts()
    grid = facts.grid(facts.image_size, facts.image_size)
    assert (grid.rows, grid.columns, grid.extra, facts.width) == (side, side, 0, more["hidden_size"])


@pytest.mark.parametrize(
    ("parameters", "size"),
    [
        ({"config": EVA_02_TINY, "layer": -2}, 42), ({"config": EVA_02_TINY, "layer": -1, "tokens": "all", "norm": True}, 42),
        ({"config": {**NFNET_TINY, "image_size": 64}, "layer": -1}, 64),
        ({"config": {**NFNET_TINY, "image_size": 70}, "layer": -1}, 70),  # not a whole number of patches of 32 px
        ({"config": {**TOWER, "mlp_ratio": 4.9231}, "layer": -2}, 32),  # the ratio of ViT-bigG
    ],
)  # fmt: skip
def test_tiny_towers_of_the_published_kinds_have_their_grid_and_learn(parameters: dict[str, Any], size: int) -> None:
    part = make_part("encoder", {"open_clip": parameters})
    tower, facts = part.build(), part.facts()
    assert facts.image_size == size
    features = tower(torch.randn(2, 3, size, size))
    assert features.shape[1:] == (facts.grid(size, size).tokens, facts.width)
    (features * torch.randn_like(features)).sum().backward()
    assert [name for name, weight in tower.named_parameters() if weight.grad is None] == []


def test_an_nfnet_counts_a_patch_that_is_partly_in_the_image() -> None:
    part = make_part("encoder", {"open_clip": {"config": NFNET_TINY, "layer": -1}})
    tower, facts = part.build().eval(), part.facts()
    for height, width in [(64, 96), (65, 97), (95, 33), (32, 31)]:
        assert tower(torch.zeros(1, 3, height, width)).shape[1] == facts.grid(height, width).tokens


@pytest.mark.parametrize("parameters", [{"layer": -2}, {"layer": (-1, -2)}, {"layer": -1, "tokens": "all"}])
@pytest.mark.parametrize("tower", [{"config": NFNET_TINY}, {"model": "RN50"}], ids=["NFNet", "ResNet"])
def test_layers_of_a_tower_of_convolutions_are_refused(tower: dict[str, Any], parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Set `layer: -1`"):
        make_part("encoder", {"open_clip": {**tower, **parameters}}).facts()


def test_a_resnet_of_clip_needs_whole_patches() -> None:
    with pytest.raises(ValueError, match="must be a multiple of 32"):
        make_part("encoder", {"open_clip": {"model": "RN50", "layer": -1, "image_size": 240}}).facts()
