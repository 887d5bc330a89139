"""SigLIP's tower for images of any size, as in Idefics2: each patch takes the position at the same fraction of a square table.

Dehghani et al. 2023, Patch n' Pack: NaViT; Laurençon et al. 2024, What matters when building vision-language models?
P images of one size, N patches, C width.

A patch must lie wholly in the image. A remainder at the right or at the bottom, smaller than a patch, is cut off. This does not
depend on the other images of a batch. Idefics2 in transformers does the same, with and without padding. Idefics3 and SmolVLM in
transformers also count a patch that lies partly in the image, but only if the image is padded. So they have these features for
sides of whole patches and for images without padding, and different features for other images. Their connector also reads the
features of the padding, which this tower does not return.

A fraction is the number of the patch times 1 / count, in fp32. Because of rounding, a few patches take the position before the
exact one, as in transformers: in a table of 70, some patches of rows of 25, 49, 50, 55 and other counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel
from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig
from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionTransformer

from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.hf_configs import config_of_class, published_config
from vlmdata_train.model.placeholders import are_on
from vlmdata_train.model.vision_half import VisionHalf

HALF = (0.5, 0.5, 0.5)
SIGLIP = "siglip_vision_model"
KINDS = (SIGLIP, "idefics2_vision", "idefics3_vision", "smolvlm_vision")  # the last three have the same layers and positions


class SiglipNavitTower(nn.Module):
    """Maps normalised pixels (P, 3, H, W) to features (P, N, C), in reading order, after the last norm."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode images of one size. Each image is a row of the batch, so no mask is needed to keep them apart."""
        model = self.model
        patch = model.config.patch_size
        rows, columns = pixels.shape[2] // patch, pixels.shape[3] // patch
        is_patch = torch.ones(len(pixels), rows, columns, dtype=torch.bool, device=pixels.device)
        hidden = model.embeddings(pixel_values=pixels, patch_attention_mask=is_patch)  # (P, N, C)
        hidden = model.encoder(inputs_embeds=hidden, attention_mask=None).last_hidden_state
        return model.post_layernorm(hidden)


def resize_table(model: Any, side: int) -> None:
    """Interpolate the positions of a tower to `side` x `side`, bicubic as SigLIP's own interpolation in transformers."""
    embeddings = model.embeddings
    before = embeddings.position_embedding.weight.detach()
    table = before.unflatten(0, (embeddings.num_patches_per_side, -1)).permute(2, 0, 1)[None]  # (1, C, side, side)
    table = functional.interpolate(table, (side, side), mode="bicubic")[0].flatten(1).T.contiguous()
    embeddings.position_embedding = nn.Embedding.from_pretrained(table, freeze=False)
    embeddings.num_patches_per_side = side
    embeddings.image_size = model.config.image_size = side * model.config.patch_size


@dataclass(frozen=True)
class SiglipNavit(VisionHalf):
    """Idefics2's tower. Use it with the preprocessing `edges` and an abstractor for any number of patches.

    `name` is an Idefics2, Idefics3 or SmolVLM, whose tower has learned from images of many shapes, or a SigLIP, which has not.
    A SigLIP has a table for its image size, 27 x 27 at 384 px. Idefics2 and MiniCPM-V begin with a larger `table`.
    """

    kind = Idefics2VisionTransformer
    place = "vision_model"
    table: int | None = None  # positions on a side of the table, interpolated; None: as in `name`; Idefics2: 70, for 980 px

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.table is not None and self.table < 1:
            raise ValueError(f"table must be 1 position or more on a side, not {self.table}")

    def load_config(self) -> Any:
        """Return the tower's configuration, without any weights. Raises ValueError for a tower of another design."""
        if self.config is not None:
            return config_of_class(Idefics2VisionConfig, self.config)
        whole = published_config(str(self.name))
        config = getattr(whole, "vision_config", whole)
        if config.model_type not in KINDS:
            raise ValueError(
                f"siglip_navit: the tower of {self.name} is a {config.model_type}. Set name to a SigLIP, Idefics2, Idefics3 or "
                "SmolVLM"
            )
        return config

    def load_model(self) -> nn.Module:
        """Return the tower of transformers with its weights."""
        config = self.load_config()
        if config.model_type != SIGLIP:
            return super().load_model()
        fields = Idefics2VisionConfig().to_dict().keys() & config.to_dict().keys() - {"model_type", "architectures"}
        model: nn.Module = self.kind(Idefics2VisionConfig(**{field: getattr(config, field) for field in fields}))
        if are_on():
            return model
        siglip = AutoModel.from_pretrained(str(self.name), config=config, dtype=torch.float32)
        model.load_state_dict({key: value for key, value in siglip.state_dict().items() if not key.startswith("head.")})
        return model

    def facts(self) -> EncoderFacts:
        """Return the facts. `image_size` is the side of the image that has one patch for each position of the table."""
        config = self.load_config()
        side = self.table or config.image_size // config.patch_size
        return EncoderFacts(config.hidden_size, side * config.patch_size, config.patch_size, HALF, HALF)

    def build(self) -> nn.Module:
        """Return the tower with its weights."""
        model = self.load_model()
        if self.table is not None:
            resize_table(model, self.table)
        return SiglipNavitTower(model)
