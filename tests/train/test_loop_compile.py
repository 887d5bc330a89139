"""Compiled and recomputed blocks give the same numbers, and a new batch triggers no recompilation."""

import pytest
import torch

from tests.train.runs import made_model, tiny_recipe
from tests.train.shards import MemoryStream, caption_samples, conversation_samples
from vlmdata_train.data import open_feed
from vlmdata_train.data.feed import Feed
from vlmdata_train.data.reading import Reading
from vlmdata_train.data.sample_positions import FeedPosition, SamplePosition
from vlmdata_train.distributed import Ranks
from vlmdata_train.loop import setup
from vlmdata_train.loop.memory import blocks_to_recompute, spaced
from vlmdata_train.loop.prefetch import Prefetcher
from vlmdata_train.loop.train_step import ModelWithLoss
from vlmdata_train.model.repeated_blocks import blocks_of, recompute

pytestmark = pytest.mark.whole

CPU = Ranks(0, 1, torch.device("cpu"))


def results(batches: int, *, compiled: bool, recomputed: list[bool], attention: str = "segments", learns: bool = True):
    """Return the losses and the gradient norms of some batches."""
    recipe = tiny_recipe("unused", "unused")  # type: ignore[arg-type]
    setup.seed_everything(0, CPU)
    model = made_model(recipe, recipe.model, CPU).train()
    model.attention = attention
    blocks = blocks_of(model.language)
    recompute(blocks, recomputed)
    for block in blocks if compiled else []:
        block.compile(backend="aot_eager")  # runs all of the compiler except code generation
    samples = caption_samples(60) + conversation_samples(30)
    packs = MemoryStream([samples[i::30] for i in range(30)])
    reading = Reading(open_feed.prompter_of(model), model.plan, "instruct", 96)
    feed = Feed(lambda rank, world: packs, reading, FeedPosition(SamplePosition(0, 0, 1)), 192)
    source, step, numbers = Prefetcher(feed, CPU.device), ModelWithLoss(model, chunk=64, autocast=False), []
    for micro in source.take(batches):
        with torch.set_grad_enabled(learns):
            total, _ = step(micro)
        numbers.append(total.item())
        if learns:
            total.backward()
            numbers += [float(p.grad.norm()) for p in model.parameters() if p.grad is not None]
    source.close()
    return numbers


def test_the_blocks_found_are_those_of_the_language_model():
    recipe = tiny_recipe("unused", "unused")  # type: ignore[arg-type]
    model = made_model(recipe, recipe.model, CPU)
    assert [type(b).__name__ for b in blocks_of(model.language)] == ["LlamaDecoderLayer"] * 2


def test_recomputing_some_blocks_changes_no_result():
    assert results(1, compiled=False, recomputed=[True, False]) == results(1, compiled=False, recomputed=[False, False])


@pytest.mark.slow
def test_compiling_changes_no_gradient_with_or_without_recomputed_blocks():
    wanted = results(1, compiled=False, recomputed=[False, False])
    assert results(1, compiled=True, recomputed=[True, False]) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.slow
def test_a_new_packing_does_not_trigger_a_recompilation():
    """The mask is an input of the compiled block, not a constant in it. FlexAttention has no backward pass on a CPU."""
    wanted = results(8, compiled=False, recomputed=[False] * 2, attention="flex", learns=False)
    torch._dynamo.reset()  # the plain form of FlexAttention is compiled too
    torch._dynamo.utils.counters.clear()
    assert results(8, compiled=True, recomputed=[False] * 2, attention="flex", learns=False) == pytest.approx(wanted, rel=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1  # both blocks, all batches
    assert not torch._dynamo.utils.counters["graph_break"]


def test_only_as_many_blocks_are_recomputed_as_memory_requires():
    assert blocks_to_recompute(32, 1e9, 32e9) == 0
    assert blocks_to_recompute(32, 1e9, 8.5e9) == 24
    assert blocks_to_recompute(32, 1e9, -5e9) == 32
    for chosen in range(9):
        assert sum(spaced(8, chosen)) == chosen
    assert spaced(8, 2) == [False, False, False, True, False, False, False, True]
