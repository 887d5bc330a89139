"""Save a model that no class of transformers computes: weights as safetensors, recipe, tokenizers and a model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlmdata_train.convert.checkpoint import write_weights
from vlmdata_train.model.model import VisionLanguageModel

CARD = """---
tags: [vlmdata, image-text-to-text]
---

# A vision-language model of vlmdata

No class of transformers computes this model, so transformers and vLLM cannot load it. {reason}

The folder has the weights (`model-*.safetensors`), the parts of the model (`recipe.json`) and its tokenizer (`tokenizer/`).
vlmdata loads it by its folder:

```
vlmdata train chat {folder} photo.jpg
vlmdata train instruct --set data=CHATS --set start={folder} --set model=null
```

| part | name | weights |
|---|---|---|
{parts}
"""


def save_weights(model: VisionLanguageModel, recipe: dict[str, Any], folder: Path, reason: str) -> None:
    """Write a model without LoRA updates as a folder that `restore` loads.

    `recipe` is the run's recipe as plain values, and `reason` says why transformers has no class for the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder, model)
    for name, tokenizer in model.tokenizers.items():
        tokenizer.save_pretrained(folder / name)
    (folder / "recipe.json").write_text(json.dumps({**recipe, "parts": {}}, indent=1))  # without the modules of LoRA
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in model.parts().items()}
    rows = [f"| {kind} | `{_name(recipe['model'][kind])}` | {count:,} |" for kind, count in counts.items()]
    (folder / "README.md").write_text(CARD.format(reason=reason, folder=folder.name, parts="\n".join(rows)))


def _name(entry: Any) -> str:
    """Return the name of a part from its entry in a recipe."""
    return entry if isinstance(entry, str) else str(next(iter(entry)))
