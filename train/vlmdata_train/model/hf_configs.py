"""Make Hugging Face configurations from a recipe, for models that start from random weights, or read published ones."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers.utils import cached_file

from vlmdata_train.model.reading import Damaged, read_published
from vlmdata_train.model.special_ids import id_fields


def config_of(values: dict[str, Any]) -> PreTrainedConfig:
    """Return the configuration with these fields.

    Raises ValueError for a field that seems misspelt, an unknown `model_type`, or a value that transformers refuses.
    transformers accepts a misspelt field, and the field that was meant keeps its default, which has the size of a published
    model. An unknown field counts as misspelt only if it resembles a known field, because transformers also accepts older names
    of fields, which it does not list.
    """
    kind = values["model_type"]
    if kind not in CONFIG_MAPPING:
        raise ValueError(_unknown(kind))
    try:
        # without the class's default ids, because transformers warns about ids outside its default vocabulary
        plain = AutoConfig.for_model(kind, **{name: None for name, may_be_none in id_fields(kind).items() if may_be_none})
        check_fields(values, plain)
        return AutoConfig.for_model(**values)
    except StrictDataclassError as error:
        raise ValueError(str(error)) from None


def config_of_class(cls: Any, values: dict[str, Any]) -> Any:
    """Return the configuration of a class with these fields. Raises ValueError for a misspelt field or a wrong value."""
    check_fields(values, cls())
    try:
        return cls(**values)
    except StrictDataclassError as error:
        raise ValueError(_reason(error)) from None


def check_fields(values: dict[str, Any], plain: PreTrainedConfig) -> None:
    """Raise ValueError for a field that seems misspelt. `plain` is a configuration of the class that gets these fields."""
    known = {*plain.to_dict(), *plain.attribute_map}
    for name in values:
        near = difflib.get_close_matches(name, known - set(values), n=1, cutoff=0.8)
        if name not in known and near:
            raise ValueError(f"a {plain.model_type} configuration has no field '{name}'. Did you mean '{near[0]}'?")


def published_config(name: str) -> Any:
    """Return the configuration of a published model, a folder or a hub name, without transformers' warnings about it.

    The warnings are about ids of tokens and old keys, which its user cannot change. Code in the folder is never run. Raises
    ValueError, which names the file, for an unknown `model_type` and for a value that transformers refuses.
    """
    try:
        return read_published(AutoConfig.from_pretrained, name)
    except Damaged as damaged:
        path = cached_file(name, "config.json")
        try:
            facts = json.loads(Path(str(path)).read_text())
        except ValueError as wrong:
            raise ValueError(f"{path} is not JSON: {wrong}") from None
        raise ValueError(f"{path}: {next(_unknown_types(facts), None) or _reason(damaged.__cause__) or damaged}") from None


def _unknown_types(facts: Any) -> Iterator[str]:
    """Yield what is wrong with each `model_type` of a configuration and of its halves that transformers does not have."""
    if not isinstance(facts, dict):
        yield "it must hold a JSON object"
    elif not _is_known(kind := facts.get("model_type")):
        yield "it has no model_type, so it is no configuration of transformers" if kind is None else _unknown(kind)
    else:
        for half, inner in facts.items():
            kind = inner.get("model_type") if isinstance(inner, dict) else None
            if kind is not None and not _is_known(kind):
                yield f"{half}: {_unknown(kind)}"


def _is_known(kind: Any) -> bool:
    return isinstance(kind, str) and kind in CONFIG_MAPPING


def _reason(error: BaseException | None) -> str:
    """Return what a configuration class says about a value, on one line, or "" for an error that it did not raise."""
    if not isinstance(error, StrictDataclassError):
        return ""
    return " ".join(str(error.__cause__ or error).partition(". Errors:")[0].split())  # the cause names the field and the type


def _unknown(kind: Any) -> str:
    near = difflib.get_close_matches(str(kind), list(CONFIG_MAPPING), n=1)
    return f"transformers has no model_type '{kind}'" + (f". Did you mean '{near[0]}'?" if near else "")
