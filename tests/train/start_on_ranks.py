"""A program that a test runs on several ranks with torchrun: each rank reads its share of a start.

torchrun --nproc-per-node 2 -m tests.train.start_on_ranks equal OUT.json CASES.json     # compares with one rank
torchrun --nproc-per-node 2 -m tests.train.start_on_ranks memory OUT.json CASES.json    # measures the peak of resident memory
python -m tests.train.start_on_ranks make FOLDER                                        # a Qwen2-VL of 2 GB in four files

CASES.json holds a list of changes to the recipe `instruct`. Of `memory`, the first is a tiny start that warms the program up.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from tests.train.published import qwen
from vlmdata_train.convert.families.qwen2_vl import Qwen2Vl
from vlmdata_train.distributed import Ranks, all_gather_objects, full_tensor, joined
from vlmdata_train.loop.adamw import local
from vlmdata_train.loop.learner import Learner
from vlmdata_train.loop.setup import make_model, model_parts, seed_everything
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.recipe_file import load

BIG = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 30, "num_attention_heads": 16,
    "num_key_value_heads": 8, "vocab_size": 16384,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [8, 12, 12]},
}  # fmt: skip


def write_big(folder: Path) -> None:
    """Write a Qwen2-VL with 510 million random weights in fp32, in four files of at most 540 MB."""
    made = qwen(Qwen2Vl(), {"depth": 4, "embed_dim": 256, "mlp_ratio": 2, "hidden_size": 1024}, **BIG)
    tokenizer = made.tokenizer()
    made.model(tokenizer).save_pretrained(folder, max_shard_size="540MB")
    made.processor(tokenizer).save_pretrained(folder)


def begin(changes: dict[str, Any], ranks: Ranks) -> tuple[VisionLanguageModel, Learner]:
    """Set up a run up to its optimizer, as `Run` does."""
    common = {"data": "unused", "out": "unused", "epochs": None, "steps": 1, "held_out": {}, "logs.tensorboard": False}
    recipe = load("instruct", overrides={**common, "speed.device": "cpu", "speed.parallel": "fsdp", **changes})
    seed_everything(recipe.seed, ranks)
    model, read = make_model(recipe, model_parts(recipe, Path("unused"), ranks), ranks)
    return model, Learner(model, recipe, ranks, read)


def distinct(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters, each once."""
    return list(dict(model.named_parameters()).values())


def differences(changes: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Return what differs from a model on one rank, and the largest share of the weights that a rank has."""
    sharded, _ = begin(changes, ranks)
    state = torch.get_rng_state()
    whole, _ = begin(changes, Ranks(0, 1, torch.device("cpu")))
    one, other = sharded.state_dict(), whole.state_dict()
    tensors = [*zip(one.items(), other.values(), strict=True)]
    tensors += [*zip(sharded.named_buffers(), dict(whole.named_buffers()).values(), strict=True)]
    found = [name for (name, a), b in tensors if a.dtype != b.dtype or not torch.equal(full_tensor(a), b)]
    found += [name for name, p in sharded.named_parameters() if not isinstance(p, DTensor)]
    trained = [[p.requires_grad for p in distinct(model)] for model in (sharded, whole)]
    found += ["trained"] * (trained[0] != trained[1]) + ["random"] * (not torch.equal(state, torch.get_rng_state()))
    found += ["names"] * (list(one) != list(other))
    tied = len(one) - len({id(tensor) for tensor in whole.state_dict(keep_vars=True).values()})
    share = sum(local(p).numel() for p in distinct(sharded)) / sum(p.numel() for p in distinct(whole))
    return {"differ": found, "tied": tied, "share": share}


def memory(changes: dict[str, Any], ranks: Ranks) -> dict[str, int]:
    """Return the growth of the peak of resident memory during the start, and the size of the rank's weights, in bytes.

    Resident memory includes the pages of files that are mapped.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now the current size
    before = resident("VmRSS")
    model, learner = begin(changes, ranks)
    assert learner.weights
    return {"peak": resident("VmHWM") - before, "share": sum(local(p).nbytes for p in distinct(model))}


def resident(field: str) -> int:
    """Return an entry of this process's status, in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def main(what: str, cases: list[dict[str, Any]]) -> list[Any]:
    """Return the results of all ranks for each case."""
    with joined("cpu") as ranks:
        if what == "equal":
            return [all_gather_objects(differences(changes, ranks), ranks) for changes in cases]
        begin(cases[0], ranks)
        return [all_gather_objects(memory(changes, ranks), ranks) for changes in cases[1:]]


if __name__ == "__main__":
    if sys.argv[1] == "make":
        write_big(Path(sys.argv[2]))
    else:
        results = main(sys.argv[1], json.loads(Path(sys.argv[3]).read_text()))
        if os.environ.get("RANK", "0") == "0":  # gathered results are the same on all ranks
            Path(sys.argv[2]).write_text(json.dumps(results))
