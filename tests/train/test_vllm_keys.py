"""vLLM finds in an exported `config.json` every key that its loader reads. vLLM itself does not run: it needs a GPU.

The test reads the source of an installed or unpacked vLLM, and is skipped without one.
"""

import ast
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from tests.train.published import FAMILIES, write_published
from tests.train.test_published import loaded
from vlmdata_train.convert.save_published import save_published

pytestmark = pytest.mark.whole

CONFIGS = {"config", "hf_config", "vision_config", "text_config", "qformer_config", "perceiver_config"}  # not vLLM's own ones
OWN_CODE = ["Molmo 2"]


def models_of_vllm() -> Path:
    """Return the folder of vLLM's models, without importing it. Skip the test if there is no vLLM."""
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        pytest.skip("vLLM is not installed")
    return Path(found.origin).parent / "model_executor/models"


def module_of(models: Path, architecture: str) -> str | None:
    """Return the name of the file of an architecture, from the tables of vLLM's registry, or None if there is none."""
    for node in ast.walk(ast.parse((models / "registry.py").read_text())):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == architecture and isinstance(value, ast.Tuple):
                    (module, _) = value.elts
                    assert isinstance(module, ast.Constant)
                    return str(module.value)
    return None


def keys_read(file: Path) -> set[str]:
    """Return the attributes that a file reads of configurations. Those that `getattr` reads with a default are left out."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else None
            if name in CONFIGS:
                found.add(node.attr)
    return found


def configs_in(config: Any) -> list[Any]:
    """Return a configuration and those inside it."""
    return [config, *(getattr(config, name) for name in config.sub_configs if getattr(config, name, None) is not None)]


@pytest.mark.parametrize("name", FAMILIES)
def test_an_export_has_every_key_that_vllm_reads(name: str, tmp_path: Path) -> None:
    if name in OWN_CODE:
        pytest.skip(f"vLLM reads the configuration of {name}'s own code, which is not that of transformers")
    models, export = models_of_vllm(), tmp_path / "export"
    save_published(loaded(write_published(name, tmp_path / "start")), export)
    (architecture,) = json.loads((export / "config.json").read_text())["architectures"]
    module = module_of(models, architecture)
    if module is None:
        pytest.skip(f"vLLM has no class for {architecture}")
    config = AutoConfig.from_pretrained(export)
    file = models / f"{module}.py"
    assert sorted(key for key in keys_read(file) if not any(hasattr(one, key) for one in configs_in(config))) == []
    source = file.read_text()
    if "hf_config=config.text_config" in source and "text_config.architectures" not in source:
        words = config.text_config.architectures  # vLLM finds the class of the language model by this key
        assert words is not None and module_of(models, words[0]) is not None
