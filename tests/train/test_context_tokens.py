"""LLaMA-VID's context token is what the question reads from a frame, and its content tokens are averages of the frame."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.train.test_abstractors import GRID, TEXT, tower
from tests.train.test_videos import batch_of, sample
from tests.train.tiny import TINY, randomise, tiny_model
from vlmdata.step import RecipeError
from vlmdata_train.abstractors.context_tokens import ContextTokens
from vlmdata_train.model.encoder_facts import Grid
from vlmdata_train.model.parts import make_part
from vlmdata_train.model.surroundings import Surroundings

TABLE = torch.randn(300, TEXT.width, generator=torch.Generator().manual_seed(3))
QUESTION, OTHER = [5, 9, 2, 7], [8, 1]
Q_FORMER = {"queries": 3, "width": 8, "layers": 2, "heads": 2, "mlp_width": 12, "dropout": 0.0}


def built(**parameters: Any) -> Any:
    """Build a module with random weights."""
    module = make_part("abstractor", {"context_tokens": parameters}).build(tower(8), 12, GRID, text=TEXT).eval()
    randomise(module, scale=0.5)
    return module


def run(module: nn.Module, tiles: list[Tensor], questions: list[list[int]]) -> Tensor:
    """Return the tokens of tiles, each of its own sample."""
    numbers = torch.arange(len(tiles))
    ids = nn.utils.rnn.pad_sequence([torch.tensor(ids, dtype=torch.int64) for ids in questions], True, padding_value=-1)
    return torch.stack(module(tiles, Surroundings(numbers, numbers, numbers.float(), ids, lambda ids: TABLE[ids])))


def patches(*counts: int) -> list[Tensor]:
    """Return tiles of these numbers of random patches."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count, 8, generator=generator) for count in counts]


@pytest.mark.parametrize("q_former", [None, Q_FORMER], ids=["words", "Q-Former"])
def test_the_context_of_a_single_patch_is_its_projection(q_former: Any) -> None:
    module, tiles = built(q_former=q_former), patches(1, 1)
    context = run(module, tiles, [QUESTION, OTHER])[:, 0]
    torch.testing.assert_close(context, module.value(torch.cat(tiles)))


@pytest.mark.parametrize("q_former", [None, Q_FORMER], ids=["words", "Q-Former"])
def test_another_question_changes_the_context_token_and_no_content_token(q_former: Any) -> None:
    module, tiles = built(q_former=q_former, side=2), patches(24, 24)
    before, after = run(module, tiles, [QUESTION, OTHER]), run(module, tiles, [OTHER, OTHER])
    assert before.shape == (2, 1 + 4, 12)
    assert torch.equal(before[:, 1:], after[:, 1:])
    assert (before[0, 0] - after[0, 0]).abs().max() > 1e-3
    assert (before[1] - after[1]).abs().max() < 1e-6


def test_the_context_token_equals_its_formula() -> None:
    """Each text query reads a mixture of the patches, and the mean of the mixtures is projected."""
    module, [tile] = built(), patches(24)
    queries = module.text.project(TABLE[QUESTION])
    mixtures = (queries @ module.key(tile).T / 8**0.5).softmax(-1) @ tile
    found = run(module, [tile], [QUESTION])[0]
    torch.testing.assert_close(found[0], module.value(mixtures.mean(0)))
    torch.testing.assert_close(found[1], module.content(tile.mean(0)))


def test_content_tokens_are_averages_of_squares_of_patches() -> None:
    module, [tile] = built(side=2), patches(24)
    averages = functional.avg_pool2d(tile.T.view(8, 4, 6), (2, 3)).flatten(1).T
    torch.testing.assert_close(run(module, [tile], [QUESTION])[0, 1:], module.content(averages))


@pytest.mark.parametrize("q_former", [None, Q_FORMER], ids=["words", "Q-Former"])
def test_tiles_and_questions_of_different_lengths_in_one_batch_equal_those_alone(q_former: Any) -> None:
    module, tiles, questions = built(q_former=q_former), patches(3, 24, 7), [QUESTION, [], OTHER]
    together = run(module, tiles, questions)
    alone = torch.cat([run(module, [tile], [ids]) for tile, ids in zip(tiles, questions, strict=True)])
    torch.testing.assert_close(together, alone)


def test_a_video_has_two_tokens_a_frame() -> None:
    model = tiny_model(replace(TINY, abstractor="context_tokens", video={"frames": {"fps": 1}}))
    batch = batch_of(model, [sample([0.0, 0.5, 1.0, 1.5, 2.0], roles=True)])
    assert batch.is_video.tolist() == [True] and batch.image_token_counts.tolist() == [2 * 3]
    features, counts = model.encode_images(batch)
    assert features.shape == (6, 32) and counts == [6]
    changed = batch.pixels.clone()
    changed[1] = 0  # the second frame
    moved = (model.encode_images(replace(batch, pixels=changed))[0] - features).abs().amax(1) > 1e-6
    assert moved.tolist() == [False, False, True, True, False, False]
    other = model.encode_images(replace(batch, questions=batch.questions.flip(1) // 2))[0]
    moved = (other - features).abs().amax(1) > 1e-6
    assert moved.tolist() == [True, False] * 3


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"side": 0}, "side must be 1 or more, not 0"),
        ({"tokenizer": "bytes"}, "`tokenizer` needs `q_former`"),
        ({"q_former": {"max_question": 3}}, r"set \['max_question'\] beside `q_former`"),
        ({"q_former": {"querys": 3}}, "InstructQFormer has no parameter 'querys'. Did you mean 'queries'"),
    ],
)
def test_wrong_parameters_are_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_part("abstractor", {"context_tokens": parameters})


def test_a_class_token_is_refused_for_a_grid_of_content_tokens() -> None:
    with pytest.raises(ValueError, match="a class token has no place in the grid of patches"):
        ContextTokens(side=2).grid_of(Grid(4, 4, extra=1))
