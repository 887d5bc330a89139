"""Floating-point operations (FLOPs) of an abstractor, which depend on the patches, tokens and question words that it reads.

P tiles of one sample, N patches, C width of the abstractor's input, L tokens of a question, D width of the language model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from vlmdata_train.loop.measured_flops import META, measure, on_meta
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.encode_images import joins_patches, on_grid
from vlmdata_train.model.encoder_facts import Grid
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.surroundings import Surroundings

Images = tuple[tuple[tuple[Grid, ...], bool], ...]  # of a sample: the grids of tiles of each image, and whether it is a video


class AbstractorFlops:
    """Counts the FLOPs of linear layers and convolutions of an abstractor for a batch, forward and backward.

    A resampler has weights that process all patches, and others that process only the tokens that it returns. So the abstractor
    runs once for each grid of patches, and torch counts the operations (see `measure`). The patches require a gradient if the
    encoder is trained. Make it before the model is compiled and distributed.
    """

    def __init__(self, model: VisionLanguageModel) -> None:
        self.plan, self.joins = model.plan, joins_patches(model.arrangement)
        self.abstractor = on_meta(model.abstractor)
        self.reads_surroundings = bool(getattr(self.abstractor, "reads_surroundings", False))
        self.embeddings = on_meta(model.language.get_input_embeddings())
        self.dtype = model.language.get_input_embeddings().weight.dtype
        self.encoder_learns = any(weight.requires_grad for weight in model.encoder.parameters())
        self._of_grid, self._of_sample = (lru_cache(4096)(run) for run in (self._measure_grid, self._measure_sample))

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
        return measure(lambda: [on_grid(self, self._patches(grid)[None], grid)])

    def _measure_sample(self, images: Images, words: int) -> int:
        """Return the FLOPs for all tiles of a sample whose question has this number of tokens."""
        grids = [grid for of_image, _ in images for grid in of_image]
        of_image = [number for number, (own, _) in enumerate(images) for _ in own]
        none = torch.zeros(len(grids), dtype=torch.int64, device=META)
        surroundings = Surroundings(
            torch.tensor(of_image, device=META), none, none.float(), torch.zeros(1, words, dtype=torch.int64, device=META),
            self.embeddings, [(len(own), is_video) for own, is_video in images],
        )  # fmt: skip
        return measure(lambda: self.abstractor([self._patches(grid) for grid in grids], surroundings))

    def _patches(self, grid: Grid) -> Tensor:
        """Return the patches of a tile, (N, C)."""
        width = self.plan.patch_facts.width
        return torch.empty(grid.tokens, width, dtype=self.dtype, device=META, requires_grad=self.encoder_learns)
