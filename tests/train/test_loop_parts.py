"""Only trained parts change, and the way a step is split into micro-batches changes nothing."""

import pytest
import torch

from tests.train.runs import made_model, tiny_recipe, weights, write_data
from vlmdata_train.data import open_feed
from vlmdata_train.distributed import Ranks
from vlmdata_train.loop import setup
from vlmdata_train.loop.loop import run_training
from vlmdata_train.loop.prefetch import Prefetcher
from vlmdata_train.loop.train_step import MicroBatch, ModelWithLoss
from vlmdata_train.model.model import VisionLanguageModel

pytestmark = pytest.mark.whole

CPU = Ranks(0, 1, torch.device("cpu"))
FROZEN = {"frozen": True}


@pytest.mark.parametrize(
    ("parts", "trained"),
    [
        ({"encoder": FROZEN, "language": FROZEN}, {"abstractor"}),
        ({"encoder": FROZEN}, {"abstractor", "language"}),
        ({"abstractor": FROZEN, "language": FROZEN}, {"encoder"}),
    ],
    ids=["align", "instruct", "the tower alone"],
)
def test_frozen_parts_stay_bit_equal_and_every_trained_weight_changes(tmp_path, parts, trained):
    recipe = tiny_recipe(write_data(tmp_path / "data"), tmp_path / "out", parts=parts)
    setup.seed_everything(recipe.seed, CPU)
    before = {n: t.clone() for n, t in made_model(recipe, recipe.model, CPU).state_dict().items()}
    after = weights(run_training(recipe).checkpoint)
    parameters = dict(made_model(recipe, recipe.model, CPU).named_parameters())
    for name in after:
        is_trained = name.split(".")[0] in trained and name in parameters
        if not is_trained:
            assert torch.equal(before[name], after[name]), name
        elif "embed_tokens" not in name:  # not all of its rows occur in the data
            assert not torch.equal(before[name], after[name]), name


def test_lora_leaves_the_base_weights_unchanged(tmp_path):
    parts = {"encoder": FROZEN, "language": {"lora": {"rank": 2, "alpha": 4}}}
    recipe = tiny_recipe(write_data(tmp_path / "data"), tmp_path / "out", parts=parts)
    setup.seed_everything(recipe.seed, CPU)
    before = {n: t.clone() for n, t in made_model(recipe, recipe.model, CPU).state_dict().items()}
    after = weights(run_training(recipe).checkpoint)
    base = [name for name in after if name.startswith("language.") and "lora_" not in name]
    assert base and all(torch.equal(before[name], after[name]) for name in base)
    lora_b = [name for name in after if "lora_B" in name]
    assert len(lora_b) == 2 * 7 and all(after[name].any() for name in lora_b)


def test_a_weight_without_a_gradient_stops_the_run_at_the_first_step(tmp_path, monkeypatch):
    original = VisionLanguageModel.encode_images

    def cut(self, batch):
        features, counts = original(self, batch)
        return features.detach(), counts

    monkeypatch.setattr(VisionLanguageModel, "encode_images", cut)
    with pytest.raises(RuntimeError, match="should be trained but have no gradient"):
        run_training(tiny_recipe(write_data(tmp_path / "data"), tmp_path / "out"))


def gradients(recipe, accumulate: int):
    """Return the micro-batches of the first step and their gradients, with the data in one or in several pieces."""
    setup.seed_everything(0, CPU)
    model = made_model(recipe, recipe.model, CPU)
    feed, _ = open_feed.make_feeds(recipe, model, CPU)
    source = Prefetcher(feed, CPU.device)
    micros = source.take(accumulate)
    source.close()
    answers = sum(sum(m.answers) for m in micros)
    step = ModelWithLoss(model, chunk=16, autocast=False)
    for micro in micros:
        (step(micro)[0] / answers).backward()
    return micros, {name: p.grad.clone() for name, p in model.named_parameters()}


def test_accumulated_gradients_equal_those_of_one_large_batch(tmp_path):
    """Each answer token has the same weight, whatever its micro-batch. A mean of means would differ."""
    data = write_data(tmp_path / "data", captions=8, conversations=24)
    shape = {"pack": False, "sample_tokens": 96}
    four, small = gradients(tiny_recipe(data, tmp_path / "o", batches={**shape, "samples": 4}), 4)
    one, big = gradients(tiny_recipe(data, tmp_path / "o", batches={**shape, "samples": 16}), 1)
    assert [k for m in four for k in m.batch.keys] == one[0].batch.keys
    assert len({sum(m.answers) for m in four}) > 1
    for name in big:
        assert torch.allclose(small[name], big[name], atol=1e-6), name


def test_packed_and_padded_batches_of_the_same_samples_have_the_same_gradients(tmp_path):
    data = write_data(tmp_path / "data", conversations=16, captions=0)
    packed, one = gradients(tiny_recipe(data, tmp_path / "o", batches={"tokens": 2048, "sample_tokens": 96}), 1)
    shape = {"pack": False, "sample_tokens": 96, "samples": 16}
    padded, other = gradients(tiny_recipe(data, tmp_path / "o", batches=shape), 1)
    assert packed[0].batch.input_ids.shape[0] == 1 and padded[0].batch.input_ids.shape[0] == 16
    assert sorted(packed[0].batch.keys) == sorted(padded[0].batch.keys)
    for name in one:
        assert torch.allclose(one[name], other[name], atol=1e-5), name


def test_a_micro_batch_counts_answers_as_the_loss_does(tmp_path):
    recipe = tiny_recipe(write_data(tmp_path / "data", conversations=8), tmp_path / "o")
    model = made_model(recipe, recipe.model, CPU)
    feed, _ = open_feed.make_feeds(recipe, model, CPU)
    batch, _ = next(iter(feed))
    micro = MicroBatch.of(batch, CPU.device)
    total, of_sample = ModelWithLoss(model, chunk=8, autocast=False)(micro)
    assert torch.allclose(of_sample.sum(), total) and len(of_sample) == len(batch.keys)
    assert sum(micro.answers) == int((batch.labels != -100).sum()) == len(micro.positions)


def test_a_clip_of_zero_turns_gradient_clipping_off(tmp_path):
    data = write_data(tmp_path / "data", captions=16)
    free, wide = (
        weights(run_training(tiny_recipe(data, tmp_path / str(clip), steps=2, optimizer={"clip": clip})).checkpoint)
        for clip in (0, 1e9)
    )
    assert all(torch.equal(free[name], wide[name]) for name in free)
