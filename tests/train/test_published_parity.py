"""Packed samples have the logits and the gradients that transformers computes for each sample alone."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.train.published import FAMILIES, write_published
from tests.train.test_published import TOLERANCE, batch_of, loaded, served
from vlmdata_train.convert.family import family_of
from vlmdata_train.convert.published import Published
from vlmdata_train.convert.save_published import save_published
from vlmdata_train.model.model import VisionLanguageModel

pytestmark = pytest.mark.whole


def their_gradients(family: Any, model: VisionLanguageModel) -> dict[str, Tensor]:
    """Return our gradients by the names of transformers, in its shapes: zeros for weights without a gradient."""
    holder = copy.deepcopy(model)
    for weight, own in zip(holder.parameters(), model.parameters(), strict=True):
        weight.data = torch.zeros_like(own) if own.grad is None else own.grad.clone()
    for buffer in holder.buffers():
        buffer.data.zero_()
    return dict(family.their_weights(holder))


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_samples_have_the_logits_and_gradients_of_transformers(name: str, tmp_path: Path) -> None:
    model, made, export = loaded(write_published(name, tmp_path / "start")), FAMILIES[name], tmp_path / "export"
    save_published(model, export)
    counts = [1] if max(made.images) == 1 else [2, 1, 3]  # images of unequal sizes
    batch = batch_of(model, *counts)
    assert len(batch.input_ids) == 1
    together = model.logits(batch)[0].split(batch.segment_ids[0].unique(return_counts=True)[1].tolist())
    reference, _ = served(export, counts[0], made.prompt, made.backend)
    reference.get_input_embeddings().padding_idx = None  # we also train a padding token that begins or ends a text
    of_logits, generator = [], torch.Generator().manual_seed(0)
    for images, ours in zip(counts, together, strict=True):
        theirs = reference(**served(export, images, made.prompt, made.backend)[1]).logits[0]
        ours = ours[:, : theirs.shape[1]]  # Llama 3.2 Vision has fewer rows in its output layer
        of_logits.append(float((ours - theirs).detach().abs().max() / theirs.detach().abs().max()))
        noise = torch.randn(theirs.shape, generator=generator)
        for logits in (ours, theirs):
            (logits * noise).sum().backward(retain_graph=True)
    gradients = their_gradients(family_of(Published(str(export))), model)
    known = {
        weight: value for weight, value in reference.named_parameters()
        # the bias of keys adds the same number to all scores of a query, so its gradient is only rounding
        if weight in gradients and not weight.endswith("k_proj.bias")
    }  # fmt: skip
    assert len(known) > 20
    least = 0.01 * max(value.grad.abs().max() for value in known.values() if value.grad is not None)
    of_gradients = {}
    for weight, value in known.items():
        expected = torch.zeros_like(value) if value.grad is None else value.grad
        of_gradients[weight] = float((gradients[weight] - expected).abs().max() / max(expected.abs().max(), least))
    worst = max(of_gradients, key=lambda weight: of_gradients[weight])
    print(f"{name}: logits {max(of_logits):.1e}, gradients {of_gradients[worst]:.1e} ({worst})")  # for docs/models.md
    assert max(of_logits) < TOLERANCE and of_gradients[worst] < TOLERANCE
