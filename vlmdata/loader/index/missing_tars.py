"""Says why a path has no tars, and what to name instead."""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path

from vlmdata.shipped import build_recipes

MANIFEST = "manifest.json"  # of a finished dataset
WORK = "work"  # folder of a run
TAR_FIX = "Name a dataset that `vlmdata run` wrote, or a folder of WebDataset tars"
EXPORTED = "If they are an export, name the dataset that was exported, or export it with `--to tars`"
NOT_TARS = {
    **dict.fromkeys((".yaml", ".yml"), "Build it with `vlmdata run`, and name the dataset (--out)"),
    **dict.fromkeys((".csv", ".tsv", ".json", ".jsonl", ".txt", ".html"), TAR_FIX),
}
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff")
FIRST = 1000  # names of a folder that are looked at


def no_path_line(path: str) -> str:
    """Return a message about a path that does not exist: a recipe's name, a name that is nearly the same, or what to name."""
    if path in (recipe.stem for recipe in build_recipes()):
        return f"{path} is a recipe. Build it with `vlmdata run {path} --out OUT`, and name OUT"
    folder = Path(path).absolute().parent
    names = [one.name for one, _ in zip(folder.iterdir(), range(FIRST), strict=False)] if folder.is_dir() else []
    near = difflib.get_close_matches(Path(path).name, [name for name in names if _may_hold_tars(folder / name)], 1)
    if near:
        return f"{path} does not exist. Did you mean '{Path(path).with_name(near[0])}'?"
    return f"{path} does not exist. {TAR_FIX}"


def no_tars_line(paths: list[str]) -> str:
    """Return a message about folders or patterns that give no tars."""
    path = paths[0]
    folder = Path(path)
    start = f"there are no tars in {', '.join(paths)}"
    if len(paths) > 1 or not folder.is_dir():
        return f"{start}. {TAR_FIX}"
    if (folder / MANIFEST).is_file():
        return f"{start}, because the run kept no row. `vlmdata show {path}` says why"
    if (folder / WORK).is_dir():
        return f"{start}, because its run has not finished. Run its build command again; it resumes"
    names = [one.name.lower() for one, _ in zip(folder.rglob("*"), range(FIRST), strict=False)]
    if any(name.endswith((".parquet", ".arrow")) for name in names):
        return f"{start}, but Parquet or Arrow files. {EXPORTED}"
    if any(name.endswith(PICTURES) for name in names):
        return f"{start}, but images. Build a dataset of them: vlmdata run captions_folder --set source.path={path} --out OUT"
    return f"{start}. {TAR_FIX}"


def no_samples_line(name: str) -> str:
    """Return a message about a dataset or tars whose index holds no samples. `name` is the path that the user gave."""
    path = name.removesuffix("/index.parquet")
    if "://" in path or (Path(path) / MANIFEST).is_file():
        return f"{path} has no samples. `vlmdata show {shlex.quote(path)}` says why its run kept no row"
    return f"{name} has no samples: its tars are empty. {TAR_FIX}"


def no_tar_line(path: str) -> str | None:
    """Return a message about a file that is no tar by its name, or None."""
    fix = NOT_TARS.get(Path(path).suffix.lower())
    return None if fix is None else f"{path} is not a tar. {fix}"


def _may_hold_tars(path: Path) -> bool:
    return path.is_dir() or path.suffix in (".tar", ".parquet")
