"""Give one of our models and a reference of transformers the same random weights and the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tests.train.tiny import of_images, pack, randomise
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.generate import generate
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.written import Piece, Place, Run

TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 2048, "pad_token_id": 0,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
IMAGE_ID = 262  # the id of `<image>` in the byte tokenizer


def copy_weights(
    reference: Any, recipe: ModelRecipe, rename: Callable[[str], str], *, more: Mapping[str, Tensor] | None = None,
    unlike: Collection[str] = (),
) -> VisionLanguageModel:  # fmt: skip
    """Build our model and fill every weight from the reference's by name. A weight without a counterpart fails, except those in
    `more`.

    Both sides must have the same settings, even settings that a test does not name. Those in `unlike` differ on purpose."""
    model = build_model(recipe).eval()
    assert_same_settings(model, reference, rename, unlike)
    theirs = {rename(name): value for name, value in reference.state_dict().items()} | dict(more or {})
    ours = model.state_dict()
    assert not (set(ours) - set(theirs)), f"not in the reference: {sorted(set(ours) - set(theirs))[:5]}"
    assert not (set(theirs) - set(ours)), f"only in the reference: {sorted(set(theirs) - set(ours))[:5]}"
    # gates are (1, 1, D) in the reference
    model.load_state_dict({name: value.view_as(ours[name]) for name, value in theirs.items()})
    return model


EPSILONS = ("eps", "variance_epsilon")  # the names of epsilon in norms
# Entries that transformers stores about a model but does not compute with.
NOTES = ("dtype", "model_type", "architectures", "transformers_version", "_name_or_path")


def assert_same_settings(
    model: VisionLanguageModel, reference: Any, rename: Callable[[str], str], unlike: Collection[str] = ()
) -> None:
    """Compare the settings of both configurations, whose defaults differ, and the epsilon of each norm."""
    config = reference.config
    pairs = {
        "language": (model.language, config.get_text_config()),
        "encoder": (getattr(model.encoder, "model", None), getattr(config, "vision_config", None)),
        "abstractor": (getattr(model.abstractor, "transformer", None), getattr(config, "qformer_config", None)),
    }
    for part, (ours, theirs) in pairs.items():
        if ours is not None and theirs is not None:
            found = {name: both for name, both in differences(ours.config.to_dict(), theirs.to_dict()) if name not in unlike}
            assert not found, f"{part}: ours and the reference's settings differ: {found}"
    own, other = dict(model.named_modules()), dict(reference.named_modules())
    for name in reference.state_dict():
        mine, their = own.get(rename(name).rpartition(".")[0]), other[name.rpartition(".")[0]]
        assert mine is None or epsilon(mine) == epsilon(their), f"{name}: {epsilon(mine)} and the reference's {epsilon(their)}"


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield each name that has different values on both sides, also inside nested mappings."""
    for name in sorted(ours.keys() & theirs.keys()):
        one, other = ours[name], theirs[name]
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from ((f"{name}.{inner}", both) for inner, both in differences(one, other))
        # the id of such a token does not change the result
        elif one != other and name not in NOTES and not name.endswith("_token_id"):
            yield name, (one, other)


def epsilon(module: nn.Module) -> float | None:
    """Return the epsilon that a norm adds to the variance, or None for another module."""
    found = [getattr(module, name) for name in EPSILONS if hasattr(module, name)]
    return float(found[0]) if found else None


def renamed(rules: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that renames a weight by the first rule whose key is a prefix of its name."""

    def our_name(name: str) -> str:
        theirs = next((theirs for theirs in rules if name.startswith(theirs)), "")
        return rules.get(theirs, "") + name.removeprefix(theirs)

    return our_name


def randomised(reference: nn.Module) -> nn.Module:
    """Draw every weight of a reference at random, because weights that start at zero would hide differences."""
    reference.eval()
    randomise(reference, seed=1, scale=0.25)
    return reference


def one_row(ids: list[int], pixels: Tensor, counts: list[int], tiles: list[int], sizes: list[tuple[int, int]]) -> Batch:
    """Make a batch of one sample. Its images have these numbers of text positions and of tiles, and these (height, width).

    Their features form no grids."""
    tokens = torch.tensor([ids])
    return Batch(
        input_ids=tokens, labels=tokens, position_ids=torch.arange(len(ids))[None],
        segment_ids=torch.ones(1, len(ids), dtype=torch.int32), pixels=pixels, image_token_counts=torch.tensor(counts),
        grids=torch.zeros(len(counts), 3, dtype=torch.int64), tile_counts=torch.tensor(tiles),
        image_sizes=torch.tensor(sizes), sources=[], keys=[], **of_images([0] * len(counts), sum(tiles)),
    )  # fmt: skip


def of_squares(counts: list[int], tiles: list[int] | None = None) -> Batch:
    """Make a batch of one sample whose images have these numbers of text positions and consist of square tiles, one each by
    default."""
    tiles = tiles or [1] * len(counts)
    pixels = torch.randn(sum(tiles), 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return one_row(with_images(counts), pixels, counts, tiles, [(32, 32)] * len(counts))


def of_own_shapes(model: VisionLanguageModel, sizes: list[tuple[int, int]], seed: int = 0) -> Batch:
    """Make a batch of one sample with noise pictures of these (height, width), each written as the model's plan says."""
    rng = np.random.default_rng(seed)
    batch = of_media(model, [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes], seed)
    return replace(batch, pixels=list(batch.pixels))


@dataclass(frozen=True)
class Clip:
    """Frames of a video, uint8 (H, W, 3) each, and their times in seconds."""

    frames: list[np.ndarray]
    times: list[float]


def noise_clip(frames: int, height: int, width: int, *, step: float = 1.0, seed: int = 0) -> Clip:
    """Return a video of noise, with `step` seconds between its frames."""
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return Clip(list(pixels), [step * number for number in range(frames)])


def of_media(model: VisionLanguageModel, media: Sequence[np.ndarray | Clip], seed: int = 0) -> Batch:
    """Make a batch of one sample with these images and videos, each written and prepared as the model's plan says."""
    plan, tiles, times, written = model.plan, [], [], []
    for number, item in enumerate(media):
        place, frames = Place(number, "", ""), item.frames if isinstance(item, Clip) else [item]
        height, width = frames[0].shape[:2]
        if isinstance(item, Clip):
            written.append(plan.write_video(item.times, width, height, place))
            times += plan.video.tile_times(item.times)
        else:
            written.append(plan.write(width, height, place))
        tiles.append(list(plan.video.prepare(frames, plan) if isinstance(item, Clip) else plan.preprocess(item).pixels))
        times += [] if isinstance(item, Clip) else [0.0] * len(tiles[-1])
    own_runs = [[piece for piece in pieces if isinstance(piece, Run)] for pieces in written]
    runs, is_video = [run for own in own_runs for run in own], [isinstance(item, Clip) for item in media]
    sizes = [(item.frames[0] if isinstance(item, Clip) else item).shape[:2] for item in media]
    batch = one_row(
        with_pieces(model, written, seed, is_video), torch.zeros(0), [sum(run.tokens for run in own) for own in own_runs],
        [len(own) for own in tiles], sizes,
    )  # fmt: skip
    pixels = [tile for own in tiles for tile in own]
    return replace(
        batch, pixels=torch.stack(pixels) if len({tile.shape for tile in pixels}) == 1 else pixels,
        grids=torch.tensor([(run.frames, run.rows, run.columns) for run in runs]).view(-1, 3), times=torch.tensor(times),
        intervals=torch.tensor([run.interval for run in runs]), is_video=torch.tensor(is_video, dtype=torch.bool),
    )  # fmt: skip


def packed(model: VisionLanguageModel, samples: list[Batch]) -> Batch:
    """Return one row with all samples."""
    joined = pack(model, [(one.input_ids[0].tolist(), torch.zeros(0)) for one in samples])
    tiles = [tile for one in samples for tile in one.pixels]
    pixels = torch.stack(tiles) if len({tile.shape for tile in tiles}) == 1 else tiles
    names = ("image_sizes", "tile_counts", "grids", "image_token_counts", "is_video", "times", "intervals")
    together = {name: torch.cat([getattr(one, name) for one in samples]) for name in names}
    questions = pad_sequence([one.questions[0] for one in samples], True, padding_value=-1)
    numbers = of_images([n for n, one in enumerate(samples) for _ in one.tile_counts], len(tiles))
    return replace(joined, **numbers | together | {"pixels": pixels, "questions": questions})


def assert_packed_equals_separate(model: VisionLanguageModel, samples: list[Batch]) -> None:
    """Compare the logits of samples packed in one row with those of each sample alone."""
    with torch.no_grad():
        together = model.logits(packed(model, samples))[0].split([one.input_ids.shape[1] for one in samples])
        for joined, alone in zip(together, samples, strict=True):
            assert (joined - model.logits(alone)[0]).abs().max() < 1e-5


def assert_generation_equals_forward(model: VisionLanguageModel, batch: Batch) -> None:
    """Compare four tokens that are generated with a cache with the most likely tokens of full forward passes."""
    [new] = generate(model, batch, max_new_tokens=4, stop_ids=[])
    assert len(new) == 4
    for number in new:
        with torch.no_grad():
            values = model.logits(batch)[0, -1]
        never = [model.image_token_id, model.video_token_id or model.image_token_id]
        values[[*never, *range(len(model.tokenizer), len(values))]] = -torch.inf
        assert int(values.argmax()) == number
        ids = torch.cat([batch.input_ids, torch.tensor([[number]])], 1)
        batch = replace(
            batch, input_ids=ids, labels=ids, position_ids=torch.arange(ids.shape[1])[None],
            segment_ids=torch.ones_like(ids, dtype=torch.int32),
        )  # fmt: skip


def with_images(counts: list[int], image_id: int = IMAGE_ID, seed: int = 0) -> list[int]:
    """Return random text that contains images of these numbers of positions."""
    text = torch.randint(3, 250, (len(counts) + 1, 6), generator=torch.Generator().manual_seed(seed)).tolist()
    ids = text[0]
    for count, words in zip(counts, text[1:], strict=True):
        ids = ids + [image_id] * count + words
    return ids


def with_pieces(
    model: VisionLanguageModel, written: list[list[Piece]], seed: int = 0, is_video: Sequence[bool] = ()
) -> list[int]:  # fmt: skip
    """Return random text that contains images and videos written with these pieces."""
    text = torch.randint(3, 250, (len(written) + 1, 6), generator=torch.Generator().manual_seed(seed)).tolist()
    ids = text[0]
    for number, (pieces, words) in enumerate(zip(written, text[1:], strict=True)):
        token = model.video_token_id if any(is_video[number : number + 1]) else None
        for piece in pieces:
            literal, own = isinstance(piece, str), model.image_token_id if token is None else token
            ids = ids + (model.tokenizer(piece)["input_ids"] if literal else [own] * piece.tokens)
        ids = ids + words
    return ids


def answers_of(reference: nn.Module, batch: Batch, **more: Any) -> Callable[[Any], Tensor]:
    """Return a function that computes a reference's logits for the batch's text and given `pixel_values`."""
    return lambda pixels: reference(input_ids=batch.input_ids, pixel_values=pixels, **more).logits


def assert_same_logits_and_images_matter(model: VisionLanguageModel, batch: Batch, reference: Callable[[Any], Tensor]) -> None:
    """Compare all logits to 1e-5 of the largest, and check that both models give other logits for other pixels.

    Also check that the comparison would fail if the norms added 1e-5 on one side and 1e-6 on the other."""
    pixels = batch.pixels
    blank = torch.full_like(pixels, 0.5) if isinstance(pixels, Tensor) else [torch.zeros_like(tile) for tile in pixels]
    with torch.no_grad():
        ours, theirs = model.logits(batch), reference(pixels)
        assert theirs.std() > 0.1, "logits that are all alike prove nothing"
        tolerance = 1e-5 * theirs.abs().max()
        assert (ours - theirs).abs().max() < tolerance
        with other_epsilons(model.language):
            assert (model.logits(batch) - theirs).abs().max() > tolerance, "this would not notice a norm that is another"
        assert (model.logits(replace(batch, pixels=blank)) - ours).abs().max() > 0.01
        assert (reference(blank) - theirs).abs().max() > 0.01


@contextmanager
def other_epsilons(module: nn.Module) -> Iterator[None]:
    """Change the epsilon of every norm in a module: to 1e-5 where it is 1e-6 or less, else to 1e-6."""
    before = [(norm, name, getattr(norm, name)) for norm in module.modules() for name in EPSILONS if hasattr(norm, name)]
    for norm, name, value in before:
        setattr(norm, name, 1e-5 if value < 5e-6 else 1e-6)
    yield
    for norm, name, value in before:
        setattr(norm, name, value)


def assert_same_gradients(model: nn.Module, reference: nn.Module, rename: Callable[[str], str]) -> None:
    """Compare the gradients of all weights, to 1e-5 of the largest gradient of each weight.

    A weight of the reference without a gradient must have none here either. The gradient of a key's bias is only rounding, so
    a hundredth of the largest gradient of all weights counts as the least size."""
    ours = {name: weight.grad for name, weight in model.named_parameters()}
    least = 0.01 * max(weight.grad.abs().max() for weight in reference.parameters() if weight.grad is not None)
    for name, weight in reference.named_parameters():
        mine = ours.get(rename(name))
        if weight.grad is None or not weight.grad.any():
            assert mine is None or not mine.any(), f"{name}: only ours has a gradient"
        else:
            assert mine is not None, f"{name}: only the reference's has a gradient"
            theirs = weight.grad.view_as(mine)
            assert (mine - theirs).abs().max() < 1e-5 * max(theirs.abs().max(), least), f"{name}: other gradients"
