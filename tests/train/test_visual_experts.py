"""CogVLM's experts change nothing as copies of the base weights; with other weights, the first layer changes image tokens
only."""

import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from bench.image_tokens import process_every_token
from tests.train.runs import MODEL, tiny_recipe, write_data
from tests.train.test_lora import updates_of
from tests.train.tiny import LLAMA, TINY, pack, randomise, rows, sample, tiny_model
from vlmdata_train.convert.restore import restore
from vlmdata_train.fusions.visual_experts import Experts
from vlmdata_train.loop.loop import run_training
from vlmdata_train.model.attention import plan_attention
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.freezing import apply_parts
from vlmdata_train.model.generate import generate
from vlmdata_train.model.lora import merge_lora
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import Lora, Part
from vlmdata_train.model.repeated_blocks import blocks_of, recompute
from vlmdata_train.positions.shared import shared_positions

pytestmark = pytest.mark.whole

COGVLM = replace(TINY, fusion="visual_experts", positions="shared")


def logits(model: VisionLanguageModel, *samples: tuple[list[int], torch.Tensor]) -> torch.Tensor:
    """Return the logits of packed samples, (T, vocabulary)."""
    with torch.no_grad():
        return model.logits(pack(model, samples))[0]


def test_experts_that_copy_the_base_weights_equal_the_plain_decoder() -> None:
    torch.manual_seed(0)
    model = build_model(COGVLM).eval()
    plain = tiny_model(replace(TINY, positions="shared"))
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith("fusion.")})
    one = sample(model, 12, 2, 1)
    torch.testing.assert_close(logits(model, one), logits(plain, one))


def test_other_experts_change_only_logits_from_the_first_image_onwards() -> None:
    model = tiny_model(COGVLM)
    ids, pixels = sample(model, 12, 1, 1)
    first = ids.index(model.fusion.image_token_id)
    before = logits(model, (ids, pixels))
    with torch.no_grad():
        for weight in model.fusion.parameters():
            weight.mul_(1.5)
    moved = (logits(model, (ids, pixels)) - before).abs().amax(-1) > 1e-4
    assert not moved[:first].any()
    assert moved[first:].all()


def test_packed_equals_separate_and_every_weight_learns() -> None:
    model = tiny_model(COGVLM)
    samples = [sample(model, 12, 1, 1), sample(model, 9, 2, 2), sample(model, 7, 0, 3)]
    together = logits(model, *samples).split([len(ids) for ids, _ in samples])
    for packed, one in zip(together, samples, strict=True):
        assert (packed - logits(model, one)).abs().max() < 1e-5
    model.train().logits(pack(model, samples)).square().sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    assert isinstance(model.fusion, Experts)
    assert len(list(model.fusion.parameters())) == sum(
        1 for layer in model.language.model.layers for module in layer.modules() if isinstance(module, nn.Linear)
    )


def test_generation_with_a_cache_equals_the_full_forward() -> None:
    model = tiny_model(COGVLM)
    ids, pixels = sample(model, 12, 1, 5)
    [new] = generate(model, pack(model, [(ids, pixels)]), max_new_tokens=4, stop_ids=[])
    for number in new:
        values = logits(model, (ids, pixels))[-1]
        values[[model.fusion.image_token_id, *range(len(model.tokenizer), len(values))]] = -torch.inf
        assert int(values.argmax()) == number
        ids = [*ids, number]


def with_lora(*parts: str, dtype: torch.dtype = torch.float32) -> VisionLanguageModel:
    """Make a model with updates for the layers of these parts, where nothing else is trained."""
    model = tiny_model(COGVLM).to(dtype)
    lora = Part(lora=Lora(rank=4, alpha=8, dropout=0.0))
    apply_parts(model.parts(), {name: lora if name in parts else Part(frozen=True) for name in model.parts()})
    randomise(nn.ParameterList(updates_of(model).values()), seed=3)
    return model


def test_lora_of_the_language_model_acts_on_text_and_lora_of_the_experts_on_images() -> None:
    model = with_lora("language", "fusion")
    layer, expert = model.language.model.layers[1].mlp.gate_proj, model.fusion.layers[1]["mlp_gate_proj"]
    assert not isinstance(layer, nn.Linear) and not isinstance(expert, nn.Linear)
    seen: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]), prepend=True)  # before the text is selected
    layer.register_forward_hook(lambda module, args, output: seen.append(output))
    batch = pack(model, [sample(model, 12, 2, 1), sample(model, 9, 1, 2)])
    with torch.no_grad():
        model(batch)
    given, found = seen
    images = (batch.input_ids == model.fusion.image_token_id)[..., None]
    with torch.no_grad():
        text = nn.functional.linear(given, layer.base_layer.weight + layer.get_delta_weight("default"))
        image = nn.functional.linear(given, expert.base_layer.weight + expert.get_delta_weight("default"))
    torch.testing.assert_close(found, torch.where(images, image, text))


@pytest.mark.parametrize("parts", [("language",), ("fusion",), ("language", "fusion")], ids=str)
def test_merging_updates_changes_no_logit_also_during_generation(parts: tuple[str, ...]) -> None:
    model = with_lora(*parts)
    samples = [sample(model, 20, 1, 1), sample(model, 15, 2, 2)]
    before, generated = logits(model, *samples), generate(model, pack(model, samples[:1]), max_new_tokens=4, stop_ids=[])
    assert merge_lora(model) * 2 == sum(len(list(model.fusion.parameters())) * 2 for _ in parts)
    torch.testing.assert_close(logits(model, *samples), before, rtol=1e-4, atol=1e-5)
    assert generate(model, pack(model, samples[:1]), max_new_tokens=4, stop_ids=[]) == generated
    one = logits(model, samples[0])
    with torch.no_grad():
        model.fusion.layers[0]["self_attn_v_proj"].weight.mul_(1.5)
    assert (logits(model, samples[0]) - one).abs().max() > 1e-3, "the experts must still be hooked in"


def test_merging_bf16_weights_only_rounds_them() -> None:
    exact, model = with_lora("language", "fusion"), with_lora("language", "fusion", dtype=torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    one = sample(model, 20, 2, 1)
    before, true = logits(model, one), logits(exact, one)
    merge_lora(model)
    assert (logits(model, one) - true).norm() < 0.05 * true.norm()
    assert (before - true).norm() < 0.05 * true.norm()


@pytest.mark.parametrize("how", ["recomputed", pytest.param("compiled", marks=pytest.mark.slow)])
def test_recomputed_and_compiled_blocks_give_the_updates_the_same_gradients(how: str) -> None:
    gradients = []
    for changed in (False, True):
        model = with_lora("language", "fusion").train()
        blocks = blocks_of(model.language)
        if changed and how == "recomputed":
            recompute(blocks, [True] * len(blocks))
        for block in blocks if changed and how == "compiled" else []:
            block.compile(backend="aot_eager")  # runs all of the compiler except code generation
        for seed in (1, 4):  # another batch, whose image positions are not compiled in
            model.logits(pack(model, [sample(model, 20, 1, seed), sample(model, 15, 2, 2)])).square().mean().backward()
        gradients.append({name: weight.grad for name, weight in updates_of(model).items()})
    assert all(gradient is not None and gradient.any() for gradient in gradients[0].values())
    torch.testing.assert_close(gradients[1], gradients[0])


def test_a_checkpoint_with_lora_restores_the_model_and_starts_another_run(tmp_path: Path) -> None:
    data, lora = write_data(tmp_path / "data"), {"lora": {"rank": 2, "alpha": 4}}
    parts = {"encoder": {"frozen": True}, "language": lora, "fusion": lora}
    recipe = tiny_recipe(
        data, tmp_path / "one", steps=2, parts=parts, model={**MODEL, "fusion": "visual_experts", "positions": "shared"}
    )
    model, _ = restore(run_training(recipe).checkpoint, "cpu")
    one = sample(model, 12, 2, 1)
    before = logits(model, one)
    merge_lora(model)
    torch.testing.assert_close(logits(model, one), before, rtol=1e-4, atol=1e-5)

    again = tiny_recipe(
        data, tmp_path / "two", steps=1, parts=parts, lr=0.0, model=asdict(recipe.model),
        start=str(tmp_path / "one/checkpoints/step_00000002"),
    )  # fmt: skip
    second, _ = restore(run_training(again).checkpoint, "cpu")
    assert updates_of(second)
    torch.testing.assert_close(logits(second, one), before, rtol=1e-4, atol=1e-5)


def test_the_first_and_last_token_of_an_image_have_their_own_positions_with_ends() -> None:
    """CogVLM's code numbers [text, image of 5 tokens, text, text] as [0, 1, 2, 2, 2, 3, 4, 5]."""
    marks = torch.tensor([[0, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 1, 0]], dtype=torch.bool)
    segments = torch.tensor([[1] * 8 + [2] * 5])
    found = shared_positions(marks, segments, torch.tensor([5, 2, 1]), ends=True)
    assert found.tolist() == [[0, 1, 2, 2, 2, 3, 4, 5, 0, 1, 2, 3, 4]]


def test_each_of_two_adjacent_images_takes_one_position() -> None:
    marks = torch.tensor([[0, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0]], dtype=torch.bool)  # images of 2, 3 and 2 tokens
    segments = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2]])
    assert shared_positions(marks, segments, torch.tensor([2, 3, 2])).tolist() == [[0, 1, 1, 2, 2, 2, 3, 0, 1, 1, 2]]


def gradients(model: VisionLanguageModel, *batches: Batch) -> dict[str, torch.Tensor]:
    """Return the gradients of the summed losses of some batches, where all forward passes precede the backward pass."""
    model.zero_grad()
    sum(model.logits(batch).square().mean() for batch in batches).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


EXPERTS = {"all": {}, "feed_forward": {"layers": "feed_forward"}, "last": {"last_is_text": True, "shared_last": 1}}


@pytest.mark.parametrize("options", EXPERTS.values(), ids=EXPERTS)
@pytest.mark.parametrize(
    "language",
    [LLAMA, {**LLAMA, "model_type": "gpt_neox"}, {**LLAMA, "model_type": "opt", "ffn_dim": 48, "dropout": 0.0}],
    ids=str,
)
def test_routed_tokens_give_the_same_results_and_gradients_as_a_mask(options: dict, language: dict) -> None:
    recipe = replace(TINY, fusion={"visual_experts": options}, language={"hf_causal": {"config": language}})
    model, masked = tiny_model(recipe), tiny_model(recipe)
    process_every_token(masked.fusion)
    samples = [sample(model, 12, 1, 1), sample(model, 9, 2, 2), sample(model, 7, 0, 3)]
    for batch in (pack(model, samples, padding=3), pack(model, samples[2:]), padded(model, samples)):
        torch.testing.assert_close(model.logits(batch), masked.logits(batch), rtol=1e-6, atol=1e-6)
        found, wanted = gradients(model.train(), batch), gradients(masked.train(), batch)
        assert found.keys() == wanted.keys() == dict(model.named_parameters()).keys()
        assert {name for name in wanted if "fusion" in name and not wanted[name].any()} == (
            set() if len(batch.pixels) else {name for name in wanted if "fusion" in name}
        ), "zero rows give gradients of zeros"
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def padded(model: VisionLanguageModel, samples: list[tuple[list[int], torch.Tensor]]) -> Batch:
    """Make a batch with a row for each sample."""
    length = max(len(ids) for ids, _ in samples)
    table = [[*ids, *[0] * (length - len(ids))] for ids, _ in samples]
    segments = [[1] * len(ids) + [0] * (length - len(ids)) for ids, _ in samples]
    return rows(model, table, [list(range(length))] * len(samples), segments, torch.cat([pixels for _, pixels in samples]))


def test_the_whole_of_cogvlm_packs_generates_and_learns_the_vectors_around_the_patches() -> None:
    parts = {"abstractor": {"gated_mlp": {"mlp_width": 40, "ends": True}}, "positions": {"shared": {"ends": True}}}
    model = tiny_model(replace(TINY, preprocessing="resize", fusion={"visual_experts": {"last_is_text": True}}, **parts))
    samples = [sample(model, 12, 1, 1), sample(model, 9, 2, 2)]
    assert model.tokens_of(640, 480) == 16 + 2
    together = logits(model, *samples).split([len(ids) for ids, _ in samples])
    for packed, one in zip(together, samples, strict=True):
        torch.testing.assert_close(packed, logits(model, one), rtol=1e-5, atol=1e-5)
    found = gradients(model.train(), pack(model, samples))
    assert found.keys() == dict(model.named_parameters()).keys()
    assert found["abstractor.4.begin"].any() and found["abstractor.4.end"].any()
    ids, pixels = samples[1]
    [new] = generate(model.eval(), pack(model, [(ids, pixels)]), max_new_tokens=3, stop_ids=[])
    for number in new:
        values = logits(model, (ids, pixels))[-1]
        values[[model.fusion.image_token_id, *range(len(model.tokenizer), len(values))]] = -torch.inf
        assert int(values.argmax()) == number
        ids = [*ids, number]


def test_experts_of_a_padded_batch_equal_each_sample_alone() -> None:
    model = tiny_model(COGVLM)
    samples = [sample(model, 12, 1, 1), sample(model, 9, 2, 2)]
    with torch.no_grad():
        together = model.logits(padded(model, samples))
    for row, one in zip(together, samples, strict=True):
        torch.testing.assert_close(row[: len(one[0])], logits(model, one), rtol=1e-5, atol=1e-5)


def test_flex_and_segments_give_the_same_logits() -> None:
    model = tiny_model(COGVLM)
    samples = [sample(model, 12, 1, 1), sample(model, 9, 2, 2), sample(model, 7, 0, 3)]
    segments = logits(model, *samples)
    model.attention = "flex"
    torch.testing.assert_close(logits(model, *samples), segments, rtol=1e-5, atol=1e-5)


def test_recomputation_uses_the_rows_of_its_own_batch() -> None:
    model = tiny_model(COGVLM).train()
    batches = pack(model, [sample(model, 20, 1, 1)]), pack(model, [sample(model, 15, 2, 2), sample(model, 7, 0, 3)])
    wanted = gradients(model, *batches)
    recompute(blocks_of(model.language), [True, True])
    torch.testing.assert_close(gradients(model, *batches), wanted)


def test_beit_3_has_experts_of_the_feed_forward_layers_and_shares_the_last_layer() -> None:
    options = {"layers": "feed_forward", "shared_last": 1}
    model = tiny_model(replace(TINY, fusion={"visual_experts": options}))
    assert sorted(model.fusion.state_dict()) == [f"layers.0.mlp_{name}_proj.weight" for name in ("down", "gate", "up")]
    one = sample(model, 12, 1, 1)
    ids, first = one[0], one[0].index(model.fusion.image_token_id)
    before = logits(model, one)
    with torch.no_grad():
        model.fusion.layers[0]["mlp_up_proj"].weight.mul_(1.5)
    moved = (logits(model, one) - before).abs().amax(-1) > 1e-4
    assert moved.tolist() == [place >= first for place in range(len(ids))]


def test_the_last_token_of_an_image_passes_through_the_text_weights() -> None:
    model = tiny_model(replace(COGVLM, fusion={"visual_experts": {"last_is_text": True}}))
    batch = pack(model, [sample(model, 12, 2, 1)])
    packing = plan_attention(batch.segment_ids)
    model.embed(batch, packing)
    places = (batch.input_ids[0] == model.fusion.image_token_id).nonzero().flatten()
    lasts = places[batch.image_token_counts.cumsum(0) - 1].tolist()
    assert packing.images.images.tolist() == [place for place in places.tolist() if place not in lasts]


@pytest.mark.parametrize(
    ("language", "options", "message"),
    [
        ({"model_type": "mixtral", "num_local_experts": 2}, {}, "the weight mlp.gate.weight is not in a linear layer"),
        (
            {"model_type": "qwen2_moe", "num_experts": 4},
            {"layers": "feed_forward"},
            "is not in a linear layer, so it cannot get",
        ),
        (
            {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4},
            {},
            "the weight attn.c_attn.weight is not in a linear",
        ),
        ({}, {"shared_last": 2}, "no layer gets experts. `shared_last` is 2, and LlamaForCausalLM has 2 layers"),
        ({}, {"shared_last": -1}, "shared_last must be 0 or more, not -1"),
    ],
)
def test_models_without_a_layer_for_each_expert_are_refused(language: dict, options: dict, message: str) -> None:
    recipe = replace(TINY, fusion={"visual_experts": options}, language={"hf_causal": {"config": {**LLAMA, **language}}})
    with pytest.raises(Exception, match=re.escape(message)):
        build_model(recipe)


@pytest.mark.slow
def test_blocks_are_compiled_once_for_batches_with_images_and_once_for_those_without() -> None:
    """The number of image tokens is a dynamic size, but 0 is special."""
    model = tiny_model(COGVLM)
    batches = [pack(model, [sample(model, 60 - n, n % 3, n), sample(model, 20 + n, 1, 5)]) for n in range(1, 5)]
    length = max(batch.input_ids.shape[1] for batch in batches)
    batches = [pack(model, [sample(model, 60 - n, n % 3, n), sample(model, 20 + n, 1, 5)], length - batch.input_ids.shape[1])
               for n, batch in enumerate(batches, 1)]  # fmt: skip
    text = pack(model, [sample(model, length, 0, 1)])
    torch._dynamo.reset()
    compiled = CompileCounterWithBackend("eager")
    model.attention = "flex"
    with torch.no_grad():
        expected = [model.logits(batch) for batch in [*batches, text]]
        for block in blocks_of(model.language):
            block.compile(backend=compiled, fullgraph=True)
        for batch, wanted in zip(batches, expected, strict=False):
            torch.testing.assert_close(model.logits(batch), wanted, rtol=1e-5, atol=1e-5)
        with_images = compiled.frame_count
        torch.testing.assert_close(model.logits(text), expected[-1], rtol=1e-5, atol=1e-5)
    assert (with_images, compiled.frame_count) == (1, 2)
