"""With gated cross-attention, closed gates change nothing, the latest image is read, and samples never see others' images."""

from dataclasses import replace

import pytest
import torch

from tests.train.tiny import TINY, pack, rows, sample, tiny_model
from vlmdata_train.model.cross_packing import Seen, cross_attend, first_of_runs, latest_images, reading_block_mask
from vlmdata_train.model.generate import generate
from vlmdata_train.model.model import VisionLanguageModel, build_model

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
def test_packed_samples_equal_separate_ones_only_with_segments(backend: str) -> None:
    model = tiny_model(FLAMINGO)
    model.attention = backend
    samples = [sample(model, 10, 1, 1), sample(model, 7, 0, 2), sample(model, 140, 3, 3), sample(model, 9, 1, 4)]
    packed = pack(model, samples, padding=7)
    naive = pack(model, samples)
    naive.segment_ids.fill_(1)  # positions still restart at each sample; only the segments are lost
    start = 0
    with torch.no_grad():
        together, mixed = model.logits(packed)[0], model.logits(naive)[0]
    for one in samples:
        alone = logits(model, one)
        end = start + len(alone)
        assert (together[start:end] - alone).abs().max() < 1e-5
        assert start == 0 or (mixed[start:end] - alone).abs().max() > 0.01
        start = end


def test_closed_gates_leave_the_language_model_unchanged() -> None:
    model = build_model(FLAMINGO).eval()
    ids, pixels = sample(model, 12, 2, 1)
    with torch.no_grad():
        alone = build_language_logits(model, ids)
        assert torch.equal(logits(model, (ids, pixels)), logits(model, (ids, 255 - pixels)))
        torch.testing.assert_close(logits(model, (ids, pixels)), alone)


def build_language_logits(model: VisionLanguageModel, ids: list[int]) -> torch.Tensor:
    """Return the logits of the language model alone, computed by transformers' own attention."""
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_config(model.language.config, attn_implementation="sdpa").eval()
    plain.load_state_dict(model.language.state_dict())
    return plain(torch.tensor([ids])).logits[0]


def test_a_token_reads_only_the_latest_image() -> None:
    # only layer 0 is changed, so nothing spreads before it
    model = tiny_model(replace(FLAMINGO, fusion={"cross_attention": {"every": 2}}))
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
    [new] = generate(model, pack(model, [(ids, pixels)]), max_new_tokens=5, stop_ids=[])
    for number in new:
        values = logits(model, (ids, pixels))[-1]
        values[[model.fusion.image_token_id, *range(len(model.tokenizer), len(values))]] = -torch.inf
        assert int(values.argmax()) == number
        ids = [*ids, number]


def test_images_are_numbered_across_rows_and_found_only_in_the_same_sample() -> None:
    marks = torch.tensor([[0, 1, 0, 1, 0, 0, 1], [0, 0, 1, 0, 0, 0, 0]], dtype=torch.bool)
    segments = torch.tensor([[1, 1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 2, 0]])
    assert latest_images(marks, segments).tolist() == [[-1, 0, 0, 1, -1, -1, 2], [-1, -1, 3, 3, 3, -1, -1]]


def test_a_run_of_images_is_read_from_its_first_image_and_ends_with_its_sample() -> None:
    marks = torch.tensor([[0, 1, 1, 0, 0, 1, 0, 1, 1, 1], [1, 1, 0, 1, 1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 1, 1, 1, 0, 0, 0]]) > 0
    segments = torch.tensor([[1] * 10, [1, 1, 1, 1, 1, 2, 2, 2, 0, 0], [1, 1, 2, 2, 2, 3, 4, 4, 4, 0]])
    latest = latest_images(marks, segments)
    assert latest.tolist() == [
        [-1, 0, 1, 1, 1, 2, 2, 3, 4, 5], [6, 7, 7, 8, 9, 10, 11, 11, -1, -1], [12, 12, -1, -1, 13, 14, 15, 15, 15, -1],
    ]  # fmt: skip
    assert first_of_runs(marks, segments, latest).tolist() == [
        [-1, 0, 0, 0, 0, 2, 2, 3, 3, 3], [6, 6, 6, 8, 8, 10, 10, 10, -1, -1], [12, 12, -1, -1, 13, 14, 15, 15, 15, -1],
    ]  # fmt: skip


@pytest.mark.parametrize("heads", [2, 4])  # for 2 heads of keys
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_every_backend_reads_the_same_images(heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    marks = torch.rand(2, 150, generator=generator) < 0.4
    segments = torch.arange(150).div(40, rounding_mode="floor").add(1).expand(2, -1)
    latest = latest_images(marks, segments)
    first = first_of_runs(marks, segments, latest)
    assert (latest - first).max() >= 3
    counts = torch.randint(1, 7, (int(marks.sum()),), generator=generator).tolist()
    features = torch.zeros(sum(counts), 8)
    query = torch.randn(1, heads, 300, 16, generator=generator)
    key, value = (torch.randn(1, 2, sum(counts), 16, generator=generator) for _ in range(2))
    every_key, every_value = (states.repeat_interleave(heads // 2, 1) for states in (key, value))
    expected = torch.zeros(300, heads, 16)
    starts = torch.tensor([0, *counts]).cumsum(0)
    for token, (begin, end) in enumerate(zip(first.flatten(), latest.flatten(), strict=True)):
        if end >= 0:
            images = slice(starts[begin], starts[end + 1])
            scores = (query[0, :, token, None] * every_key[0, :, images]).sum(-1) / 4
            expected[token] = (scores.softmax(-1)[..., None] * every_value[0, :, images]).sum(1)
    for backend in ("segments", "mask", "flex", "varlen"):
        read = cross_attend(Seen.of(features, counts, latest, first, backend), query, key, value)
        torch.testing.assert_close(read, expected, rtol=1e-4, atol=1e-5, msg=backend)


RUNS = [[5, 0, 0, 0, 6, 7, 0, 8, 0], [0, 0, 9, 10], [11, 12], [0], [0, 0, 13]]  # 0 stands for an image


LATEST = replace(FLAMINGO, fusion={"cross_attention": {"every": 1, "qk_norm": True, "runs": "latest"}})


def with_runs(model: VisionLanguageModel, ids: list[int], seed: int = 0) -> tuple[list[int], torch.Tensor]:
    """Make a sample of these tokens with pixels for its images."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (ids.count(0), 3, 32, 32), generator=generator, dtype=torch.uint8)
    return [number or model.fusion.image_token_id for number in ids], pixels


@pytest.mark.parametrize("backend", ["segments", "flex"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_packed_runs_equal_separate_ones_even_if_two_samples_meet_at_images(backend: str) -> None:
    model, other = tiny_model(FLAMINGO), tiny_model(LATEST)
    model.attention = backend
    samples = [with_runs(model, ids, seed) for seed, ids in enumerate(RUNS)]
    with torch.no_grad():
        together = model.logits(pack(model, samples, padding=3))[0]
    assert (logits(other, samples[0])[2:6] - together[2:6]).abs().amax(-1).min() > 1e-3
    for packed, one in zip(together.split([*map(len, RUNS), 3]), samples, strict=False):
        assert (packed - logits(model, one)).abs().max() < 1e-5


@pytest.mark.parametrize(("runs", "ends"), [("whole", [6, 6, 6, 8, 11, 11]), ("latest", [2, 3, 6, 8, 9, 11])])
def test_text_reads_the_whole_run_before_it_and_an_image_reads_no_later_one(runs: str, ends: list[int]) -> None:
    """Only layer 0 reads images, so that no information spreads before its end."""
    model = tiny_model(replace(FLAMINGO, fusion={"cross_attention": {"every": 2, "runs": runs}}))
    ids, pixels = with_runs(model, [5, 0, 0, 0, 6, 7, 0, 8, 0, 0, 9])
    images = [place for place, number in enumerate(ids) if number == model.fusion.image_token_id]
    found: list[torch.Tensor] = []
    model.language.model.layers[0].register_forward_pre_hook(lambda layer, args: found.append(args[0][0]))
    logits(model, (ids, pixels))
    for number, (begin, end) in enumerate(zip(images, ends, strict=True)):
        changed = pixels.clone()
        changed[number] = 255 - changed[number]
        logits(model, (ids, changed))
        moved = (found[0] - found[-1]).abs().amax(-1) > 1e-6
        assert moved.tolist() == [begin <= place < end for place in range(len(ids))]


@pytest.mark.parametrize("prompt", [[5, 6, 0, 0, 0], [0, 0, 7, 8], [5, 0, 6, 0, 0, 7]], ids=str)
def test_generated_text_reads_the_whole_run(prompt: list[int]) -> None:
    model, other = tiny_model(FLAMINGO), tiny_model(LATEST)
    first, second = with_runs(model, prompt, 1), with_runs(model, [0, 0, *range(20, 18 + len(prompt))], 2)
    batch = rows(
        model, [first[0], second[0]], [list(range(len(prompt)))] * 2, [[1] * len(prompt)] * 2, torch.cat([first[1], second[1]])
    )
    for new, (ids, pixels) in zip(generate(model, batch, max_new_tokens=4, stop_ids=[]), (first, second), strict=True):
        assert len(new) == 4
        for number in new:
            values = logits(model, (ids, pixels))[-1]
            assert (logits(other, (ids, pixels))[-1] - values).abs().max() > 1e-3
            values[[model.fusion.image_token_id, *range(len(model.tokenizer), len(values))]] = -torch.inf
            assert int(values.argmax()) == number
            ids = [*ids, number]


@pytest.mark.parametrize("reads_runs", [False, True])
def test_the_block_mask_holds_exactly_the_visible_pairs(reads_runs: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.sort(torch.randint(0, 6, (300,), generator=generator)).values
    tokens[torch.rand(300, generator=generator) < 0.3] = -1
    first = torch.where(tokens >= 0, (tokens - 2).clamp(min=0), -1) if reads_runs else tokens
    features = torch.arange(6).repeat_interleave(torch.tensor([40, 3, 200, 1, 60, 7]))
    mask = reading_block_mask(tokens, features, first) if reads_runs else reading_block_mask(tokens, features)
    held = torch.zeros(300, len(features), dtype=torch.bool)
    for block in range(mask.kv_num_blocks.shape[-1]):
        for column in mask.kv_indices[0, 0, block, : mask.kv_num_blocks[0, 0, block]].tolist():
            held[block * 128 : block * 128 + 128, column * 128 : column * 128 + 128] = True
    expected = (first[:, None] <= features) & (features <= tokens[:, None])
    assert not (expected & ~held).any()
    assert not held.all(), "some blocks must be skipped"
