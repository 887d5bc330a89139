"""Tests of the trainer use one thread, because a second one costs more than it saves for such small models. Each test begins
with the same random seed, whatever ran before it."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
