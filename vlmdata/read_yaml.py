"""Reads the YAML of recipes. A mistake of form, such as a tab or a repeated key, is reported with line, column and fix."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import yaml

from vlmdata.errors import RecipeError
from vlmdata.untrusted import one_line

MOST_REPEATED = 10_000  # values that aliases may add to those that a file holds
INDENT = "Check the indentation: the entries of a list, and the keys of a mapping, begin in the same column"


class StrictLoader(yaml.SafeLoader):
    """yaml.SafeLoader, but a key that occurs twice in a mapping is an error, and `12:30` is a text.

    YAML itself would keep the last of equal keys, and YAML 1.1 reads `12:30` as a number to base 60: 750. Aliases that repeat
    too much, or that contain themselves, are an error too: a file of a few lines could stand for billions of values.
    """

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _count_values(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"the key '{key.value}' is already in line {seen[key.value]}. Remove or join one of the two"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen[key.value] = line
        return super().construct_mapping(node, deep=deep)


def _count_values(node: yaml.Node, counts: dict[int, int]) -> int:
    """Return the number of values of a node with its aliases written out. `counts` holds the finished nodes by their id.

    Raises ConstructorError for a node that contains itself, and for aliases that repeat values too often.
    """
    if (known := counts.get(id(node))) == 0:
        raise _refused("an alias stands for a value that contains the alias. Write the value out", node)
    if known is None:
        counts[id(node)] = 0  # until the node is finished
        inner = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
        known = 1 + (0 if isinstance(node, yaml.ScalarNode) else sum(_count_values(one, counts) for one in inner))
        counts[id(node)] = known
        if known > MOST_REPEATED + len(counts):
            raise _refused(f"aliases repeat more than {MOST_REPEATED:,} values. Write out what is needed", node)
    return known


def _refused(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _number_or_text(loader: StrictLoader, node: yaml.ScalarNode) -> Any:
    text = loader.construct_scalar(node)
    if ":" in text:
        return text
    return loader.construct_yaml_int(node) if node.tag.endswith(":int") else loader.construct_yaml_float(node)


for _kind in ("int", "float"):
    StrictLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _number_or_text)


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file. Raises RecipeError, with line and column, if the file cannot be read as YAML."""
    try:
        text = path.read_text()
        return yaml.load(text, StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        if mark is None:
            raise RecipeError(f"cannot read {path} as YAML: {one_line(error)}") from None
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}"
        raise RecipeError(f"{where}: {_problem(error, text.splitlines())}") from None
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path} is not a text in UTF-8. {_not_utf8(path)}") from None
    except RecursionError:
        raise RecipeError(f"{path} is not a recipe, because its values are nested too deeply") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"cannot read {path} as YAML: {one_line(error)}") from None


def _not_utf8(path: Path) -> str:
    """Return what to do about a file that is not in UTF-8. Editors on Windows begin UTF-16 with a byte order mark."""
    with path.open("rb") as file:
        is_utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return "It is in UTF-16: save it as UTF-8" if is_utf16 else "Name a YAML file, and save it as UTF-8"


def _problem(error: yaml.MarkedYAMLError, lines: list[str]) -> str:
    assert error.problem_mark is not None
    problem, number = error.problem or "this is not YAML", error.problem_mark.line
    line = lines[number] if number < len(lines) else ""
    if "'\\t'" in problem or "\t" in line[: len(line) - len(line.lstrip())]:
        return "a tab. YAML is indented with spaces only; replace each tab by two spaces"
    if "<block" in problem or "mapping values" in problem:
        return f"{problem}. {INDENT}"
    if "another document" in problem:
        return "a second document begins here. Remove the line ---, or write each recipe to its own file"
    if (tag := problem.partition("could not determine a constructor for the tag ")[2]) and "'" in tag:
        return f"the tag {tag} is not allowed. Remove it, or put quotes around a text that begins with !"
    if isinstance(error, yaml.constructor.ConstructorError):
        return problem
    return f"{problem}. Put quotes around a text with one of the characters : # {{ [ * & ! % @"
