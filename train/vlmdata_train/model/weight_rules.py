"""Find the weights of a part that the patterns of its rules select, and what the rules set for each weight.

The names of weights are those in a checkpoint, without the name of the part and without LoRA, for example
`model.layers.0.mlp.up_proj.weight`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import nn

from vlmdata.sizes import counted, noun
from vlmdata_train.model.model_recipe import Rule, patterns_of

WORDS = ("norms", "biases")  # patterns that do not depend on the names of a family's layers


@dataclass
class RuledWeight:
    """A weight of a part, and what the part's rules set for it. A field is None if no rule sets it."""

    weight: nn.Parameter
    is_norm: bool
    names: list[str] = field(default_factory=list)  # a weight that is used in several places has several names
    frozen: bool | None = None
    lr: float | None = None
    lr_rule: Rule | None = None  # the rule that sets `lr`
    weight_decay: float | None = None


def ruled_weights(part: nn.Module, rules: Iterable[Rule]) -> list[RuledWeight]:
    """Return every weight of a part once, with the values that the rules set. A later rule overrides an earlier one.

    The two weights of a LoRA update have the name of the weight that they update.
    """
    weights = _weights(part)
    for rule in rules:
        for one in selected(rule.weights, weights):
            one.frozen = one.frozen if rule.frozen is None else rule.frozen
            if rule.lr is not None:
                one.lr, one.lr_rule = rule.lr, rule
            one.weight_decay = one.weight_decay if rule.weight_decay is None else rule.weight_decay
    return weights


def selected(patterns: str | list[str], weights: Iterable[RuledWeight]) -> list[RuledWeight]:
    """Return the weights that at least one of the patterns selects."""
    return [one for one in weights if any(_selects(pattern, one) for pattern in patterns_of(patterns))]


def check_selection(part: nn.Module, patterns: str | list[str]) -> None:
    """Raise ValueError for a pattern that selects no weight. The error suggests a pattern that does."""
    weights = _weights(part)
    for pattern in patterns_of(patterns):
        if selected(pattern, weights):
            continue
        buffers = [plain_name(part, name) for name, _ in part.named_buffers()]
        unused = [name for name in buffers if matches(pattern, name)]
        if unused:
            buffers_are = f"{counted(len(unused), 'buffer')}, which {noun(len(unused), 'is', 'are')}"
            raise ValueError(
                f"'{pattern}' matches only {buffers_are} never trained; the first is {unused[0]}. A buffer"
                " is computed, or is a weight that the model's chosen features do not use."
            )
        names = [name for one in weights for name in one.names]
        words = [word for word in WORDS if selected(word, weights)]
        raise ValueError(f"no weight matches '{pattern}'.{suggestion(pattern, names, words)}")


def matches(pattern: str, name: str) -> bool:
    """Return whether a pattern matches a dotted name, or the name of a module that contains it.

    In a pattern, `*` stands for any characters, also for dots, `?` for one character, and `[0-3]` for one of several.
    """
    return any(fnmatchcase(place, pattern) for place in _places(name))


def plain_name(part: nn.Module, name: str) -> str:
    """Return the name of a weight or a module of a part as a recipe writes it, without the levels that LoRA adds."""
    name = re.sub(r"\.base_layer(?=\.|$)|\.lora_[AB]\.[^.]+(?=\.)", "", name)
    if type(part) is nn.ModuleList:  # `VisionLanguageModel.parts` puts the abstractor and the arrangement of tiles in one list
        return name[2:] if name.startswith("0.") else f"arrangement.{name[2:]}"
    return name


def suggestion(pattern: str, names: list[str], words: list[str]) -> str:
    """Return the end of an error about a pattern that matches none of `names`: the nearest pattern that does, or examples.

    `words` are further patterns that may be meant.
    """
    if word := difflib.get_close_matches(pattern, words, n=1, cutoff=0.8):
        return f" Did you mean '{word[0]}'?"
    for wider in (f"*.{pattern}", f"*{pattern}*"):
        if any(matches(wider, name) for name in names):
            return f" Did you mean '{wider}'?"
    places = dict.fromkeys(place for name in names for place in _places(name))
    alike = dict.fromkeys(re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", place) for place in places)  # blocks differ in their number
    ends = dict.fromkeys(f"*.{place.rpartition('.')[2]}" for place in places if "." in place)
    close = difflib.get_close_matches(pattern, [*ends, *alike], n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else f" Some names are {', '.join(names[:3])}."


def _places(name: str) -> list[str]:
    """Return a dotted name and the names of the modules that contain it."""
    levels = name.split(".")
    return [".".join(levels[:depth]) for depth in range(1, len(levels) + 1)]


def _weights(part: nn.Module) -> list[RuledWeight]:
    """Return every weight of a part once, with all its names, in the order of `named_parameters`."""
    found: dict[int, RuledWeight] = {}
    for place, module in part.named_modules(remove_duplicate=False):  # a shared weight has a name at each place
        # Families name their norms differently (ln_1, norm1, input_layernorm), but the classes of all norms contain "Norm".
        is_norm = "Norm" in type(module).__name__ and not any(True for _ in module.children())
        for leaf, weight in module.named_parameters(recurse=False):
            one = found.setdefault(id(weight), RuledWeight(weight, is_norm))
            one.names.append(plain_name(part, f"{place}.{leaf}" if place else leaf))
    return list(found.values())


def _selects(pattern: str, one: RuledWeight) -> bool:
    """Return whether a pattern, or one of the words `norms` and `biases`, selects a weight."""
    if pattern == "norms":
        return one.is_norm
    if pattern == "biases":
        return any(re.search(r"(^|\.|_)bias$", name) for name in one.names)
    return any(matches(pattern, name) for name in one.names)
