"""The recipe: one YAML file that names a source, a list of steps and the layout of the shards."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml

from vlmdata import catalog
from vlmdata.arguments import check_overrides, wrong
from vlmdata.errors import Mistakes
from vlmdata.home_folder import at_home
from vlmdata.parameters import Doc, parameters
from vlmdata.read_yaml import StrictLoader, read_yaml
from vlmdata.redact import redacted_tree
from vlmdata.shipped import build_recipes
from vlmdata.step import RecipeError, Source, Step, file_name
from vlmdata.untrusted import shown
from vlmdata.wrong_columns import wrong_columns

T = TypeVar("T", bound=Step)
DATA = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".tar", ".zip", ".gz", ".arrow", ".jpg", ".jpeg", ".png")
PARTS = ("source", "steps", "shards", "part_rows")  # the keys of a recipe


@dataclass(frozen=True, kw_only=True)
class Shards:
    """How samples are stored in tars: in the layout `captions` of img2dataset and open_clip, or as interleaved documents."""

    samples: Annotated[int, Doc("Samples per tar.", unit="samples", source="img2dataset")] = 10_000
    layout: Annotated[
        Literal["captions", "documents"],
        Doc(
            "Form of the samples. captions: one image and one text, as img2dataset and open_clip have them. "
            "documents: interleaved documents and conversations."
        ),
    ] = "captions"

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples must be 1 or more, not {self.samples}")


@dataclass(frozen=True)
class Recipe:
    """A parsed recipe: the choices that define a dataset."""

    source: Annotated[Source, Doc("Where the rows begin: `type` and the parameters of a source.")]
    steps: Annotated[tuple[Step, ...], Doc("What happens to the rows, in this order: names of steps, with their parameters.")]
    shards: Annotated[Shards, Doc("How samples are stored in tars.")]
    part_rows: Annotated[
        int,
        Doc(
            "Size of a partition of a list. After a crash, partitions that are not committed are repeated.",
            unit="rows",
            source="vlmdata's choice",
        ),
    ]

    def first(self, kind: type[T]) -> T | None:
        """Return the first step of the class `kind`, or None if there is none."""
        return next((step for step in self.steps if isinstance(step, kind)), None)

    def describe(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values, including all defaults. It holds no secrets, so it can be published."""
        tree = {
            "source": {"type": _name_of(self.source), **asdict(self.source)},
            "steps": [{_name_of(step): asdict(step)} for step in self.steps],
            "shards": asdict(self.shards),
            "part_rows": self.part_rows,
        }
        return redacted_tree(json.loads(json.dumps(tree)))  # tuples become lists, as in a recipe read from a file

    def is_described_by(self, stored: dict[str, Any]) -> bool:
        """Return whether `stored`, which `describe` gave to a manifest, describes this recipe.

        The description by an earlier version lacks the parameters that were added later. They count as their defaults.
        """
        steps = [
            {name: _with_defaults(values, step) for name, values in one.items()} if isinstance(one, dict) else one
            for one, step in zip(stored["steps"], self.steps, strict=False)
        ]
        source = _with_defaults(stored["source"], self.source)
        is_as_long = len(stored["steps"]) == len(self.steps)
        return is_as_long and {**stored, "source": source, "steps": steps} == self.describe()


def _with_defaults(stored: Any, part: Source | Step) -> Any:
    defaults = {one.name: one.default for one in parameters(type(part)) if not one.is_required}
    return {**defaults, **stored} if isinstance(stored, dict) else stored


def load(recipe: str | Path | Recipe, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read and check a recipe, which is a file or the name of a shipped recipe. Raises RecipeError for a mistake.

    `overrides` maps dotted paths to new values. A path names a value of the source or the layout (`source.path`,
    `shards.samples`), or a step and its parameter (`image_size.min_side`). The name or label of a step with the value False or
    None leaves the step out (`{"clip_score": False}`).
    A Recipe is returned unchanged and takes no overrides.
    """
    found = as_read(recipe, overrides)
    return found if isinstance(found, Recipe) else parse(*found)


def as_read(recipe: str | Path | Recipe, overrides: dict[str, Any] | None = None) -> Recipe | tuple[dict[str, Any], str]:
    """Return a Recipe unchanged, and any other recipe as plain values with its path. Arguments are those of `load`."""
    if isinstance(recipe, Recipe):
        if overrides:
            raise RecipeError("overrides apply only to recipe files. Change a Recipe with dataclasses.replace")
        return recipe
    if not isinstance(recipe, str | Path) or not str(recipe):
        raise wrong("recipe", "a file, the name of a shipped recipe, or a Recipe", recipe)
    check_overrides(overrides)
    return read(recipe, overrides)


def read(recipe: str | Path, overrides: dict[str, Any] | None = None) -> tuple[dict[str, Any], str]:
    """Return a recipe as plain values, and its path. No class is imported. Raises RecipeError if the file is not a recipe."""
    path = locate(recipe)
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: a recipe must be a mapping with the keys source, steps and shards")
    apply_overrides(tree, overrides, str(path))
    return tree, str(path)


def modules(tree: dict[str, Any]) -> list[str]:
    """Return the user's modules that a recipe names, sorted. Loading the recipe imports them, which runs their code."""
    source, steps = tree.get("source"), tree.get("steps")
    names = [source.get("type")] if isinstance(source, dict) else []
    for entry in steps if isinstance(steps, list) else []:
        names += list(entry) if isinstance(entry, dict) else [entry]
        for values in entry.values() if isinstance(entry, dict) else ():
            generator = values.get("generator") if isinstance(values, dict) else None
            names += list(generator) if isinstance(generator, dict) else [generator]
    return sorted({name.rpartition(".")[0] for name in names if isinstance(name, str) and "." in name})


def read_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Parse `a.b=c` pairs from a command line, with each value as YAML. Raises RecipeError for a malformed pair.

    Some values differ from YAML: `*.tar` is a string instead of an alias, `1e-3` is a number instead of a string, and `12:30`
    is a string instead of 750.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        place, equals, text = pair.partition("=")
        if not equals or not place:
            raise RecipeError(f"--set {pair}: write a setting as name=value, as in --set source.path=urls.parquet")
        if not text.strip() and "." not in place:  # an empty variable of the shell must not leave out a step
            raise RecipeError(f"--set {pair}: the value is missing, as in --set part_rows=500 or --set clip_score=off")
        try:
            values[place] = text if text.startswith("*") else yaml.load(text, StrictLoader)
        except (yaml.YAMLError, RecursionError):
            raise RecipeError(
                f"--set {pair[:200]}: the value is not YAML. Put quotes around a string with ':' or '{{'"
            ) from None
        if isinstance(values[place], str) and text[-1:].isdigit():  # `1e-3` becomes a number, but `nan` stays a string
            with contextlib.suppress(ValueError):
                values[place] = float(text)
    return values


def locate(recipe: str | Path) -> Path:
    """Return the path of a recipe, which is a file or the name of a shipped recipe, such as `captions`."""
    if (file := Path(at_home(recipe))).is_file():
        if file.suffix.lower() in DATA:
            fix = f"Name a recipe, and set its source: --set source.path={recipe}. `vlmdata new` lists the recipes"
            raise RecipeError(f"{recipe} is data, not a recipe. {fix}")
        return file
    shipped = build_recipes()
    for path in shipped:
        if path.stem == str(recipe) or Path(*path.parts[-3:]) == Path(recipe):
            return path
    if Path(recipe).suffix in (".yaml", ".yml"):
        raise RecipeError(f"there is no file {recipe}. `vlmdata new NAME {recipe}` writes one; `vlmdata new` lists the names")
    raise RecipeError(f"there is no recipe '{recipe}'.{catalog.suggest(str(recipe), [p.stem for p in shipped])}")


def parse(tree: dict[str, Any], where: str = "recipe") -> Recipe:
    """Build a recipe from plain values. Raises RecipeError for a mistake, or Mistakes for several, each with its place."""
    parsed = parse_parts(tree, where)
    if len(parsed.mistakes) > 1:
        raise Mistakes(parsed.mistakes)
    if parsed.mistakes:
        raise RecipeError(parsed.mistakes[0])
    assert parsed.source is not None
    return Recipe(parsed.source, parsed.steps, parsed.shards, parsed.part_rows)


@dataclass(frozen=True)
class Parsed:
    """The parts of a recipe that could be built, and a line for each mistake in the others."""

    source: Source | None
    steps: tuple[Step, ...]
    shards: Shards
    part_rows: int
    mistakes: list[str]


def parse_parts(tree: dict[str, Any], where: str = "recipe") -> Parsed:
    """Build each part of a recipe from plain values, and collect the mistakes. A part with a mistake is left out."""
    allowed = [f.name for f in fields(Recipe)]
    mistakes = catalog.unknown(tree, allowed, f"{where}: a recipe has no key")

    def built(make: Callable[[], Any]) -> Any:
        try:
            return make()
        except RecipeError as error:
            mistakes.extend(error.lines if isinstance(error, Mistakes) else [str(error)])
            return None

    source = built(lambda: _named(tree.get("source"), "sources", f"{where}, source"))
    entries = tree.get("steps") or []
    if not isinstance(entries, list):
        mistakes.append(f"{where}, steps: write the steps as a list, not {shown(entries)}")
        entries = []
    steps: list[Step] = []
    for number, entry in enumerate(entries, 1):
        if (step := built(lambda: _named(entry, "steps", f"{where}, step {number}"))) is not None:  # noqa: B023
            steps.append(step)
    shards = built(lambda: catalog.build(Shards, tree.get("shards") or {}, f"{where}, shards"))
    part_rows = tree.get("part_rows", 1000)
    if not isinstance(part_rows, int) or isinstance(part_rows, bool) or part_rows < 1:
        mistakes.append(f"{where}: part_rows must be an integer of at least 1, not {shown(part_rows)}")
        part_rows = 1000
    if len(steps) == len(entries):  # a step that is left out may measure what others read
        mistakes += wrong_columns(tuple(steps), where)
    return Parsed(source, tuple(steps), shards or Shards(), part_rows, mistakes)


def fingerprint(*values: Any) -> str:
    """Return a hash of JSON values: 16 hex digits, the same on every machine."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _named(entry: Any, kind: str, where: str) -> Any:
    """Build a source or a step from its entry in a recipe.

    The entry of a source looks like `{type: url_list, path: ...}`. The entry of a step looks like `image_size` or, with
    parameters, like `{image_size: {min_side: 200}}`.
    """
    if kind == "sources":
        if isinstance(entry, list):
            raise RecipeError(f"{where}: a source is a mapping, not a list. Write `type:` and its parameters without dashes")
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            raise RecipeError(f"{where}: set `type` to one of {', '.join(catalog.names(kind))}")
        name, parameters = entry["type"], {k: v for k, v in entry.items() if k != "type"}
    elif isinstance(entry, str) and " - " in entry:  # YAML joins a line that is indented further with the line before
        raise RecipeError(f"{where}: '{entry}' is read as one step. Begin the dash of each step in the same column")
    elif isinstance(entry, str):
        name, parameters = entry, {}
    elif isinstance(entry, dict) and len(entry) == 1:
        name, parameters = next(iter(entry.items()))
        parameters = parameters or {}
    elif isinstance(entry, dict) and next(iter(entry.values()), 0) is None:  # parameters in the column of the step's name
        name, *others = entry
        raise RecipeError(f"{where}: indent {', '.join(map(str, others))} further than {name}, whose parameters they are")
    else:
        raise RecipeError(f"{where}: write a step as its name, or as `name: {{parameter: value}}`")
    try:
        cls = catalog.find(kind, name)
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None
    if not isinstance(parameters, dict):
        raise RecipeError(f"{where}: the parameters of {name} must be a mapping, not {shown(parameters)}")
    return catalog.build(cls, parameters, where)


def apply_overrides(tree: dict[str, Any], overrides: dict[str, Any] | None, where: str) -> None:
    """Replace values of a recipe's tree, in place. `overrides` is as in `load`, and `where` names the recipe in errors."""
    overrides = overrides or {}
    for place, value in overrides.items():
        head = place.partition(".")[0]
        if head != place and head not in PARTS and _is_off(overrides.get(head, True)):
            raise RecipeError(f"--set {place}: --set {head}=off leaves this step out. Remove one of the two")
        _override(tree, place, value, where)


def _is_off(value: Any) -> bool:
    return value is None or value is False


def _override(tree: dict[str, Any], place: str, value: Any, path: str) -> None:
    head, *rest = place.split(".")
    if not rest:
        if head not in PARTS:
            _leave_out(tree, head, value, path)
        elif _is_off(value):
            raise RecipeError(f"--set {head}=off: only a step can be left out, such as --set image_size=off")
        else:
            tree[head] = value
        return
    if head not in PARTS:
        number, name, parameters = _step_entry(tree, head, path)
        target: Any = parameters or {}
        if not isinstance(target, dict):
            return  # `parse_parts` reports that the file has no mapping here
        tree["steps"][number] = {name: target}
    else:
        target = tree.setdefault(head, {})
    for name in rest[:-1]:
        target = target.setdefault(name, {}) if isinstance(target, dict) else None
    if not isinstance(target, dict):
        raise RecipeError(f"--set {place}: the part before '=' must name a parameter, as in --set source.path=urls.parquet")
    target[rest[-1]] = value


def _leave_out(tree: dict[str, Any], name: str, value: Any, path: str) -> None:
    """Take the step called `name` out of the tree. Raises RecipeError if `value` does not mean `off`."""
    number, _, _ = _step_entry(tree, name, path)
    if not _is_off(value):
        raise RecipeError(
            f"--set {name}: the part before '=' must name a parameter, as in --set source.path=urls.parquet. "
            f"To leave the step out, write --set {name}=off, or in Python {{'{name}': False}}"
        )
    if len(same := [n for n, label in _labels(tree).items() if label == name]) > 1:
        places = " and ".join(str(n + 1) for n in same)
        raise RecipeError(f"--set {name}=off: the steps {places} of {path} are called '{name}'. Give one of them a `label`")
    del tree["steps"][number]


def _step_entry(tree: dict[str, Any], name: str, path: str) -> tuple[int, str, Any]:
    """Return the first step called `name`: its position in the list, its name in the recipe, and its parameters as written."""
    labels = _labels(tree)
    for number, label in labels.items():
        if label == name:
            return number, *_name_and_parameters(tree["steps"][number])
    if labelled := [label for number, label in labels.items() if _bare_name(tree["steps"][number]) == name]:
        raise RecipeError(f"--set {name}: {path} calls this step by its label. Name it so: {' or '.join(labelled)}")
    known = ["source", "shards", *labels.values()]
    raise RecipeError(f"--set {name}: {path} has no step '{name}'.{catalog.suggest(name, known)}")


def _labels(tree: dict[str, Any]) -> dict[int, str]:
    """Return the label or the name of each step, by its position. Entries that are no steps are left out."""
    steps = tree.get("steps")
    found = {}
    for number, entry in enumerate(steps if isinstance(steps, list) else []):
        if isinstance(entry, str) or (isinstance(entry, dict) and len(entry) == 1 and isinstance(next(iter(entry)), str)):
            parameters = _name_and_parameters(entry)[1]
            label = parameters.get("label") if isinstance(parameters, dict) else None
            found[number] = str(label or _bare_name(entry))
    return found


def _bare_name(entry: Any) -> str:
    name = _name_and_parameters(entry)[0]
    return name.split(".")[-2] if "." in name else name


def _name_and_parameters(entry: Any) -> tuple[str, Any]:
    return (entry, None) if isinstance(entry, str) else next(iter(entry.items()))


def _name_of(thing: Source | Step) -> str:
    cls = type(thing)
    return file_name(thing) if cls.__module__.startswith("vlmdata.") else f"{cls.__module__}.{cls.__qualname__}"
