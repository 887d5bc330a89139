"""BLIP-2 and Fuyu give the logits of their classes in transformers with the same weights."""

import torch
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    FuyuConfig,
    FuyuForCausalLM,
)

from tests.train.parity import (
    IMAGE_ID,
    TEXT,
    VISION,
    answers_of,
    assert_same_logits_and_images_matter,
    copy_weights,
    of_squares,
    one_row,
    randomised,
    renamed,
    with_images,
)
from vlmdata_train.convert.families.blip2 import Blip2
from vlmdata_train.model.model_recipe import ModelRecipe

LLAMA = {"model_type": "llama", **TEXT}
FUYU = {
    "lm_head.": "language.lm_head.", "model.language_model.": "language.model.", "model.vision_embed_tokens.": "abstractor.",
}  # fmt: skip


def test_blip2_equals_transformers() -> None:
    q_former = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 30,
                "vocab_size": 10, "encoder_hidden_size": 32}  # fmt: skip
    config = Blip2Config(
        vision_config=VISION, qformer_config=q_former, text_config=LLAMA, num_query_tokens=5, image_token_index=IMAGE_ID
    )
    reference = randomised(Blip2ForConditionalGeneration(config))
    recipe = ModelRecipe(
        encoder={"blip2": {"config": VISION}}, language={"hf_causal": {"config": LLAMA}},
        abstractor={"q_former": {"queries": 5, "width": 24, "layers": 3, "heads": 2, "mlp_width": 30}},
    )  # fmt: skip
    # only the Q-Former of transformers also takes text
    model = copy_weights(reference, recipe, Blip2().our_name, unlike=["vocab_size"])
    batch = of_squares([5, 5])
    assert_same_logits_and_images_matter(model, batch, answers_of(reference, batch))


def test_fuyu_equals_transformers_on_an_image_that_is_not_square() -> None:
    text = {name: value for name, value in TEXT.items() if name != "num_key_value_heads"}
    config = FuyuConfig(text_config={"model_type": "persimmon", **text}, patch_size=4, image_token_id=IMAGE_ID, **text)
    reference = randomised(FuyuForCausalLM(config))
    persimmon = {name: value for name, value in config.text_config.to_dict().items() if value is not None}
    recipe = ModelRecipe(
        encoder={"raw_patches": {"patch_size": 4}}, preprocessing="native", abstractor="linear",
        language={"hf_causal": {"config": persimmon}},
    )  # fmt: skip
    model = copy_weights(reference, recipe, renamed(FUYU))
    count = model.tokens_of(18, 11)
    assert count == 5 * 3
    pixels = torch.randn(1, 3, 12, 20)
    batch = one_row(with_images([count]), pixels, [count], [1], [(11, 18)])

    def theirs(pixels: torch.Tensor) -> torch.Tensor:
        patches = pixels.unfold(2, 4, 4).unfold(3, 4, 4).reshape(1, 3, -1, 4, 4).permute(0, 2, 3, 4, 1).reshape(1, -1, 48)
        return answers_of(reference, batch)(patches)

    assert_same_logits_and_images_matter(model, batch, theirs)
