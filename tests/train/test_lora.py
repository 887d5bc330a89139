"""LoRA of every part of every design: merged and unmerged models give the same logits, only the updates are trained, and a
merged model is a plain model again."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.train.parity import VISION, of_own_shapes
from tests.train.test_abstractors import CASES
from tests.train.test_encoders import FAMILIES, SMALL
from tests.train.test_parity_deepseek import HIGH as SAM
from tests.train.test_parity_deepseek import TWO_TOWERS as DEEPSEEK
from tests.train.test_parity_idefics2 import RECIPE as IDEFICS_2
from tests.train.test_parity_kosmos import RECIPE as KOSMOS_2
from tests.train.test_parity_mllama import RECIPE as MLLAMA
from tests.train.test_parity_pixtral import RECIPE as PIXTRAL
from tests.train.test_parity_pixtral import RECIPE_3 as MISTRAL_3
from tests.train.test_parity_qwen import RECIPE as QWEN_2
from tests.train.test_parity_qwen import RECIPE_3 as QWEN_3
from tests.train.test_parity_qwen import RECIPE_25 as QWEN_25
from tests.train.tiny import TINY, TOWER, pack, randomise, sample, tiny_model
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.freezing import apply_parts, check_gates
from vlmdata_train.model.lora import add_lora, linear_layers, merge_lora
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import Lora, ModelRecipe, Part
from vlmdata_train.model.parts import part_names
from vlmdata_train.model.unused_weights import set_unused_aside

pytestmark = pytest.mark.whole

LORA = Lora(rank=2, alpha=4, dropout=0.0)
FROZEN = Part(frozen=True)
SEVERAL = {"side_by_side": {"towers": ({"open_clip": {"config": TOWER}}, {"hf_vision": {"config": {
    "model_type": "dinov2", **SMALL, "mlp_ratio": 2}}})}}  # fmt: skip
FUSIONS = {
    "tokens": TINY, "added_tokens": replace(TINY, fusion="added_tokens"), "deep_tokens": QWEN_3,
    "cross_attention": replace(TINY, fusion={"cross_attention": {"every": 1}}),
    "visual_experts": replace(TINY, fusion="visual_experts", positions="shared"),
    "mixture_of_depths": replace(TINY, fusion={"mixture_of_depths": {"first": 0}}),
}  # fmt: skip
ENCODERS = {
    "blip2": [replace(TINY, encoder={"blip2": {"config": VISION}})],
    "open_clip": [TINY], "side_by_side": [replace(TINY, encoder=SEVERAL), DEEPSEEK],
    "qwen2_vl": [QWEN_2], "qwen2_5_vl": [QWEN_25],
    "hf_vision": [
        replace(TINY, encoder={"hf_vision": {"config": {"model_type": family, **SMALL, **options}}})
        for family, options in FAMILIES.items()
    ],
    "qwen3_vl": [QWEN_3], "pixtral": [PIXTRAL], "siglip_navit": [IDEFICS_2], "mistral3": [MISTRAL_3],
    "mllama": [MLLAMA, replace(TINY, encoder=MLLAMA.encoder, preprocessing="tiles_by_aspect")],
    "sam": [replace(TINY, encoder=SAM)],
    "raw_patches": [replace(TINY, encoder={"raw_patches": {"image_size": 32, "patch_size": 8}})],
}  # fmt: skip
FOR = {"hybrid_mlp": DEEPSEEK}  # the design of an abstractor that is not for one tower
DESIGNS = [
    *[("abstractor", name, replace(FOR.get(name, TINY), abstractor={name: options})) for name, options in CASES.items()],
    (
        "abstractor",
        "context_tokens with a Q-Former",
        replace(TINY, abstractor={"context_tokens": {"q_former": CASES["instruct_q_former"]}}),
    ),
    ("abstractor", "mlp with an arrangement", PIXTRAL),
    ("abstractor", "linear with an arrangement", replace(PIXTRAL, abstractor="linear")),
    *[(part, name, recipe) for name, recipe in FUSIONS.items() for part in ("fusion", "language")],
    ("language", "kosmos2", KOSMOS_2),
    *[("encoder", f"{name} {number}", recipe) for name, all_of in ENCODERS.items() for number, recipe in enumerate(all_of)],
]
REFUSED = {  # abstractors that have no linear layer or are a single one
    ("abstractor", "linear"), ("abstractor", "linear with an arrangement"), ("abstractor", "identity"), ("fusion", "tokens"),
    ("fusion", "added_tokens"),
    ("fusion", "deep_tokens"), ("encoder", "raw_patches 0"),
}  # fmt: skip
LEARNING = [design for design in DESIGNS if design[:2] not in REFUSED]


def named(designs: list[tuple[str, str, ModelRecipe]]) -> Any:
    """Return the parameters of a test, with each design named after its part."""
    return pytest.mark.parametrize(("part", "recipe"), [pytest.param(p, r, id=f"{p}: {n}") for p, n, r in designs])


def batch_of(model: VisionLanguageModel) -> Batch:
    """Make two packed samples with three images, or one sample with two images of their own shapes."""
    if model.plan.preprocessing.__class__.__name__ in ("SmartSize", "LongestEdge", "Edges", "ResizePad"):
        return of_own_shapes(model, [(40, 22), (9, 30)])
    return pack(model, [sample(model, 9, 1, 1), sample(model, 20, 2, 2)], padding=3)


def with_lora(recipe: ModelRecipe, *parts: str, rest: Part = FROZEN) -> VisionLanguageModel:
    """Make a model whose parts have non-zero updates."""
    model = tiny_model(recipe)
    apply_parts(model.parts(), {name: Part(lora=LORA) if name in parts else rest for name in model.parts()})
    randomise(nn.ParameterList(updates_of(model).values()), seed=3)
    return model


def updates_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of all updates, by name."""
    return {name: weight for name, weight in model.named_parameters() if "lora_" in name}


def logits(model: VisionLanguageModel, batch: Batch) -> Tensor:
    """Return the logits of all tokens of all rows, (T, vocabulary)."""
    with torch.no_grad():
        return model.eval().logits(batch).flatten(0, 1)


def test_every_fusion_and_encoder_is_tested() -> None:
    assert sorted(FUSIONS) == part_names("fusion")
    assert sorted(ENCODERS) == part_names("encoder")


@named(LEARNING)
def test_merged_equals_unmerged_and_only_the_updates_have_a_gradient(part: str, recipe: ModelRecipe) -> None:
    plain = tiny_model(recipe)
    names, batch = list(plain.state_dict()), batch_of(plain)
    model = with_lora(recipe, part)
    updates = updates_of(model)
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} == set(updates)
    model.train().logits(batch).square().sum().backward()
    assert [name for name, weight in updates.items() if weight.grad is None or not weight.grad.any()] == []
    unmerged = logits(model, batch)
    assert merge_lora(model) * 2 == len(updates)
    assert (unmerged - logits(plain, batch)).abs().max() > 1e-3
    torch.testing.assert_close(logits(model, batch), unmerged, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == names


@named([design for design in DESIGNS if design[:2] in REFUSED])
def test_a_part_without_a_layer_for_an_update_is_refused_by_name(part: str, recipe: ModelRecipe) -> None:
    with pytest.raises(ValueError, match=f"^{part}: lora: .*\\. Train the part without `lora`\\.$"):
        with_lora(recipe, part)


def test_an_update_starts_at_zero_and_leaves_other_parts_trainable() -> None:
    model = tiny_model()
    batch = batch_of(model)
    plain = logits(model, batch)
    apply_parts(model.parts(), {"language": Part(lora=LORA), "encoder": FROZEN})
    torch.testing.assert_close(logits(model, batch), plain)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained - set(updates_of(model)) == {name for name, _ in model.named_parameters() if name.startswith("abstractor")}


def test_all_parts_can_be_merged_at_once_and_get_lora_again() -> None:
    """A run that starts from the checkpoint of a LoRA run does this."""
    recipe = replace(FUSIONS["visual_experts"], encoder=ENCODERS["hf_vision"][0].encoder)
    model = with_lora(recipe, "encoder", "abstractor", "fusion", "language")
    batch = batch_of(model)
    for _ in range(2):
        before, updates = logits(model, batch), len(updates_of(model))
        assert merge_lora(model) * 2 == updates
        torch.testing.assert_close(logits(model, batch), before, rtol=1e-4, atol=1e-5)
        apply_parts(model.parts(), dict.fromkeys(model.parts(), Part(lora=LORA)))
        assert len(updates_of(model)) == updates
        randomise(nn.ParameterList(updates_of(model).values()), seed=4)


def test_a_hook_of_a_layer_sees_its_update_and_can_be_removed() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    seen: list[Tensor] = []
    handle = module[0].register_forward_hook(lambda layer, args, kwargs, out: seen.append(out), with_kwargs=True)
    plain = module[0].weight.detach().clone()
    add_lora(module, LORA)
    randomise(nn.ParameterList(updates_of(module).values()))
    given = torch.randn(2, 3)
    module(given)
    merge_lora(module)
    module(given)
    assert not torch.allclose(module[0].weight, plain)
    for out in seen:
        torch.testing.assert_close(out, functional.linear(given, module[0].weight, module[0].bias))
    handle.remove()
    module(given)
    assert len(seen) == 2


class TakesWeights(nn.Module):
    """A tower in the style of other authors, with a layer whose weight is used without a call, a layer that is called, and
    torch's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.taken, self.called, self.after = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, pixels: Tensor) -> Tensor:
        states = self.called(functional.linear(pixels.flatten(2).transpose(1, 2), self.taken.weight, self.taken.bias))
        return self.attention(states, states, states, need_weights=False)[0]


def test_only_a_layer_that_is_called_gets_an_update() -> None:
    tower = TakesWeights()
    assert set_unused_aside(tower, 4, 4) == ["after.weight", "after.bias"]
    assert list(linear_layers(tower)) == ["called"]


def test_a_name_selects_only_the_layer_with_exactly_this_name() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.GELU(), nn.Linear(3, 3)))  # `1.0` also ends in `0`
    assert add_lora(module, LORA) == 2


def test_a_layer_used_in_two_places_has_one_shared_update() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    module.append(module[0])
    assert add_lora(module, LORA) == 1
    randomise(nn.ParameterList(updates_of(module).values()))
    given = torch.randn(2, 3)
    with torch.no_grad():
        before = module(given)
        assert merge_lora(module) == 1
        torch.testing.assert_close(module(given), before)
    assert module[0] is module[2] and isinstance(module[0], nn.Linear)


def test_lora_behind_closed_gates_is_refused_because_it_cannot_learn() -> None:
    model = tiny_model(FUSIONS["cross_attention"])
    table = {"fusion": Part(lora=LORA), "encoder": FROZEN}
    apply_parts(model.parts(), table)
    check_gates(model.parts(), table)
    with torch.no_grad():
        model.fusion.layers[1].mlp_gate.zero_()
    with pytest.raises(ValueError, match=r"^fusion: lora: 1 gate is 0, the first is layers.1.mlp_gate\."):
        check_gates(model.parts(), table)
    check_gates(model.parts(), {"encoder": Part(lora=LORA)})
