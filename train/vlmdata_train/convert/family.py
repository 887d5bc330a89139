"""A family of published models: how its configuration, its weights and its processor are written and read.

Each file in `families/` holds one subclass of `Family`. The weights of a published file first get the names that transformers
has in memory. The table `names` of a family maps these names to ours. The table `parts` says which parts the format holds.
"""

from __future__ import annotations

import copy
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from vlmdata import catalog
from vlmdata_train import convert
from vlmdata_train.convert.in_memory import weights_in_memory
from vlmdata_train.convert.published import Published
from vlmdata_train.model.box_form import box_form
from vlmdata_train.model.head import Head
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.parts import find_part


class Family:
    """One family of models in transformers."""

    title: ClassVar[str]  # its name in messages
    forms: ClassVar[tuple[str, ...]]  # `model_type` of its configurations
    # (start of a name in transformers' memory, start of our name); each `*` is the number of a layer, the same in both names
    names: ClassVar[tuple[tuple[str, str], ...]]
    # kind of part: the only part that the format holds, by its name in a recipe; for `language` the `model_type`. The format
    # holds any part of a kind that is left out, unless `misfits` refuses it.
    parts: ClassVar[Mapping[str, str]] = {}
    unneeded: ClassVar[tuple[str, ...]] = ()  # starts of our names of weights that no feature needs, and the format lacks
    caps: ClassVar[bool] = False  # whether transformers caps the logits if the language model's configuration says so
    prefix: ClassVar[bool] = False  # whether the tokens before the first answer attend to each other in both directions
    tower: ClassVar[type | None] = None  # the encoder's module, if `parts` has an encoder
    grounding: ClassVar[str | None] = None  # the form in which the published models write boxes, if it is known
    is_written: ClassVar[bool] = True  # whether models are exported in this format; False: it is only read

    def takes(self, facts: Mapping[str, Any]) -> bool:
        """Return whether a published model with this `config.json` belongs to the family."""
        return facts.get("model_type") in self.forms

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts of a published model. Raises ValueError that names a part which does not fit."""
        raise NotImplementedError

    def grounding_of(self, start: Published) -> str | None:
        """Return the form in which a published model writes boxes, or None if its tokenizer lacks tokens of the form."""
        form = box_form(self.grounding)
        known = start.tokenizer.get_vocab() if form is not None and form.tokens else {}
        return self.grounding if form is not None and all(name in known for name in form.tokens) else None

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield (part, what the family supports) for each part of a model that the family's format cannot hold.

        This base class compares the parts with the table `parts`, and requires a plain output layer. If the table names no
        language model, it requires one of AutoModelForCausalLM. A family adds checks of the parts' parameters.
        """
        own = {"positions": model.positions, **vars(model.plan)}
        for kind, name in self.parts.items():
            if kind == "encoder":
                fits = type(model.encoder) is self.tower
            elif kind == "language":
                fits = model.language.config.model_type == name
            else:
                fits = type(own[kind]) is find_part(kind, name)
            if not fits:
                yield kind, name
        if "language" not in self.parts and type(model.language.config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            yield "language", "a language model of AutoModelForCausalLM"
        if getattr(model.plan.fusion, "prefix", False) and not self.prefix:
            yield "fusion", "tokens, without prefix"
        if "language.model." in dict(self.names).values() and model.language.base_model_prefix != "model":
            yield "language", "a model with the weights `model.*` and `lm_head`"
        if not self.holds_head(model):
            yield "language", f"an output layer without bias{' and scale' if self.caps else ', scale and cap'}"

    def holds_head(self, model: VisionLanguageModel) -> bool:
        """Return whether the format computes logits as a model does."""
        head = replace(model.head, cap=None) if self.caps else model.head
        return head == Head() and model.lm_head.bias is None

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration of transformers for a model without misfits."""
        raise NotImplementedError

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor of transformers, with image processor, tokenizer and chat template."""
        raise NotImplementedError

    def text_config(self, model: VisionLanguageModel) -> Any:
        """Return a copy of the language model's configuration. transformers changes configurations of models that it builds."""
        text = copy.deepcopy(model.language.config)
        text.architectures = [type(model.language).__name__]  # vLLM reads the class of the language model here
        return text

    def table(self, config: Any) -> tuple[tuple[str, str], ...]:
        """Return the table of names for a model with this configuration of transformers."""
        return self.names

    def our_name(self, name: str, config: Any = None) -> str | None:
        """Return our name of a weight of transformers, or None if no part of ours has such a weight.

        `config` is the configuration of transformers. Only families whose `table` reads it need it.
        """
        return _renamed(name, self.table(config))

    def read(self, start: Published) -> Iterator[tuple[str, str | None, Tensor]]:
        """Yield each weight of a published model: its name in the files, our name or None (see `our_name`), and the tensor.

        A tensor of the files that holds several of our weights is yielded in several parts. A family with files in another
        format than that of transformers replaces this method.
        """
        for theirs, in_memory, tensor in weights_in_memory(start):
            yield theirs, self.our_name(in_memory, start.config), tensor

    def our_tensor(self, name: str, tensor: Tensor, rows: int) -> Tensor:
        """Return the tensor for our weight `name`, which has `rows` rows, from the tensor of transformers."""
        return tensor

    def their_tensor(self, name: str, tensor: Tensor, model: VisionLanguageModel) -> Tensor:
        """Return the tensor for transformers from our weight `name`."""
        return tensor

    def divided(self, name: str, tensor: Tensor, model: VisionLanguageModel) -> dict[str, Tensor]:
        """Return the weights into which transformers divides one of its weights, by their names."""
        return {name: tensor}

    def their_names(self, model: VisionLanguageModel) -> Callable[[str], str | None]:
        """Return a function from our name of a weight to the name in transformers, or None if the table does not have it."""
        back = tuple((ours, theirs) for theirs, ours in self.table(self.config(model)))
        return lambda name: _renamed(name, back)

    def our_weights(self, model: VisionLanguageModel) -> dict[str, Tensor]:
        """Return our weights that `names` has to map."""
        return {name: value for name, value in model.state_dict().items() if not name.startswith(self.unneeded)}

    def their_weights(self, model: VisionLanguageModel) -> dict[str, Tensor]:
        """Return the weights by their names in transformers' memory."""
        weights: dict[str, Tensor] = {}
        their_name = self.their_names(model)
        for name, value in self.our_weights(model).items():
            theirs = their_name(name)
            assert theirs is not None, name
            weights |= self.divided(theirs, self.their_tensor(name, value.detach().cpu().contiguous(), model), model)
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

    def save(self, reference: Any, folder: Path, *, max_shard_size: str) -> None:
        """Write the weights, in files of at most `max_shard_size`, and the configuration of the model of transformers."""
        reference.save_pretrained(folder, max_shard_size=max_shard_size)


def has_room(model: VisionLanguageModel, *tokens: str) -> bool:
    """Return whether a model has ids for these tokens, which a processor of transformers adds to the tokenizer."""
    known, rows = model.tokenizer.get_vocab(), model.language.get_input_embeddings().weight.shape[0]
    return len(model.tokenizer) + sum(token not in known for token in tokens) <= rows


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
    kind = "is a model without a model_type in its config.json" if found is None else f"is a {found} model"
    raise ValueError(f"{start.name} {kind}, but only models of these types can be loaded: {', '.join(known)}")


def _renamed(name: str, table: tuple[tuple[str, str], ...]) -> str | None:
    """Return a name with its start replaced by the first entry that fits, or None if none fits."""
    for old, new in table:
        if found := re.match(re.escape(old).replace(r"\*", r"(\d+)"), name):
            numbers = iter(found.groups())
            return re.sub(r"\*", lambda _: next(numbers), new) + name[found.end() :]  # noqa: B023 (used at once)
    return None
