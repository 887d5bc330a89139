"""Heads of the published layouts give the scores of the same head in torch. Their weights here are random."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.models.heads import PUBLISHED, published, vectors, without_pairs
from vlmdata.models.classifier_head import load_head, shapes
from vlmdata.models.head_description import read_description, shipped_heads


def test_every_shipped_description_is_tested() -> None:
    assert shipped_heads() == sorted(PUBLISHED)


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_scores_are_those_of_the_head_in_torch(name: str, ending: str, tmp_path: Path) -> None:
    made = published(name)
    path = tmp_path / f"head.{ending}"
    if ending == "pt":
        torch.save(made.state_dict(), path)
    else:
        save_file(made.state_dict(), path)
    head = load_head(without_pairs(name, tmp_path), str(path))
    given = vectors(head.description.input.width)
    with torch.inference_mode():
        wanted = made(torch.from_numpy(given)).numpy()
    found = head.scores(given)
    assert found.shape == (40, len(head.names)) and wanted.std(axis=0).min() > 0.01
    assert np.abs(found - wanted[:, list(head.description.outputs.values())]).max() < 1e-4


@pytest.mark.parametrize("name", [name for name in sorted(PUBLISHED) if read_description(name).pairs])
def test_pairs_of_a_published_head_refuse_other_weights(name: str) -> None:
    description = read_description(name)
    assert len(description.pairs) == 2 and {layer.weight for layer in description.layers} <= shapes(description).keys()
    assert description.pairs[0].scores != description.pairs[1].scores
    assert all(0.9 < np.linalg.norm(pair.input) < 1.1 for pair in description.pairs)
