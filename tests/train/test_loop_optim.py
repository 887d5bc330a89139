"""The optimizer sets rates, weight decay and the schedule by part, and AdamW on bf16 weights is as exact as on fp32 ones."""

import pytest
import torch
from torch import nn

from vlmdata_train.loop.adamw import SplitAdamW, join, split
from vlmdata_train.loop.optim import make_optimizer, parameter_groups, schedule_factor, set_learning_rates
from vlmdata_train.model.freezing import apply_parts
from vlmdata_train.model.model_recipe import Lora, Part
from vlmdata_train.recipe import Optimizer


def test_splitting_a_weight_keeps_every_bit_and_rounds_to_nearest():
    torch.manual_seed(0)
    weight = torch.cat([torch.randn(10000) * 10.0 ** torch.randint(-30, 30, (10000,)), torch.tensor([0.0, -0.0, 1.0, 2**-130])])
    high, low = split(weight)
    assert torch.equal(join(high, low).view(torch.int32), weight.view(torch.int32))
    nearest = weight.to(torch.bfloat16)
    assert ((high.float() - weight).abs() <= (nearest.float() - weight).abs()).all()


def test_bf16_weights_are_updated_exactly_like_fp32_weights():
    """Steps far below bf16's resolution add up, while torch's AdamW on bf16 weights makes no progress."""
    torch.manual_seed(0)
    start = (torch.randn(64, 8) + 3).to(torch.bfloat16)
    weights = {"fp32": start.float().clone(), "split": start.clone(), "bf16": start.clone()}
    options = {"lr": 1e-4, "weight_decay": 0.1}
    p = {name: nn.Parameter(w) for name, w in weights.items()}
    optimizers = {
        "fp32": torch.optim.AdamW([p["fp32"]], **options),
        "split": SplitAdamW([p["split"]], **options),
        "bf16": torch.optim.AdamW([p["bf16"]], **options),
    }
    for _ in range(30):
        gradient = torch.randn(64, 8).to(torch.bfloat16)
        for name, optimizer in optimizers.items():
            p[name].grad = gradient.to(p[name].dtype)
            optimizer.step()
    whole = join(p["split"].data, optimizers["split"].state[p["split"]]["low"])
    assert torch.allclose(whole, p["fp32"], rtol=2e-6, atol=0)
    assert (p["bf16"] == start).float().mean() > 0.5


def test_a_first_moment_in_bf16_follows_closely():
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(64, 8).to(torch.bfloat16)) for _ in range(2)]
    weights[1].data.copy_(weights[0].data)
    kinds = (torch.float32, torch.bfloat16)
    optimizers = [SplitAdamW([w], lr=1e-2, first=kind) for w, kind in zip(weights, kinds, strict=True)]
    start = weights[0].float().clone()
    for _ in range(20):
        gradient = torch.randn(64, 8).to(torch.bfloat16)
        for w, optimizer in zip(weights, optimizers, strict=True):
            w.grad = gradient.clone()
            optimizer.step()
    assert optimizers[1].state[weights[1]]["exp_avg"].dtype == torch.bfloat16
    assert optimizers[1].state[weights[1]]["exp_avg_sq"].dtype == torch.float32
    moved = (weights[0].float() - start).norm()
    assert moved > 1 and (weights[0].float() - weights[1].float()).norm() < 0.03 * moved


def test_the_schedule_is_right_at_its_corners():
    assert schedule_factor("cosine", 0.05, 0.1) == pytest.approx(0.5)
    assert schedule_factor("cosine", 0.1, 0.1) == pytest.approx(1.0)
    assert schedule_factor("cosine", 0.55, 0.1) == pytest.approx(0.5)
    assert schedule_factor("cosine", 1.0, 0.1) == pytest.approx(0.0)
    assert schedule_factor("linear", 0.55, 0.1) == pytest.approx(0.5)
    assert schedule_factor("constant", 0.99, 0.0) == 1.0
    assert schedule_factor("linear", 1.0, 1.0) == 0.0


def two_parts() -> dict[str, nn.Module]:
    language = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 5))
    language[2].weight = language[0].weight  # tied to the embedding
    return {"encoder": nn.Linear(3, 4), "language": language}


def test_each_part_has_its_rate_and_only_matrices_decay():
    parts = two_parts()
    table = {"encoder": Part(lr=2e-6, weight_decay=0.5)}
    apply_parts(parts, table)
    groups = parameter_groups(parts, table, 1e-3, 0.1)
    described = [(g["label"], g["lr"], g["weight_decay"], sum(p.numel() for p in g["params"])) for g in groups]
    assert described[:2] == [("encoder", 2e-6, 0.5, 12), ("encoder", 2e-6, 0.0, 4)]
    assert described[2:] == [("language", 1e-3, 0.1, 20), ("language", 1e-3, 0.0, 13)]
    optimizer = make_optimizer(groups, Optimizer())
    assert set_learning_rates(optimizer, 0.5) == {"encoder": 1e-6, "language": 5e-4}


def test_frozen_parts_have_no_parameter_group_and_lora_parts_only_their_updates():
    parts = two_parts()
    table = {"encoder": Part(frozen=True), "language": Part(lora=Lora(rank=2, alpha=4))}
    apply_parts(parts, table)
    groups = parameter_groups(parts, table, 1e-3, 0.0)
    assert [g["label"] for g in groups] == ["language"]
    assert sum(p.numel() for p in groups[0]["params"]) == 2 * 4 + 5 * 2
