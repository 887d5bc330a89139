"""Floating-point operations (FLOPs) of an abstractor, which depend on the patches, tokens and question words that it reads.

P tiles of one sample, N patches, C width of the abstractor's input, L tokens of a question, D width of the language model.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vlmdata_train.model.batch import Batch
from vlmdata_train.model.encode_images import joins_patches, on_grid
from vlmdata_train.model.encoder_facts import Grid
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.surroundings import Surroundings

# the operations that linear layers and convolutions become; attention is made of others (bmm, scaled_dot_product_attention)
COUNTED = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.convolution, torch.ops.aten.convolution_backward)
META = torch.device("meta")
Images = tuple[tuple[tuple[Grid, ...], bool], ...]  # of a sample: the grids of tiles of each image, and whether it is a video


class AbstractorFlops:
    """Counts the FLOPs of linear layers and convolutions of an abstractor for a batch, forward and backward.

    A resampler has weights that process all patches, and others that process only the tokens that it returns. So the abstractor
    runs once for each grid of patches, on the meta device, where tensors have shapes but no values, and torch counts the
    operations. Gradients are computed as in training: those of trained weights, and those of the input if the encoder or an
    earlier layer is trained. The products of attention, norms and biases are not counted.

    Make it before the model is distributed.
    """

    def __init__(self, model: VisionLanguageModel) -> None:
        self.plan, self.joins = model.plan, joins_patches(model.arrangement)
        self.abstractor = _on_meta(model.abstractor)
        for layer in self.abstractor.modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_pre_hook(_contiguous)
        self.reads_surroundings = bool(getattr(self.abstractor, "reads_surroundings", False))
        self.embeddings = _on_meta(model.language.get_input_embeddings())
        self.dtype = model.language.get_input_embeddings().weight.dtype
        self.encoder_learns = any(weight.requires_grad for weight in model.encoder.parameters())
        self._of_grid, self._of_sample = cache(self._measure_grid), cache(self._measure_sample)

    def of_batch(self, batch: Batch) -> int:
        """Return the FLOPs for a batch. The padding of questions and tiles is not counted."""
        if not self.reads_surroundings:
            grids = Counter(grid for of_image, _ in self._images(batch) for grid in of_image)
            return sum(count * self._of_grid(grid) for grid, count in grids.items())
        samples: dict[int, Images] = {}
        for sample, image in zip(batch.of_sample.tolist(), self._images(batch), strict=True):
            samples[sample] = (*samples.get(sample, ()), image)
        words = (batch.questions >= 0).sum(1).tolist()
        return sum(self._of_question(images, words[sample]) for sample, images in samples.items())

    def _of_question(self, images: Images, words: int) -> int:
        """Return the FLOPs for a sample. Each word after the second costs as much as the second, so only 2 are measured."""
        most = self._of_sample(images, min(words, 2))
        return most if words <= 2 else most + (words - 2) * (most - self._of_sample(images, 1))

    def _images(self, batch: Batch) -> Iterator[tuple[tuple[Grid, ...], bool]]:
        """Yield the grids of patches that the abstractor gets of each image, and whether the image is a video."""
        facts, preprocessing, copies, end = self.plan.facts, self.plan.preprocessing, self.plan.copies, 0
        counts, sizes = batch.tile_counts.tolist(), batch.image_sizes.tolist()
        for count, (height, width), is_video in zip(counts, sizes, batch.is_video.tolist(), strict=True):
            start, end = end, end + count
            if self.joins and not is_video:
                grids = [region.grid for region in preprocessing.regions(width, height, facts, facts.grid)]
            else:
                grids = [facts.grid(*tile.shape[-2:]) for tile in batch.pixels[start:end:copies]]
            yield tuple(grids), is_video

    def _measure_grid(self, grid: Grid) -> int:
        """Return the FLOPs for one tile."""
        return self._measure(lambda: [on_grid(self, self._patches(grid)[None], grid)])

    def _measure_sample(self, images: Images, words: int) -> int:
        """Return the FLOPs for all tiles of a sample whose question has this number of tokens."""
        grids = [grid for of_image, _ in images for grid in of_image]
        of_image = [number for number, (own, _) in enumerate(images) for _ in own]
        none = torch.zeros(len(grids), dtype=torch.int64, device=META)
        surroundings = Surroundings(
            torch.tensor(of_image, device=META), none, none.float(), torch.zeros(1, words, dtype=torch.int64, device=META),
            self.embeddings, [(len(own), is_video) for own, is_video in images],
        )  # fmt: skip
        return self._measure(lambda: self.abstractor([self._patches(grid) for grid in grids], surroundings))

    def _patches(self, grid: Grid) -> Tensor:
        """Return the patches of a tile, (N, C)."""
        width = self.plan.patch_facts.width
        return torch.empty(grid.tokens, width, dtype=self.dtype, device=META, requires_grad=self.encoder_learns)

    def _measure(self, run: Any) -> int:
        """Return the FLOPs of a function that returns tensors, and of their gradients."""
        with FlopCounterMode(display=False) as counter, torch.enable_grad():
            made = sum(tensor.sum() for tensor in run())
            if made.requires_grad:
                made.backward()
        found = counter.get_flop_counts().get("Global", {})
        return sum(flops for operation, flops in found.items() if operation in COUNTED)


def _contiguous(layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return a layer's input in its own memory. A frozen layer whose input is an expanded tensor would run as bmm."""
    return (args[0].contiguous(), *args[1:])


def _on_meta(module: nn.Module) -> Any:
    """Return a copy of a module on the meta device, which takes no memory."""
    weights = {id(weight): nn.Parameter(weight.to(META), weight.requires_grad) for weight in module.parameters()}
    buffers = {id(buffer): buffer.to(META) for buffer in module.buffers()}
    return copy.deepcopy(module, {**weights, **buffers})
