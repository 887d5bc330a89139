"""A family of published models: how its configuration, its weights and its processor are written and read.

Each file in `families/` holds one subclass of `Family`. The weights of a published file first get the names that transformers
has in memory. The table `names` of a family maps these names to ours.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from vlmdata import catalog
from vlmdata_train import convert
from vlmdata_train.convert.published import Published
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe


class Family:
    """One family of models in transformers."""

    title: ClassVar[str]  # its name in messages
    forms: ClassVar[tuple[str, ...]]  # `model_type` of its configurations
    names: ClassVar[tuple[tuple[str, str], ...]]  # (start of a name in transformers' memory, start of our name)

    def takes(self, facts: Mapping[str, Any]) -> bool:
        """Return whether a published model with this `config.json` belongs to the family."""
        return facts.get("model_type") in self.forms

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts of a published model. Raises ValueError that names a part which does not fit."""
        raise NotImplementedError

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield (part, what the family supports) for each part of a model that the family's format cannot hold."""
        raise NotImplementedError

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration of transformers for a model without misfits."""
        raise NotImplementedError

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor of transformers, with image processor, tokenizer and chat template."""
        raise NotImplementedError

    def our_name(self, name: str) -> str | None:
        """Return our name of a weight of transformers, or None if no part of ours has such a weight."""
        return _renamed(name, self.names)

    def their_name(self, name: str) -> str | None:
        """Return the name in transformers of one of our weights, or None if the table does not have it."""
        return _renamed(name, tuple((ours, theirs) for theirs, ours in self.names))

    def our_weights(self, model: VisionLanguageModel) -> dict[str, Tensor]:
        """Return our weights that `names` has to map."""
        return model.state_dict()

    def their_weights(self, model: VisionLanguageModel) -> dict[str, Tensor]:
        """Return the weights by their names in transformers' memory."""
        weights = {}
        for name, value in self.our_weights(model).items():
            theirs = self.their_name(name)
            assert theirs is not None, name
            weights[theirs] = value.detach().cpu().contiguous()
        return weights

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers that computes the same as a model without misfits."""
        raise NotImplementedError

    def their_model(self, model: VisionLanguageModel) -> Any:
        """Return the model of transformers with our weights, without a copy of them."""
        with torch.device("meta"):
            reference = self.reference_of(model)(self.config(model))
        reference.load_state_dict(self.their_weights(model), assign=True)
        reference.tie_weights()
        return reference


def all_families() -> list[Family]:
    """Return every family, in the order of the files' names."""
    package = [str(Path(folder) / "families") for folder in convert.__path__]
    names = sorted(module.name for module in pkgutil.iter_modules(package))
    return [
        catalog.only_class(f"{convert.__name__}.families.{name}", lambda cls: issubclass(cls, Family), "Family")()
        for name in names
    ]


def family_of(start: Published) -> Family:
    """Return the family of a published model. Raises ValueError if there is none."""
    for family in all_families():
        if family.takes(start.facts):
            return family
    known = sorted({form for family in all_families() for form in family.forms})
    found = start.facts.get("model_type")
    raise ValueError(f"{start.name} is a {found} model, but only models of these types can be loaded: {', '.join(known)}")


def _renamed(name: str, table: tuple[tuple[str, str], ...]) -> str | None:
    """Return a name with its start replaced by the first entry that fits, or None if none fits."""
    return next((new + name.removeprefix(old) for old, new in table if name.startswith(old)), None)
