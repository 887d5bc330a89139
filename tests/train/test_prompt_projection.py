"""An MLP whose patches read the question and the earlier images of their sample is a plain MLP while its gate is closed."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.train.test_abstractors import GRID, TEXT, tower
from tests.train.tiny import randomise
from vlmdata_train.abstractors.mlp import Mlp
from vlmdata_train.model.parts import make_part
from vlmdata_train.model.surroundings import Surroundings

TABLE = torch.randn(300, TEXT.width, generator=torch.Generator().manual_seed(3))
QUESTIONS = torch.tensor([[5, 9, 2, 7], [8, 1, -1, -1]])
READS = ["question", "images", "both"]
IMAGES = [0, 0, 1, 2, 3, 4]  # the image of each tile
SAMPLES = [0, 0, 0, 0, 1, 1]


def built(reads: str, **parameters: Any) -> Any:
    """Build a module with random weights and an open gate."""
    part = make_part("abstractor", {"prompt_projection": {"reads": reads, "heads": 2, "head_width": 4, **parameters}})
    module = part.build(tower(8), 12, GRID, text=TEXT).eval()
    randomise(module, scale=0.5)
    with torch.no_grad():
        module.read_gate.fill_(1.0)
    return module


def run(
    module: nn.Module,
    tiles: list[Tensor],
    images: list[int] = IMAGES,
    samples: list[int] = SAMPLES,
    questions: Tensor = QUESTIONS,
) -> list[Tensor]:
    """Return the tokens of each tile."""
    of_image, of_sample = torch.tensor(images), torch.tensor(samples)
    with torch.no_grad():
        return module(tiles, Surroundings(of_image, of_sample, of_image.float(), questions, lambda ids: TABLE[ids]))


def patches(*counts: int) -> list[Tensor]:
    """Return tiles of these numbers of random patches."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count, 8, generator=generator) for count in counts]


def changes(one: list[Tensor], other: list[Tensor]) -> list[bool]:
    """Return for each tile whether its tokens differ by more than 1e-6 of the largest."""
    return [bool((a - b).abs().max() > 1e-6 * a.abs().max()) for a, b in zip(one, other, strict=True)]


TILES = patches(24, 24, 5, 24, 9, 24)


@pytest.mark.parametrize("reads", READS)
def test_a_closed_gate_gives_the_plain_mlp(reads: str) -> None:
    plain = Mlp().build(tower(8), 12, GRID)
    module = make_part("abstractor", {"prompt_projection": {"reads": reads}}).build(tower(8), 12, GRID, text=TEXT)
    module.mlp.load_state_dict(plain.state_dict())
    for tile, made in zip(TILES, run(module, TILES), strict=True):
        torch.testing.assert_close(made, plain(tile))


@pytest.mark.parametrize("reads", READS)
def test_tiles_of_any_size_in_one_batch_equal_the_samples_alone(reads: str) -> None:
    module = built(reads)
    together = run(module, TILES)
    alone = [
        *run(module, TILES[:4], IMAGES[:4], SAMPLES[:4], QUESTIONS[:1]),
        *run(module, TILES[4:], [0, 1], [0, 0], QUESTIONS[1:, :2]),
    ]
    assert changes(together, alone) == [False] * 6


@pytest.mark.parametrize(
    ("reads", "wanted"),
    [
        ("question", [False, False, True, False, False, False]),
        ("images", [False, False, True, True, False, False]),
        ("both", [False, False, True, True, False, False]),
    ],
)
def test_an_image_changes_itself_and_later_images_of_its_sample(reads: str, wanted: list[bool]) -> None:
    module = built(reads)
    other = [*TILES[:2], -TILES[2], *TILES[3:]]
    assert changes(run(module, TILES), run(module, other)) == wanted


@pytest.mark.parametrize(("reads", "told"), [("question", True), ("images", False), ("both", True)])
def test_another_question_changes_only_the_images_of_its_sample(reads: str, told: bool) -> None:
    module = built(reads)
    other = torch.tensor([[5, 9, 2, 7], [8, 2, -1, -1]])
    assert changes(run(module, TILES), run(module, TILES, questions=other)) == [False] * 4 + [told] * 2


def test_the_order_of_earlier_images_and_of_words_does_not_matter() -> None:
    module, tiles = built("both"), patches(24, 24, 24)
    before = run(module, tiles, [0, 1, 2], [0, 0, 0], QUESTIONS[:1])
    after = run(module, [tiles[1], tiles[0], tiles[2]], [0, 1, 2], [0, 0, 0], QUESTIONS[:1].flip(1))
    assert changes(before, after) == [True, True, False]


def test_tiles_of_one_image_do_not_read_each_other() -> None:
    module = built("images")
    other = [-TILES[0], *TILES[1:]]
    assert changes(run(module, TILES), run(module, other)) == [True, False, True, True, False, False]


@pytest.mark.parametrize("reads", READS)
def test_a_first_image_without_a_question_equals_the_plain_mlp(reads: str) -> None:
    module, nothing = built(reads), torch.zeros(1, 0, dtype=torch.int64)
    [made] = run(module, TILES[:1], [0], [0], nothing)
    torch.testing.assert_close(made, module.mlp(TILES[0]))


def test_what_is_read_equals_its_formula() -> None:
    module, [tile] = built("question", heads=1), patches(24)
    attention = module.attention
    words = attention.words.norm(TABLE[QUESTIONS[0]])
    keys, values = (torch.cat([torch.zeros(1, 4), layer(words)]) for layer in (attention.words.key, attention.words.value))
    read = (attention.query(attention.norm(tile)) @ keys.T / 2).softmax(-1) @ values
    wanted = module.mlp(tile + module.read_gate.tanh() * attention.output(read))
    torch.testing.assert_close(run(module, [tile], [0], [0], QUESTIONS[:1])[0], wanted)
