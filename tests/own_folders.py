"""Folders of a test run that replace the user's, so that tests see no cache or setting of the user and leave none behind."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

FOLDERS = {
    "HOME": "home",
    "XDG_CACHE_HOME": "home/.cache",
    "XDG_CONFIG_HOME": "home/.config",
    "XDG_DATA_HOME": "home/.local/share",
    "XDG_STATE_HOME": "home/.local/state",
    "CROISSANT_CACHE": "home/.cache/croissant",
    "HF_HOME": "home/.cache/huggingface",
    "TORCH_HOME": "home/.cache/torch",
    "MPLCONFIGDIR": "home/.config/matplotlib",
    "WANDB_DIR": "home/wandb",
    "HYPOTHESIS_STORAGE_DIRECTORY": "home/hypothesis",
    "RAY_TMPDIR": "tmp",
    "TMPDIR": "tmp",
}
# User settings that would override the folders above or change what a test reaches.
FORGOTTEN = [
    "HF_DATASETS_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR",
    "AWS_PROFILE", "AWS_SESSION_TOKEN", "RAY_ADDRESS",
]  # fmt: skip
FORGOTTEN += [f"{kind}_proxy" for kind in ("http", "https", "all", "no")]


def use_own_folders() -> Path:
    """Make a temporary folder, point this process and its children to folders in it, and return it.

    The folders of tests (`tmp_path`) stay where pytest puts them, so that a developer can inspect those of failed tests."""
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    root = Path(tempfile.mkdtemp(prefix="vt-")).resolve()  # short, because the path of a Ray socket may have at most 107 bytes
    for name, folder in FOLDERS.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(root / folder)
    for name in FORGOTTEN:
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)
    # each process of a parallel run uses one core; threads of BLAS would wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["HF_HUB_OFFLINE"] = os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # both must not contact their servers
    tempfile.tempdir = None  # makes tempfile read TMPDIR again
    return root
