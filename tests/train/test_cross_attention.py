"""Gated cross-attention: closed gates change nothing, the latest image is read, samples never see others' images."""

from dataclasses import replace

import pytest
import torch

from tests.train.tiny import TINY, pack, sample, tiny_model
from vlmdata_train.cross_packing import latest_images, reading_block_mask
from vlmdata_train.model import VisionLanguageModel, build_model

pytestmark = pytest.mark.whole

FLAMINGO = replace(
    TINY, fusion={"cross_attention": {"every": 1, "qk_norm": True}},
    abstractor={"perceiver": {"latents": 5, "layers": 1, "heads": 2, "head_width": 8}},
)  # fmt: skip


def logits(model: VisionLanguageModel, *samples: tuple[list[int], torch.Tensor]) -> torch.Tensor:
    """Return the logits of packed samples, (T, vocabulary)."""
    with torch.no_grad():
        return model.logits(pack(model, samples))[0]


@pytest.mark.parametrize("backend", ["segments", "flex"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_packed_equals_separate_and_without_segments_it_does_not(backend: str) -> None:
    model = tiny_model(FLAMINGO)
    model.attention = backend
    samples = [sample(model, 10, 1, 1), sample(model, 7, 0, 2), sample(model, 140, 3, 3), sample(model, 9, 1, 4)]
    packed = pack(model, samples, padding=7)
    naive = pack(model, samples)
    naive.segment_ids.fill_(1)  # positions restart as they should; only the segments are forgotten
    start = 0
    with torch.no_grad():
        together, mixed = model.logits(packed)[0], model.logits(naive)[0]
    for one in samples:
        alone = logits(model, one)
        end = start + len(alone)
        assert (together[start:end] - alone).abs().max() < 1e-5
        assert start == 0 or (mixed[start:end] - alone).abs().max() > 0.01
        start = end


def test_closed_gates_leave_the_language_model_as_it_is() -> None:
    model = build_model(FLAMINGO).eval()
    ids, pixels = sample(model, 12, 2, 1)
    with torch.no_grad():
        alone = build_language_logits(model, ids)
        assert torch.equal(logits(model, (ids, pixels)), logits(model, (ids, 255 - pixels)))
        torch.testing.assert_close(logits(model, (ids, pixels)), alone)


def build_language_logits(model: VisionLanguageModel, ids: list[int]) -> torch.Tensor:
    """Return the logits of the language model alone, run by transformers' own attention."""
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_config(model.language.config, attn_implementation="sdpa").eval()
    plain.load_state_dict(model.language.state_dict())
    return plain(torch.tensor([ids])).logits[0]


def test_a_token_reads_the_latest_image_alone() -> None:
    model = tiny_model(replace(FLAMINGO, fusion={"cross_attention": {"every": 2}}))  # layer 0 only: nothing spreads before
    ids, pixels = sample(model, 12, 2, 1)
    first, second = [place for place, token in enumerate(ids) if token == model.fusion.image_token_id]
    changed = pixels.clone()
    changed[0] = 255 - changed[0]

    def after_first_layer(pixels: torch.Tensor) -> torch.Tensor:
        batch, found = pack(model, [(ids, pixels)]), []
        hook = model.language.model.layers[0].register_forward_pre_hook(lambda layer, args: found.append(args[0][0]))
        with torch.no_grad():
            model(batch)
        hook.remove()
        return found[0]

    moved = (after_first_layer(pixels) - after_first_layer(changed)).abs().amax(-1) > 1e-6
    assert moved.tolist() == [first <= place < second for place in range(len(ids))]


def test_a_step_without_images_reaches_every_weight() -> None:
    model = tiny_model(FLAMINGO).train()
    model.logits(pack(model, [sample(model, 12, 0, 1)])).square().sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def test_generation_with_a_cache_equals_the_full_forward() -> None:
    model = tiny_model(FLAMINGO)
    ids, pixels = sample(model, 12, 2, 5)
    [new] = model.generate(pack(model, [(ids, pixels)]), max_new_tokens=5, stop_ids=[])
    for number in new:
        values = logits(model, (ids, pixels))[-1]
        values[[model.fusion.image_token_id, *range(len(model.tokenizer), len(values))]] = -torch.inf
        assert int(values.argmax()) == number
        ids = [*ids, number]


def test_images_are_numbered_through_rows_and_never_looked_for_in_another_sample() -> None:
    marks = torch.tensor([[0, 1, 0, 1, 0, 0, 1], [0, 0, 1, 0, 0, 0, 0]], dtype=torch.bool)
    segments = torch.tensor([[1, 1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 2, 0]])
    assert latest_images(marks, segments).tolist() == [[-1, 0, 0, 1, -1, -1, 2], [-1, -1, 3, 3, 3, -1, -1]]


def test_the_block_mask_holds_every_pair_and_only_those() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.sort(torch.randint(0, 6, (300,), generator=generator)).values
    tokens[torch.rand(300, generator=generator) < 0.3] = -1
    features = torch.arange(6).repeat_interleave(torch.tensor([40, 3, 200, 1, 60, 7]))
    mask = reading_block_mask(tokens, features)
    held = torch.zeros(300, len(features), dtype=torch.bool)
    for block in range(mask.kv_num_blocks.shape[-1]):
        for column in mask.kv_indices[0, 0, block, : mask.kv_num_blocks[0, 0, block]].tolist():
            held[block * 128 : block * 128 + 128, column * 128 : column * 128 + 128] = True
    expected = tokens[:, None] == features
    assert not (expected & ~held).any()
    assert not held.all(), "some blocks must be skipped"
