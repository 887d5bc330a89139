"""Floating-point operations (FLOPs) of a model for a micro-batch, by part."""

from __future__ import annotations

from collections import Counter

from vlmdata_train.loop.abstractor_flops import AbstractorFlops
from vlmdata_train.loop.flops import flops_per_token
from vlmdata_train.loop.tower_flops import TowerFlops, reduces
from vlmdata_train.loop.train_step import MicroBatch
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.image_plan import ImagePlan
from vlmdata_train.model.model import VisionLanguageModel


class ModelFlops:
    """Counts the FLOPs of a model for its micro-batches. Make it before the model is compiled and distributed.

    The FLOPs of the abstractor are measured (see `AbstractorFlops`), and also those of some encoders (see `TowerFlops`). Those
    of another part are its cost per token times its number of tokens. All numbers are known on the host, so the host does not
    wait for the device.
    """

    def __init__(self, model: VisionLanguageModel) -> None:
        self.plan, self.fusion = model.plan, model.fusion
        self.measured: dict[str, AbstractorFlops | TowerFlops] = {"abstractor": AbstractorFlops(model)}
        if reduces(model):
            self.measured["encoder"] = TowerFlops(model)
        trained = {name: any(weight.requires_grad for weight in part.parameters()) for name, part in model.parts().items()}
        self.per_token = flops_per_token(model.parts(), trained)

    def of_parts(self, micro: MicroBatch) -> dict[str, float]:
        """Return the FLOPs of each part, by the names that `flops_per_token` returns."""
        tokens = self.tokens_of_parts(micro)
        measured = {name: float(part.of_batch(micro.batch)) for name, part in self.measured.items()}
        return {**{name: cost * tokens[name] for name, cost in self.per_token.items() if name not in measured}, **measured}

    def tokens_of_parts(self, micro: MicroBatch) -> dict[str, int]:
        """Return the number of tokens of each part but the abstractor.

        The tokens of the encoder are the patches, class tokens and register tokens that it returns for all tiles. The tokens of
        the language model and the fusion are those of text and images, without padding. For weights with an entry of their own,
        the fusion returns the number, or it is that of image features.
        """
        batch = micro.batch
        patches = sum(self.plan.facts.grid(*tile.shape[-2:]).tokens for tile in batch.pixels)
        tokens = {"encoder": patches, "fusion": micro.tokens, "language": micro.tokens}
        if "fusion_features" in self.per_token:
            tokens["fusion_features"] = features_of(batch, self.plan)
        count = getattr(self.fusion, "tokens_of_weights", None)
        own = {} if count is None else count(micro.tokens, batch.image_token_counts.tolist())
        return {**tokens, **{f"{part}_{kind}": number for kind, number in own.items() for part in ("language", "fusion")}}


def features_of(batch: Batch, plan: ImagePlan) -> int:
    """Return the number of features of all images and videos of a batch.

    The text has as many image tokens, unless the fusion is cross-attention. A sample of several images that is cut to one image
    counts as a sample of one image.
    """
    images_of = Counter(batch.of_sample[~batch.is_video].tolist())
    features, tile = 0, 0
    columns = (batch.tile_counts, batch.image_sizes, batch.of_sample, batch.is_video)
    for count, (height, width), sample, is_video in zip(*(column.tolist() for column in columns), strict=True):
        if is_video:
            frames = count * (batch.pixels[tile].shape[0] // 3)  # a tile of k frames has 3 k channels
            features += plan.video_features_of(frames, width, height)
        else:
            features += plan.features_of(width, height, several=images_of[sample] > 1)
        tile += count
    return features
