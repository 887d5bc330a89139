"""Weights that torch saved (`.bin`) are loaded as those of safetensors are, and no code in these files is run."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.train.published import write_published
from vlmdata.step import RecipeError
from vlmdata_train.convert.checkpoint_folder import model_of
from vlmdata_train.convert.fill import fill_from_published
from vlmdata_train.convert.published import Published
from vlmdata_train.model.model import build_model
from vlmdata_train.model.weight_places import weight_places

pytestmark = pytest.mark.whole


def as_torch_files(folder: Path, files: int = 1, **options: Any) -> None:
    """Replace a model's file of safetensors by files that torch saves."""
    source = folder / "model.safetensors"
    tensors = load_file(source)
    source.unlink()
    if files == 1:
        torch.save(tensors, folder / "pytorch_model.bin", **options)
        return
    table = {}
    for number in range(files):
        name = f"pytorch_model-{number + 1:05d}-of-{files:05d}.bin"
        part = {key: tensors[key] for key in sorted(tensors)[number::files]}
        torch.save(part, folder / name, **options)
        table |= dict.fromkeys(part, name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": table}))


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of our model of a published one."""
    model = build_model(model_of(str(folder)))
    fill_from_published(model, str(folder), weight_places(model))
    return model.state_dict()


@pytest.mark.parametrize(
    ("files", "options"),
    [(1, {}), (3, {}), (1, {"_use_new_zipfile_serialization": False})],
    ids=["one file", "three files", "torch's format before 1.6"],
)
@pytest.mark.parametrize("family", ["Qwen2-VL", "ViP-LLaVA"])
def test_files_of_torch_give_the_weights_of_safetensors(
    family: str, files: int, options: dict[str, Any], tmp_path: Path
) -> None:
    start = write_published(family, tmp_path)
    expected = weights_of(start)
    as_torch_files(start, files, **options)
    loaded = weights_of(start)
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_safetensors_are_read_if_a_folder_has_both(tmp_path: Path) -> None:
    start = write_published("Qwen2-VL", tmp_path)
    (start / "pytorch_model.bin").write_bytes(b"\xff" * 100)
    assert {path.name for path in Published(str(start)).files()} == {"model.safetensors"}


class Harmful:
    """An object whose pickle creates a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_of_torch_is_not_run(zipped: bool, tmp_path: Path) -> None:
    start = write_published("Qwen2-VL", tmp_path / "start")
    (start / "model.safetensors").unlink()
    content = {"lm_head.weight": torch.zeros(2), "more": Harmful(tmp_path / "made")}
    torch.save(content, start / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(RecipeError, match=r"pytorch_model\.bin is damaged, or holds other Python objects than tensors, which"):
        list(Published(str(start)).weights())
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "must hold tensors by name"),
        ({"state_dict": {"a": torch.zeros(2)}}, "must hold tensors by name"),
        (b"", "is damaged: "),
        (b"\xff" * 100, "is damaged, or holds"),
        (b"PK\x03\x04" + bytes(100), "is damaged"),
    ],
)
def test_a_file_of_torch_that_holds_no_weights_is_named(content: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(RecipeError, match=rf"pytorch_model\.bin {message}"):
        list(Published(str(tmp_path)).weights())


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("adapter_config.json", "holds only LoRA updates"),
        ("mm_projector.bin", "holds only the projector of LLaVA's first stage"),
        ("README.md", r"has no weights: no model\.safetensors and no pytorch_model\.bin"),
    ],
)
def test_a_folder_without_a_whole_model_is_refused_by_what_it_holds(file: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text("{}")
    with pytest.raises(RecipeError, match=message):
        list(Published(str(tmp_path)).weights())
