"""docs/heads.md lists the shipped heads, and its descriptions and recipes are valid."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlmdata.models.head_description import as_description, read_description, shipped_heads
from vlmdata.recipe import parse

PAGE = (Path(__file__).parent.parent.parent / "docs" / "heads.md").read_text()
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)]
SOURCE = {"type": "files", "path": "pictures"}


def test_the_table_lists_the_shipped_heads_and_their_layers() -> None:
    rows = {name: layers.split(",")[0] for name, layers in re.findall(r"^\| `(laion_\w+)` \| [^|]* \| ([^|]*) \|", PAGE, re.M)}
    heads = {name: read_description(name) for name in shipped_heads()}
    assert rows == {
        name: "-".join(map(str, [head.input.width, *(layer.width for layer in head.layers)])) for name, head in heads.items()
    }


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_descriptions_and_recipes_of_the_page_are_valid(number: int) -> None:
    tree: dict[str, Any] = BLOCKS[number]
    if "input" in tree:
        assert as_description(tree, "the page").layers
    else:
        assert parse({"source": SOURCE, **tree}).steps


def test_the_conversion_on_the_page_writes_the_tensors_of_the_description() -> None:
    script = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.S) if "convert_keras" in block)
    head = read_description("laion_nsfw_l14")
    assert f"LAYERS = {len(head.layers)} " in script and 'f"layers.{number}.weight"' in script
    assert [layer.weight for layer in head.layers] == [f"layers.{number}.weight" for number in range(len(head.layers))]
    assert (head.input.mean, head.input.variance) == ("mean", "variance")
