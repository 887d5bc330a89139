"""Make Hugging Face configurations from a recipe, for models that start from random weights."""

from __future__ import annotations

import difflib
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

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
        near = difflib.get_close_matches(kind, list(CONFIG_MAPPING), n=1)
        raise ValueError(f"transformers has no model_type '{kind}'." + (f" Did you mean '{near[0]}'?" if near else ""))
    try:
        # without the class's default ids, because transformers warns about ids outside its default vocabulary
        plain = AutoConfig.for_model(kind, **{name: None for name, may_be_none in id_fields(kind).items() if may_be_none})
        known = {*plain.to_dict(), *plain.attribute_map}
        for name in values:
            near = difflib.get_close_matches(name, known - set(values), n=1, cutoff=0.8)
            if name not in known and near:
                raise ValueError(f"a {kind} configuration has no field '{name}'. Did you mean '{near[0]}'?")
        return AutoConfig.for_model(**values)
    except StrictDataclassError as error:
        raise ValueError(str(error)) from None
