"""CogVLM's experts: copies of the base weights change nothing, and others change image tokens alone at first."""

from dataclasses import replace

import torch
from torch import nn

from tests.train.tiny import TINY, pack, sample, tiny_model
from vlmdata_train.fusions.visual_experts import Experts
from vlmdata_train.model import VisionLanguageModel, build_model
from vlmdata_train.positions.shared import shared_positions

COGVLM = replace(TINY, fusion="visual_experts", positions="shared")


def logits(model: VisionLanguageModel, *samples: tuple[list[int], torch.Tensor]) -> torch.Tensor:
    """Return the logits of packed samples, (T, vocabulary)."""
    with torch.no_grad():
        return model.logits(pack(model, samples))[0]


def test_experts_that_copy_the_base_weights_are_the_plain_decoder() -> None:
    torch.manual_seed(0)
    model = build_model(COGVLM).eval()
    plain = tiny_model(replace(TINY, positions="shared"))
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith("fusion.")})
    one = sample(model, 12, 2, 1)
    torch.testing.assert_close(logits(model, one), logits(plain, one))


def test_other_experts_change_what_follows_an_image_and_nothing_before_it() -> None:
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
    [new] = model.generate(pack(model, [(ids, pixels)]), max_new_tokens=4, stop_ids=[])
    for number in new:
        values = logits(model, (ids, pixels))[-1]
        values[[model.fusion.image_token_id, *range(len(model.tokenizer), len(values))]] = -torch.inf
        assert int(values.argmax()) == number
        ids = [*ids, number]


def test_an_image_takes_one_position_also_beside_another_one() -> None:
    marks = torch.tensor([[0, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0]], dtype=torch.bool)  # images of 2, 3 and 2 tokens
    segments = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2]])
    assert shared_positions(marks, segments, torch.tensor([2, 3, 2])).tolist() == [[0, 1, 1, 2, 2, 2, 3, 0, 1, 1, 2]]
