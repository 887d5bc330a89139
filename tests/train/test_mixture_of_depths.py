"""Mixture of depths: chosen image tokens pass a layer, others skip it, and packing, generation and padding change nothing."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from tests.train.test_visual_experts import gradients, logits, padded
from tests.train.tiny import LLAMA, TINY, pack, sample, tiny_model
from vlmdata_train.fusions.mixture_of_depths import Candidates
from vlmdata_train.model.attention import AttentionPlan, plan_attention
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.generate import generate
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.repeated_blocks import blocks_of, recompute

pytestmark = pytest.mark.whole

FOUR = {**LLAMA, "num_hidden_layers": 4}


def depths(language: dict[str, Any] = FOUR, **options: Any) -> ModelRecipe:
    """Return the tiny recipe with mixture of depths."""
    return replace(TINY, fusion={"mixture_of_depths": options}, language={"hf_causal": {"config": language}})


def samples_of(model: VisionLanguageModel) -> list[tuple[list[int], Tensor]]:
    """Return three samples with one, two and no images."""
    return [sample(model, 12, 1, 1), sample(model, 9, 2, 2), sample(model, 7, 0, 3)]


def without_router(model: VisionLanguageModel) -> VisionLanguageModel:
    """Set the routers to zero, so that every score is 0 and every weight of an update is 1."""
    for weight in model.fusion.parameters():
        torch.nn.init.zeros_(weight)
    return model


@pytest.mark.parametrize("family", [{}, {"model_type": "phi"}, {"model_type": "opt", "ffn_dim": 48, "dropout": 0.0}], ids=str)
def test_full_capacity_with_a_weight_of_1_equals_tokens_with_all_gradients(family: dict[str, Any]) -> None:
    model = without_router(tiny_model(depths({**FOUR, **family}, capacity=1.0))).train()
    plain = tiny_model(replace(TINY, language={"hf_causal": {"config": {**FOUR, **family}}})).train()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith("fusion.")})
    for batch in (pack(model, samples_of(model), padding=3), padded(model, samples_of(model))):
        torch.testing.assert_close(model.logits(batch), plain.logits(batch), rtol=1e-5, atol=1e-5)
        found, wanted = gradients(model, batch), gradients(plain, batch)
        routers = {name for name in found if name.startswith("fusion.")}
        assert len(routers) == 2 and all(found[name].any() for name in routers), "the routers learn also at a score of 0"
        torch.testing.assert_close({name: found[name] for name in found if name not in routers}, wanted, rtol=1e-4, atol=1e-6)


def test_without_capacity_image_tokens_leave_the_layer_unchanged() -> None:
    model = tiny_model(depths(capacity=0.0))
    seen: list[Tensor] = []
    block = model.language.model.layers[1]
    block.register_forward_pre_hook(lambda module, args: seen.append(args[0]), prepend=True)
    block.register_forward_hook(lambda module, args, output: seen.append(output))
    batch = pack(model, samples_of(model))
    logits(model, *samples_of(model))
    before, after = seen
    images = batch.input_ids == model.fusion.image_token_id
    assert torch.equal(before[images], after[images])
    assert ((before - after)[~images].abs().amax(-1) > 1e-4).all()


def test_the_best_tokens_of_each_image_pass() -> None:
    marks = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 1, 0]], dtype=torch.bool)
    candidates = Candidates.of(marks, [3, 2, 2], [2, 1, 1])
    rows, excess = candidates.choose(torch.tensor([0.5, -0.1, 0.2, -9.0, -8.0, 3.0, 3.0]))
    assert rows.tolist() == [0, 1, 3, 4, 6, 7, 9]  # at equal scores the earlier token
    torch.testing.assert_close(excess, torch.tensor([0.0, 0.5, 0.2, 0.0, -8.0, 3.0, 0.0]).tanh())


def by_masks(model: VisionLanguageModel, batch: Batch) -> Tensor:
    """Return the logits of a batch of one row, where layers process all tokens and masks hide the keys of skipping tokens."""
    packing = plan_attention(batch.segment_ids)
    hidden, decoder = model.embed(batch, packing), model.language.model
    angles = decoder.rotary_emb(hidden, position_ids=batch.position_ids)
    same = batch.segment_ids[0][:, None] == batch.segment_ids[0]
    for number, layer in enumerate(decoder.layers):
        rows, excess = torch.arange(hidden.shape[1]), torch.zeros(hidden.shape[1])
        if number % 2:
            candidates = packing.images.candidates
            rows, excess = candidates.choose(model.fusion.routers[number // 2](hidden[0, candidates.images]))
        passes = torch.zeros(hidden.shape[1], dtype=torch.bool).index_fill(0, rows, True)
        plan = AttentionPlan(
            "mask", masks={None: (same.tril() & (passes | torch.eye(len(passes), dtype=torch.bool)))[None, None]}
        )
        update = layer.forward(hidden, position_embeddings=angles, packing=plan) - hidden  # without hooks
        hidden = hidden + update * torch.zeros(len(passes)).index_copy(0, rows, 1 + excess)[:, None]
    return model.logits_of(decoder.norm(hidden))


@pytest.mark.parametrize("capacity", [0.3, 0.8])
def test_shorter_rows_equal_masks_over_all_tokens_with_all_gradients(capacity: float) -> None:
    model = tiny_model(depths(capacity=capacity))
    batch = pack(model, samples_of(model))
    found, wanted = model.logits(batch), by_masks(model, batch)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    names, weights = zip(*model.named_parameters(), strict=True)
    for name, one, other in zip(
        names, *(torch.autograd.grad(out.square().mean(), weights) for out in (found, wanted)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("capacity", [0.5, 0.3, 0.0])
@pytest.mark.parametrize("positions", ["rope", "shared"])
def test_packed_and_padded_samples_equal_each_sample_alone(capacity: float, positions: str) -> None:
    model = tiny_model(replace(depths(capacity=capacity), positions=positions))
    samples = samples_of(model)
    alone = [logits(model, one) for one in samples]
    for backend in ("segments", "flex"):
        model.attention = backend
        together = logits(model, *samples).split([len(ids) for ids, _ in samples])
        for found, wanted in zip(together, alone, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        with torch.no_grad():
            table = model.logits(padded(model, samples))
        for found, wanted in zip(table, alone, strict=True):
            torch.testing.assert_close(found[: len(wanted)], wanted, rtol=1e-5, atol=1e-5)


def test_later_tokens_change_nothing_before_them_outside_their_image() -> None:
    model = tiny_model(depths())
    ids, pixels = sample(model, 14, 2, 1)
    before = logits(model, (ids, pixels))
    second = ids.index(model.fusion.image_token_id) + model.tokens_of(32, 32) + 2  # where the second image begins
    changed = torch.cat([pixels[:1], 255 - pixels[1:]])
    moved = (logits(model, (ids, changed)) - before).abs().amax(-1) > 1e-6
    assert not moved[:second].any() and moved[second:].any()
    moved = (logits(model, ([*ids[:-1], 3], pixels)) - before).abs().amax(-1) > 1e-6
    assert moved.tolist() == [False] * (len(ids) - 1) + [True]


@pytest.mark.parametrize("first", [0, 1])
def test_generation_of_rows_with_unequal_images_equals_the_full_forward(first: int) -> None:
    model = tiny_model(depths(capacity=0.4, first=first))
    prompts = samples_of(model)
    rows = generate(model, padded(model, prompts), max_new_tokens=5, stop_ids=[])
    for (prompt, pixels), new in zip(prompts, rows, strict=True):
        ids = prompt
        for number in new:
            values = logits(model, (ids, pixels))[-1]
            values[[model.fusion.image_token_id, *range(len(model.tokenizer), len(values))]] = -torch.inf
            assert int(values.argmax()) == number
            ids = [*ids, number]


def test_layers_that_tokens_skip_cache_fewer_keys() -> None:
    model = tiny_model(depths(capacity=0.25))
    prompt = sample(model, 12, 2, 1)  # 12 text tokens and two images of 16 tokens
    caches: list[Any] = []
    model.language.model.register_forward_pre_hook(
        lambda module, args, kwargs: caches.append(kwargs[model.cache_name]), with_kwargs=True
    )
    generate(model, pack(model, [prompt]), max_new_tokens=3, stop_ids=[])
    assert [layer.keys.shape[2] for layer in caches[0].layers] == [44 + 2, 12 + 8 + 2] * 2


def test_positions_on_three_axes_stay_also_in_generation() -> None:
    axes: Any = {"mrope": {"sections": (1, 1, 2)}}
    model = without_router(tiny_model(replace(depths(capacity=1.0), positions=axes)))
    plain = tiny_model(replace(depths(), fusion="tokens", positions=axes))
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith("fusion.")})
    batch = replace(padded(model, samples_of(model)), grids=torch.tensor([[1, 4, 4]] * 3))
    torch.testing.assert_close(model.logits(batch), plain.logits(batch), rtol=1e-5, atol=1e-5)
    found, wanted = (generate(one, batch, max_new_tokens=5, stop_ids=[]) for one in (model, plain))
    assert found == wanted


@pytest.mark.slow
def test_compiled_blocks_give_the_same_gradients() -> None:
    model = tiny_model(depths()).train()
    batches = [pack(model, samples_of(model)), pack(model, [sample(model, 15, 2, 4)]), pack(model, samples_of(model)[2:])]
    wanted = [gradients(model, batch) for batch in batches]
    for block in blocks_of(model.language):
        block.compile(backend="aot_eager")  # runs all of the compiler except code generation
    for batch, one in zip(batches, wanted, strict=True):
        torch.testing.assert_close(gradients(model, batch), one, rtol=1e-5, atol=1e-6)


def test_every_weight_learns_and_recomputation_changes_no_gradient() -> None:
    model = tiny_model(depths()).train()
    batches = pack(model, samples_of(model)), pack(model, [sample(model, 15, 2, 4)])
    wanted = gradients(model, *batches)
    assert wanted.keys() == dict(model.named_parameters()).keys()
    assert all(gradient.any() for name, gradient in wanted.items() if name.startswith("fusion."))
    recompute(blocks_of(model.language), [True] * 4)
    torch.testing.assert_close(gradients(model, *batches), wanted)


def test_a_batch_without_images_gives_the_routers_gradients_of_zeros() -> None:
    model = tiny_model(depths()).train()
    found = gradients(model, pack(model, samples_of(model)[2:]))
    assert found.keys() == dict(model.named_parameters()).keys()
    assert not any(gradient.any() for name, gradient in found.items() if name.startswith("fusion."))


@pytest.mark.parametrize(
    ("language", "options", "message"),
    [
        ({"model_type": "mistral", "sliding_window": 6}, {}, "does not support language models with sliding windows"),
        ({}, {"first": 4}, "first must be less than the number of layers, 4"),
        ({}, {"capacity": 1.5}, "capacity must be between 0 and 1, not 1.5"),
        ({}, {"every": 0}, "every must be 1 or more and first 0 or more, not 0 and 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(language: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=re.escape(message)):
        build_model(depths({**FOUR, **language}, **options))


@pytest.mark.slow
def test_new_images_trigger_no_compilation_after_the_first_batches() -> None:
    """The layer and each of its two hooks are compiled for the first sizes, and the layer and a hook again for any sizes."""
    model = tiny_model(depths())
    model.attention = "flex"
    lengths = [(60, 1), (44, 2), (28, 3)]  # text tokens and images of one sample, 76 tokens each
    batches = [pack(model, [sample(model, length, images, images)]) for length, images in lengths]
    torch._dynamo.reset()
    compiled = CompileCounterWithBackend("eager")
    with torch.no_grad():
        expected = [model.logits(batch) for batch in batches]
        for block in blocks_of(model.language):
            block.compile(backend=compiled, fullgraph=True)
        counts = []
        for batch, wanted in zip(batches, expected, strict=True):
            torch.testing.assert_close(model.logits(batch), wanted, rtol=1e-5, atol=1e-5)
            counts.append(compiled.frame_count)
    assert counts == [4, 5, 5]
