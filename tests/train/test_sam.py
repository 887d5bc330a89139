"""SAM's tower gives the output and gradients of transformers, and loads the published weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, SamConfig, SamModel, SamVisionConfig, SamVisionModel
from transformers.models.sam import SamImageProcessorPil

from tests.train.parity import of_own_shapes
from tests.train.tiny import TINY, randomise, tiny_model
from vlmdata_train.model.parts import make_part

SAM = {  # windows of 3 patches do not divide the grid of 8 x 8
    "hidden_size": 32, "output_channels": 6, "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": 64,
    "patch_size": 8, "window_size": 3, "global_attn_indexes": [1, 3], "mlp_dim": 40,
}  # fmt: skip


def test_sam_gives_the_output_of_transformers_and_a_gradient_to_every_weight() -> None:
    part = make_part("encoder", {"sam": {"config": SAM}})
    tower, facts = part.build().eval(), part.facts()
    randomise(tower)
    reference = SamVisionModel(SamVisionConfig(**SAM)).eval()
    reference.load_state_dict(tower.model.state_dict())
    pixels = torch.randn(2, 3, 64, 64)
    ours, theirs = tower(pixels), reference(pixels).last_hidden_state  # (P, C, R, R) in transformers
    torch.testing.assert_close(ours.transpose(1, 2).unflatten(2, (8, 8)), theirs, rtol=1e-5, atol=1e-5)
    assert ours.shape[1:] == (facts.grid(64, 64).tokens, facts.width) == (64, 6)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    for name, weight in tower.model.named_parameters():
        assert weight.grad is not None and weight.grad.any()
        torch.testing.assert_close(weight.grad, reference.get_parameter(name).grad, rtol=1e-4, atol=1e-4)


def test_sam_in_a_model_with_an_mlp_makes_a_token_of_each_patch() -> None:
    model = tiny_model(replace(TINY, encoder={"sam": {"config": SAM}}, abstractor="mlp"))
    batch = of_own_shapes(model, [(64, 64), (30, 80)])
    assert batch.image_token_counts.tolist() == [64, 64]
    model.logits(replace(batch, pixels=torch.stack(list(batch.pixels)))).square().sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize("side", [None, 3])
def test_sam_loads_the_published_tower_and_adds_a_reducer(side: int | None, tmp_path: Path) -> None:
    whole = SamModel(SamConfig(vision_config=SAM, prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 8},
                               mask_decoder_config={"hidden_size": 16, "num_attention_heads": 1, "mlp_dim": 8}))  # fmt: skip
    randomise(whole)
    whole.save_pretrained(tmp_path)
    part = make_part("encoder", {"sam": {"name": str(tmp_path), "side": side}})
    tower = part.build().eval()
    for name, value in tower.model.vision_encoder.state_dict().items():
        assert torch.equal(value, whole.vision_encoder.state_dict()[name])
    expected = (64, 6) if side is None else (9, 24)
    assert tower(torch.randn(1, 3, 64, 64)).shape[1:] == (part.facts().grid(64, 64).tokens, part.facts().width) == expected
    assert part.facts().mean == tuple(SamImageProcessorPil().image_mean)


def test_sam_refuses_a_model_of_another_kind(tmp_path: Path) -> None:
    AutoConfig.for_model("clip_vision_model").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has a tower of type clip_vision_model"):
        make_part("encoder", {"sam": {"name": str(tmp_path)}}).facts()
