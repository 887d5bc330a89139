"""One thread: the models are so small that handing work to a second one costs more than it saves. And numbers drawn without a
seed are the same in each test, whatever ran before it."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
