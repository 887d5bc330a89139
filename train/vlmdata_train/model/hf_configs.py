"""Configurations of Hugging Face models that a recipe writes out, for models from scratch."""

from __future__ import annotations

import difflib
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from vlmdata_train.model.special_ids import id_fields


def config_of(values: dict[str, Any]) -> PreTrainedConfig:
    """Make a configuration; ValueError for what it refuses, and for a misspelt field.

    transformers takes fields that a model does not know and leaves the real one at its default, which is the size of a
    published model. Older names of fields are among those that it does not list, so only what looks like one is refused.
    """
    kind = values["model_type"]
    if kind not in CONFIG_MAPPING:
        near = difflib.get_close_matches(kind, list(CONFIG_MAPPING), n=1)
        raise ValueError(f"transformers has no model_type '{kind}'." + (f" Did you mean '{near[0]}'?" if near else ""))
    try:
        # without the class's own ids: it warns of those beyond its default vocabulary
        plain = AutoConfig.for_model(kind, **{name: None for name, may_be_none in id_fields(kind).items() if may_be_none})
        known = {*plain.to_dict(), *plain.attribute_map}
        for name in values:
            near = difflib.get_close_matches(name, known - set(values), n=1, cutoff=0.8)
            if name not in known and near:
                raise ValueError(f"a {kind} has no '{name}'. Did you mean '{near[0]}'?")
        return AutoConfig.for_model(**values)
    except StrictDataclassError as error:
        raise ValueError(str(error)) from None
