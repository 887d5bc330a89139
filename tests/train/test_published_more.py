"""DeepSeek-VL is exported from own parts."""

import json
from pathlib import Path

import pytest
import torch

from tests.train.published import write_published
from tests.train.test_parity_deepseek import RECIPES
from tests.train.test_published import TOLERANCE, batch_of, loaded, served
from tests.train.tiny import tiny_model
from vlmdata_train.convert.save_published import save_published

pytestmark = pytest.mark.whole

KINDS = {"one tower": "deepseek_vl", "two towers": "deepseek_vl_hybrid"}


@pytest.mark.parametrize("design", RECIPES)
def test_deepseek_of_own_parts_is_exported_and_transformers_answers_alike(design: str, tmp_path: Path) -> None:
    ours = tiny_model(RECIPES[design], seed=1)
    save_published(ours, tmp_path)
    for images in (1, 3):
        theirs, inputs = served(tmp_path, images)
        batch = batch_of(ours, images)
        assert theirs.config.model_type == KINDS[design]
        assert inputs["input_ids"].tolist() == batch.input_ids.tolist()
        with torch.no_grad():
            logits = theirs(**inputs).logits
            assert (ours.logits(batch) - logits).abs().max() < TOLERANCE * logits.abs().max()


@pytest.mark.parametrize("family", ["DeepSeek-VL", "DeepSeek-VL, hybrid"])
def test_an_output_layer_is_used_though_the_configuration_ties_by_default(family: str, tmp_path: Path) -> None:
    start = write_published(family, tmp_path)
    facts = json.loads((start / "config.json").read_text())
    del facts["tie_word_embeddings"]
    (start / "config.json").write_text(json.dumps(facts))
    model, (theirs, _) = loaded(start), served(start, 0)
    assert theirs.config.tie_word_embeddings
    assert torch.equal(model.lm_head.weight, theirs.lm_head.weight)
    assert not torch.equal(model.lm_head.weight, model.language.get_input_embeddings().weight)
