"""Images of a sample with several images are prepared and counted as LLaVA-OneVision does: one padded tile each."""

import io
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlamaConfig, LlavaOnevisionConfig, LlavaOnevisionImageProcessorPil, SiglipVisionConfig

from tests.train.families import PINPOINTS, SQUARE
from tests.train.parity import TEXT, VISION
from tests.train.test_preprocessing import picture
from tests.train.tiny import TINY, tiny_model
from vlmdata_train.convert.checkpoint_folder import model_of
from vlmdata_train.data.collate import Ready, build_batch
from vlmdata_train.data.document import Document
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.data.prompt import truncate
from vlmdata_train.model.tokens import byte_tokenizer
from vlmdata_train.preprocessing.anyres import Anyres

ONE_VISION = replace(TINY, preprocessing={"anyres": {"max_tiles": 2, "several": "pad"}})
SIZES = [(120, 77), (31, 200), (40, 40)]  # heights and widths


@pytest.fixture(scope="module")
def model():
    return tiny_model(ONE_VISION)


def png(height, width):
    file = io.BytesIO()
    Image.fromarray(picture(height, width)).save(file, "png")
    return file.getvalue()


def batch_of(model, prompt):
    return build_batch([Ready(prompt, "", "")], model.plan, 0, packed_tokens=None, broken=Counter())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_pixels_equal_those_of_the_image_processor(model, count):
    images = [png(*size) for size in SIZES[:count]]
    batch = batch_of(model, prompter_of(model).plain(Document([*images, "A cat."], None)))
    facts = model.plan.facts
    processor = LlavaOnevisionImageProcessorPil(
        size=SQUARE, image_grid_pinpoints=PINPOINTS, image_mean=list(facts.mean), do_rescale=False, do_normalize=False,
        do_pad=False,
    )  # fmt: skip
    nested = [[Image.fromarray(picture(*size)) for size in SIZES[:count]]]
    found = [torch.as_tensor(np.asarray(tiles)) for tiles in processor(images=nested)["pixel_values"]]
    assert batch.tile_counts.tolist() == [len(tiles) for tiles in found]
    assert torch.equal(batch.pixels.float(), torch.cat(found).float())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_planned_length_is_exact_and_the_model_has_a_feature_for_each_image_token(model, count):
    prompter = prompter_of(model)
    planned = prompter.page(Document(["One.", *((width, height) for height, width in SIZES[:count]), "Two."], None))
    prompt = prompter.page(Document(["One.", *(png(*size) for size in SIZES[:count]), "Two."], None))
    assert planned.input_ids == prompt.input_ids
    assert [image.tokens for image in prompt.images] == ([16 + 6 * 5] if count == 1 else [17] * count)
    batch = batch_of(model, prompt)
    features, counts = model.encode_images(batch)
    assert counts == batch.image_token_counts.tolist()
    assert len(features) == prompt.input_ids.count(model.image_token_id)


def test_an_image_of_several_stays_padded_if_the_others_are_cut_off(model):
    prompt = prompter_of(model).page(Document([png(*SIZES[0]), "One.", png(*SIZES[1])], None))
    cut = truncate(prompt, len(prompt.input_ids) - 5)
    assert len(cut.images) == 1
    assert batch_of(model, cut).tile_counts.tolist() == [1]
    model.logits(batch_of(model, cut))


def test_without_the_parameter_each_image_has_its_own_tiles():
    model = tiny_model(replace(TINY, preprocessing="anyres"))
    prompt = prompter_of(model).page(Document(["One.", *(png(*size) for size in SIZES)], None))
    assert batch_of(model, prompt).tile_counts.tolist() == [5, 4, 5]


def test_a_run_that_starts_from_llava_onevision_pads_images_of_several(tmp_path):
    LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION),
        text_config=LlamaConfig(**TEXT),
        image_grid_pinpoints=PINPOINTS,
        image_token_id=262,
        video_token_id=261,
    ).save_pretrained(tmp_path)
    LlavaOnevisionImageProcessorPil(size=SQUARE, image_grid_pinpoints=PINPOINTS).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    anyres = model_of(str(tmp_path)).preprocessing["anyres"]
    assert (anyres["tiles"], anyres["max_tiles"], anyres["several"]) == (Anyres().tiles, 9, "pad")
