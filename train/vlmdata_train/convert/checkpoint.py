"""Saves and loads checkpoints, which are atomic, contain no pickle, and can be loaded on any number of ranks.

A checkpoint is a folder `step_00000100`. It is written under a temporary name, synced and renamed, so a folder with this name
is always complete. A checkpoint holds:

    model-00000.safetensors …       trained weights and buffers, by name
    frozen-00000.safetensors …      frozen weights, written once and hard-linked from checkpoint to checkpoint
    optimizer-00000.safetensors …   the optimizer's tensors, as `weight/state`
    state.json                      step, loader position, random states, losses
    recipe.json, tokenizer/         to build and use the model; question_tokenizer/ too, if the abstractor has its own
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from vlmdata.step import RecipeError
from vlmdata_train.convert.checkpoint_folder import latest
from vlmdata_train.convert.misfit import misfit
from vlmdata_train.distributed import Ranks, all_gather_objects, barrier, copy_share, distribute_like, full_tensor
from vlmdata_train.model.lora import merged
from vlmdata_train.model.weight_places import Place, first_places, unshared, weight_places

MAX_FILE_BYTES = 4 << 30


@dataclass(frozen=True)
class Saved:
    """The state that a checkpoint holds besides tensors."""

    step: int
    data: Any  # the loader's position
    random: list[dict[str, Any]]  # states of each rank's random generators
    facts: dict[str, Any]  # losses and counts that the loop resumes from


def save(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    saved: Saved,
    recipe: dict[str, Any],
    tokenizers: Mapping[str, Any],
    ranks: Ranks,
) -> Path:
    """Write the checkpoint `folder/step_N` atomically and return its path. Every rank must call this function.

    `tokenizers` are by the names of their folders in the checkpoint.
    """
    final = folder / f"step_{saved.step:08d}"
    previous = latest(folder)
    part = folder / f".part-{uuid.uuid4().hex[:8]}"
    if ranks.is_first:
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(".part-*"):  # left by a killed run
            shutil.rmtree(left_over)
        part.mkdir()
    named = unshared(model)
    frozen = {name for name, p in named if isinstance(p, nn.Parameter) and not p.requires_grad}
    _write(part, "model", ((n, p) for n, p in named if n not in frozen), ranks)
    if not _linked_frozen(previous, part, ranks):
        _write(part, "frozen", ((n, p) for n, p in named if n in frozen), ranks)
    _write(part, "optimizer", _optimizer_tensors(dict(named), optimizer), ranks)
    if ranks.is_first:
        for name, tokenizer in tokenizers.items():
            tokenizer.save_pretrained(part / name)
        (part / "recipe.json").write_text(json.dumps(recipe, indent=1))
        state = {"step": saved.step, "data": saved.data, "random": saved.random, "facts": saved.facts}
        (part / "state.json").write_text(json.dumps(state))
        _sync(part)
        if final.exists():  # a run that resumed from an earlier step saves this step again
            final.rename(folder / f".part-{uuid.uuid4().hex[:8]}")
        part.rename(final)
        _sync_folder(folder)
        for old in folder.glob(".part-*"):
            shutil.rmtree(old)
    barrier(ranks)
    return final


def write_weights(folder: Path, model: nn.Module) -> None:
    """Write a model's weights and buffers, each once, as the files `model-00000.safetensors …`. For one process."""
    _write(folder, "model", unshared(model), Ranks(0, 1, torch.device("cpu")))


def prune(folder: Path, keep: int, best: str | None) -> None:
    """Remove all checkpoints except the `keep` newest ones and the checkpoint with the name `best`."""
    for path in sorted(folder.glob("step_*"))[:-keep]:
        if path.name != best:
            hidden = path.rename(folder / f".part-{uuid.uuid4().hex[:8]}")  # readers must not find it half removed
            shutil.rmtree(hidden)


def read_saved(path: Path) -> Saved:
    """Read the state of a checkpoint. Raise RecipeError if the file of the state is damaged or missing."""
    try:
        return Saved(**json.loads((path / "state.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(path / "state.json", error) from error


def load_model(path: Path, model: nn.Module) -> None:
    """Load the weights of a checkpoint into a model. Raise RecipeError for the first weight that does not fit."""
    load_weights(path, weight_places(model), {})


@torch.no_grad()
def load_weights(path: Path, places: Mapping[str, Place], updates: Mapping[nn.Module, Any]) -> None:
    """Load the weights of a checkpoint into their places, which are by the checkpoint's names. Of a sharded weight, only this
    rank's share is read.

    `updates` are the checkpoint's LoRA updates by their layers, as `lora.remove_lora` returns them. They are loaded first and
    added to the weights of their layers. Raise RecipeError for the first weight that does not fit.
    """
    first = first_places(places)
    missing = dict(first)
    for is_update in [True, False] if updates else [False]:
        for name, tensor in read_tensors(path, "model", "frozen"):
            if updates and is_update != ("lora_" in name):
                continue
            if name not in first:
                raise RecipeError(
                    f"{path}: the model has no weight '{name}'. Set the model's parts in the recipe as in {path}/recipe.json"
                )
            place = first[name]
            if found := misfit(tensor, place.tensor):
                raise RecipeError(f"{path}: '{name}' {found}")
            if place.owner in updates and place.leaf == "weight":
                tensor = merged(updates[place.owner], tensor)
            copy_share(tensor, place.tensor)
            missing.pop(name, None)
    if missing:
        raise RecipeError(f"{path} lacks the weight '{next(iter(missing))}' (missing weights: {len(missing)})")


def load_optimizer(path: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Load a checkpoint's optimizer state.

    Each tensor keeps its saved dtype. `Optimizer.load_state_dict` would cast it to the dtype of the weight.
    """
    parameters = dict(unshared(model))
    for name, tensor in read_tensors(path, "optimizer"):
        weight, _, key = name.rpartition("/")
        p = parameters[weight]
        if key != "step":
            tensor = distribute_like(tensor, p)
        elif optimizer.defaults.get("fused"):  # the fused kernel needs the step count on the weight's device
            tensor = tensor.to(p.device)
        optimizer.state[p][key] = tensor


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the state of every random generator of this process, as JSON values."""
    generator: Any = np.random.get_state(legacy=True)
    kind, keys, *rest = generator
    version, numbers, gauss = random.getstate()
    states = {"torch": _text(torch.get_rng_state()), "python": [version, list(numbers), gauss]}
    states["numpy"] = [str(kind), np.asarray(keys).tolist(), *rest]
    if device.type == "cuda":
        states["cuda"] = _text(torch.cuda.get_rng_state(device))
    return states


def restore_random(states: dict[str, Any], device: torch.device) -> None:
    """Restore the state of every random generator of this process."""
    torch.set_rng_state(_tensor(states["torch"]))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(_tensor(states["cuda"]), device)


def all_random_states(ranks: Ranks) -> list[dict[str, Any]]:
    """Return the states of every rank's random generators. Every rank must call this function."""
    return all_gather_objects(random_states(ranks.device), ranks)


def _optimizer_tensors(named: dict[str, Tensor], optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
    for name, p in named.items():
        for key, value in sorted(optimizer.state.get(p, {}).items()):
            yield f"{name}/{key}", value if torch.is_tensor(value) else torch.tensor(value)


def _write(folder: Path, kind: str, tensors: Iterable[tuple[str, Tensor]], ranks: Ranks) -> None:
    """Write tensors to the files `kind-00000.safetensors …`. All ranks gather the sharded tensors, one tensor at a time."""
    pending: dict[str, Tensor] = {}
    size = files = 0
    for name, tensor in tensors:
        whole = full_tensor(tensor.detach())
        if not ranks.is_first:
            continue
        pending[name] = whole.to("cpu", copy=True).contiguous()
        size += pending[name].nbytes
        if size >= MAX_FILE_BYTES:
            save_file(pending, folder / f"{kind}-{files:05d}.safetensors")
            pending, size, files = {}, 0, files + 1
    if pending:
        save_file(pending, folder / f"{kind}-{files:05d}.safetensors")


def read_tensors(path: Path, *kinds: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and the tensor of each tensor in a checkpoint's files of these kinds: model, frozen or optimizer."""
    for kind in kinds:
        for file in sorted(path.glob(f"{kind}-*.safetensors")):
            try:
                with safe_open(file, framework="pt") as tensors:
                    for name in tensors.keys():  # noqa: SIM118  not a dict
                        yield name, tensors.get_tensor(name)
            except (OSError, SafetensorError) as error:
                raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> RecipeError:
    return RecipeError(f"{file} is damaged ({error}). Remove {file.parent}; the run then resumes from the checkpoint before it")


def _linked_frozen(previous: Path | None, part: Path, ranks: Ranks) -> bool:
    """Hard-link the frozen weights of the run's last checkpoint, because they never change. Return whether any were linked."""
    is_linked = False
    if ranks.is_first and previous is not None:
        for file in previous.glob("frozen-*.safetensors"):
            _link(file, part / file.name)
            is_linked = True
    return bool(all_gather_objects(is_linked, ranks)[0])


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _sync(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _text(tensor: Tensor) -> str:
    return base64.b64encode(tensor.numpy().tobytes()).decode()


def _tensor(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
