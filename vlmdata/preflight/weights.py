"""Finds the weights that steps load: on this machine, or at the place they are downloaded from."""

from __future__ import annotations

import os
from pathlib import Path

from vlmdata.errors import RecipeError
from vlmdata.models.clip_names import Weights, downloads, has_own_weights, names_at_home
from vlmdata.preflight.findings import Findings
from vlmdata.step import Step
from vlmdata.untrusted import errors_as, one_line

NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # files of weights in a repository, in open_clip's order
ON = {"1", "ON", "YES", "TRUE"}  # values of HF_HUB_OFFLINE that huggingface_hub takes as true
WAIT_S = 5.0  # for an answer of the hub


class MissingWeights(RecipeError):
    """Weights that are neither on this machine nor can be downloaded."""


def check_weights(step: Step, findings: Findings, *, resolves: bool) -> None:
    """Raise MissingWeights if weights of a step are not available. `step.check` has checked the names and the local files.

    Weights that are not on this machine are noted. With `resolves`, the hub is asked whether it has them.
    """
    for model, pretrained in step.clip_weights():
        model, pretrained = names_at_home(model, pretrained)
        if model.startswith("local-dir:") or (not has_own_weights(model) and Path(pretrained).is_file()):
            continue
        if model.startswith("hf-hub:"):
            weights, name = Weights("", f"{model.removeprefix('hf-hub:')}/", False), model
        else:
            weights = downloads(model)[pretrained.lower().replace("-", "_")]
            name = f"{model} {pretrained}"
        if is_cached(weights):
            continue
        where = weights.hub.rstrip("/") or weights.url
        if weights.hub and os.environ.get("HF_HUB_OFFLINE", "").upper() in ON:
            raise MissingWeights(
                f"{step.name}: the weights of {name} ({where}) are not on this machine, and HF_HUB_OFFLINE forbids to download "
                f"them. Unset it, download them before, or {_other(step, model)}"
            )
        if resolves and weights.hub:
            _resolve(step, name, weights)
        findings.advise(f"{step.name}: the weights of {name} are not on this machine; the run downloads them from {where}")


def is_cached(weights: Weights) -> bool:
    """Return whether weights were downloaded to this machine before. Nothing is requested."""
    if not weights.hub:
        return (Path.home() / ".cache" / "clip" / os.path.basename(weights.url)).is_file()
    repository, file = os.path.split(weights.hub)
    folder = _hub_cache() / f"models--{repository.replace('/', '--')}" / "snapshots"
    return any(any(folder.glob(f"*/{name}")) for name in ([file, f"{Path(file).stem}.safetensors"] if file else NAMES))


def _hub_cache() -> Path:
    """Return the folder in which huggingface_hub keeps downloads, without importing it, which would take half a second."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(
        os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    ).expanduser()


def _resolve(step: Step, name: str, weights: Weights) -> None:
    """Raise MissingWeights if the hub does not have the weights, or cannot be reached. Nothing is downloaded."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    repository, file = os.path.split(weights.hub)
    with errors_as(lambda error: _unreachable(step, name, repository, error)):
        for last, one in enumerate([file] if file else NAMES):
            try:
                get_hf_file_metadata(hf_hub_url(repository, one), timeout=WAIT_S)
                return
            except EntryNotFoundError:
                if file or last:
                    raise


def _unreachable(step: Step, name: str, repository: str, error: Exception) -> Exception:
    return MissingWeights(
        f"{step.name}: the weights of {name} cannot be downloaded from {repository}: {one_line(error)[:200]}. "
        f"Check the connection and the name, or {_other(step, name)}"
    )


def _other(step: Step, model: str) -> str:
    """Return what a user without a connection can do."""
    if has_own_weights(model):
        return f"set {step.name}.model to local-dir:FOLDER, a model folder of open_clip"
    return f"set {step.name}.pretrained to a file of weights"
