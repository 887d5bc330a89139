"""What there is to know about steps, sources and generators, for readers: `python -m vlmdata.reference > docs/steps.md`."""

from __future__ import annotations

import difflib
import inspect
import json
import re
import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

from vlmdata import catalog
from vlmdata.errors import RecipeError
from vlmdata.generation.asking_step import AskingStep
from vlmdata.generator import Generator
from vlmdata.parameters import Doc, described, parameters
from vlmdata.step import Source, Step

NEEDS = {
    "model": "loads a model",
    "gpu": "uses a GPU if there is one",
    "web": "uses the web",
    "endpoint": "asks an endpoint, from one worker",
}
BASES = {"source": Source, "step": Step, "generator": Generator}
GENERATORS = (
    "A generator is the model that a step asks. It is the value of the step's parameter `generator`, written as\n"
    "`{NAME: {parameter: value}}`, or as its name alone if no parameter is required. A dotted name is your own class."
)
PAGE = """# Steps and sources

These are all sources, steps and generators that a recipe can use, with their parameters. `vlmdata steps NAME` prints the same
text, and `vlmdata steps --json` the same data. [Sources](sources.md) and the [cookbook](cookbook.md) say how to use them.

An editor that knows JSON Schema shows the same text while you write a recipe, completes names and marks mistakes. It needs
yaml-language-server, which is part of the extension "YAML" of VS Code. Write the schema of your version beside the recipe:

    vlmdata new captions
    vlmdata steps --schema > recipe.schema.json

Then make this line the first of `captions.yaml`:

```yaml
# yaml-language-server: $schema=recipe.schema.json
```
"""


KINDS = ("sources", "steps", "generators")  # in the order of the page
Described = type[Step] | type[Source] | type[Generator]


def every() -> dict[str, list[dict[str, Any]]]:
    """Return the facts of every shipped source, step and generator, sorted by name."""
    return {kind: every_of(kind) for kind in KINDS}


def every_of(kind: str) -> list[dict[str, Any]]:
    """Return the facts of every shipped source, step or generator, sorted by name. `kind` is one of KINDS."""
    return [facts(name, catalog.find(kind, name)) for name in catalog.names(kind)]


def names() -> list[str]:
    """Return the names of all steps, sources and generators."""
    return [name for kind in ("steps", "sources", "generators") for name in catalog.names(kind)]


def find(name: str) -> type:
    """Return the step, source or generator with this name, or the user's class with this dotted name.

    Raises RecipeError with the nearest names for an unknown name.
    """
    if "." in name:
        found = catalog.imported(name, f"cannot import the step, source or generator '{name}'")
        if not (inspect.isclass(found) and issubclass(found, (Step, Source, Generator))):
            raise RecipeError(
                f"'{name}' is neither a step nor a source nor a generator. Derive it from vlmdata.step.Step, "
                "vlmdata.step.Source or vlmdata.generator.Generator"
            )
        return found
    for kind in ("steps", "sources", "generators"):
        if name in catalog.names(kind):
            return catalog.find(kind, name)
    known = names()
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
    near = near or [one for one in known if name and name in one] or difflib.get_close_matches(name, known, n=3)
    *first, last = (f"'{one}'" for one in near or [""])
    advice = (
        f"Did you mean {' or '.join(filter(None, [', '.join(first), last]))}?" if near else "`vlmdata steps` lists all names"
    )
    raise RecipeError(f"there is no step, source or generator '{name}'. {advice}")


def facts(name: str, cls: Described) -> dict[str, Any]:
    """Return what is known about a step, source or generator, as JSON values. `docs/cli.md` lists the fields."""
    return {
        "name": name,
        "kind": next(kind for kind, base in BASES.items() if issubclass(cls, base)),
        "summary": (inspect.getdoc(inspect.getmodule(cls)) or inspect.getdoc(cls) or name).splitlines()[0],
        "description": inspect.getdoc(cls) or "",
        **_traits_of(name, cls),
        "parameters": [
            {
                "name": one.name,
                "type": one.kind,
                "required": one.is_required,
                **({} if one.is_required else {"default": one.default}),
                "text": one.doc.text,
                "unit": one.doc.unit,
                "default_from": one.doc.source,
            }
            for one in parameters(cls)
        ],
        "example": cls.example,
    }


def settings(name: str, cls: Described) -> dict[str, Any]:
    """Return the parameters that the example of the shipped step, source or generator `name` sets."""
    tree = yaml.safe_load(cls.example)
    if issubclass(cls, Generator):
        return (tree.get(name) if isinstance(tree, dict) else None) or {}
    if isinstance(tree, dict):
        return {parameter: value for parameter, value in tree["source"].items() if parameter != "type"}
    return next((entry[name] for entry in tree if isinstance(entry, dict) and name in entry), {})


def in_text(known: dict[str, Any], width: int) -> str:
    """Return the facts as text for a terminal, in lines of at most `width` characters, except for the example."""
    lines = textwrap.wrap(f"{known['name']} ({known['kind']}): {known['summary']}", width)
    for paragraph in _paragraphs(known["description"]):
        lines += ["", *textwrap.wrap(paragraph, width, break_on_hyphens=False)]
    lines += ["", *_table(list(_traits(known).items()), width)]
    rows = [(one["name"], _typed(one), _said(one)) for one in known["parameters"]]
    lines += ["", "Parameters:", *_table(rows, width)] if rows else []
    if known["example"]:
        lines += ["", "Example:", textwrap.indent(_example(known), "  ")]
    return "\n".join(lines)


def in_list(known: dict[str, list[dict[str, Any]]], width: int | None) -> str:
    """Return the names and summaries of steps, sources and generators, one aligned line for each. `width` cuts the lines."""
    column = max(len(one["name"]) for found in known.values() for one in found)
    lines = []
    for kind, found in known.items():
        if not found:
            continue
        rows = [f"  {one['name']:<{column}}  {one['summary']}" for one in found]
        lines += [f"{kind}:", *(_cut(row, width) if width else row for row in rows)]
    return "\n".join([*lines, "", "`vlmdata steps NAME` explains one and its parameters."])


def page() -> str:
    """Return the content of docs/steps.md."""
    known = every()
    label = next(one["text"] for one in known["steps"][0]["parameters"] if one["name"] == "label")
    parts = [PAGE, "## Sources\n", *map(_section, known["sources"])]
    parts += [f"## Steps\n\nEvery step also has the parameter `label`. {label}\n", *map(_section, known["steps"])]
    parts += [f"## Generators\n\n{GENERATORS}\n", *map(_section, known["generators"])] if known["generators"] else []
    return "\n".join(parts)


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1].rpartition(" ")[0].rstrip(",;:") + " …"


def _section(known: dict[str, Any]) -> str:
    paragraphs = [f"### {known['name']}", _escaped(known["summary"].rstrip(".") + ".")]
    texts = map(_escaped, _paragraphs(known["description"]))
    paragraphs += [textwrap.fill(text, 140, break_on_hyphens=False, break_long_words=False) for text in texts]
    paragraphs.append("\n".join(f"- {name}: {value}" for name, value in _traits(known, quote="`").items()))
    listed = [one for one in known["parameters"] if one["name"] != "label"]
    rows = [f"| `{one['name']}` | {_cell(_typed(one, quote='`'))} | {_cell(_escaped(_said(one)))} |" for one in listed]
    if rows:
        paragraphs.append("\n".join(["| parameter | type | what it does |", "|---|---|---|", *rows]))
    shown = _example(known) if known["kind"] == "generator" else known["example"]
    paragraphs.append(f"```yaml\n{shown}\n```")
    return "\n\n".join(paragraphs) + "\n"


def _escaped(text: str) -> str:
    """Return text for Markdown: `<` and `*` are escaped outside of code."""
    parts = text.split("`")  # every second part is code
    parts[::2] = [part.replace("<", "\\<").replace("*", "\\*") for part in parts[::2]]
    return "`".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _typed(one: dict[str, Any], quote: str = "") -> str:
    if one["required"]:
        return f"{one['type']}, required"
    return f"{one['type']}, default {quote}{json.dumps(one['default'], ensure_ascii=False)}{quote}"


def _said(one: dict[str, Any]) -> str:
    return described(Doc(one["text"], one["unit"], one["default_from"]))


def _traits(known: dict[str, Any], quote: str = "") -> dict[str, str]:
    """Return the lines about what a step, source or generator does, by their titles."""
    if known["kind"] == "source":
        return {"gives": known["gives"]}
    listed = [name for name in ("reads", "writes", "changes") if name in known]
    columns = {name: ", ".join(f"{quote}{one}{quote}" for one in known[name]) for name in listed}
    traits: dict[str, str] = {"how": "; ".join(known["how"])} | columns
    return {name: text for name, text in traits.items() if text}


def _example(known: dict[str, Any]) -> str:
    if known["kind"] == "source":
        return known["example"]
    title = "steps" if known["kind"] == "step" else "generator"
    return f"{title}:\n" + textwrap.indent(known["example"], "  ")


def _traits_of(name: str, cls: Described) -> dict[str, Any]:
    if issubclass(cls, Generator):
        return {"how": [NEEDS[need] for need in cls.needs]}
    return _of_source(cls) if issubclass(cls, Source) else _of_step(name, cls)


def _of_source(cls: type[Source]) -> dict[str, Any]:
    if isinstance(inspect.getattr_static(cls, "gives"), property):
        return {"gives": "rows whose kind depends on the parameters"}
    return {"gives": cls.gives}


def _of_step(name: str, cls: type[Step]) -> dict[str, Any]:
    example = _with_defaults(name, cls)
    how = [
        *(["measures columns, which later runs use again"] if cls.writes else []),
        *(["decides about all rows at once"] if cls.sees_all else []),
        *(["asks a generator"] if issubclass(cls, AskingStep) else []),
        *(NEEDS[need] for need in (example.needed() if example and not issubclass(cls, AskingStep) else cls.needs)),
        *(["reports never show the rejected rows"] if cls.is_private else []),
    ]
    return {
        "how": how,
        "reads": list(example.columns_read() if example else cls.reads),
        "writes": [
            *(example.column(name) if example else name for name in cls.writes),
            *(example.columns_decided() if example else ()),
        ],
        "changes": list(example.columns_changed() if example else cls.changes),
    }


def _with_defaults(name: str, cls: type[Step]) -> Step | None:
    """Return the step with its defaults, or as in its example if a parameter is required. None: there is no example."""
    if not any(one.is_required for one in parameters(cls)):
        return catalog.build(cls, {}, "defaults")
    return catalog.build(cls, settings(name, cls), "example") if cls.example else None


def _paragraphs(docstring: str) -> list[str]:
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", docstring) if part.strip()]


def _table(rows: Sequence[tuple[str, ...]], width: int) -> list[str]:
    """Return rows of a name and texts as lines: the name in one column, the wrapped texts below each other in another."""
    column = max((len(name) for name, *_ in rows), default=0)
    lines = []
    for name, *texts in rows:
        wrapped = [line for text in texts for line in textwrap.wrap(text, width - column - 4, break_on_hyphens=False)]
        for number, line in enumerate(wrapped):
            lines.append(f"  {name if number == 0 else '':<{column}}  {line}")
    return lines


if __name__ == "__main__":
    print(page(), end="")
