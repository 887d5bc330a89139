"""Read a published model from a folder or the hub: its configurations, and its weights one file at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoImageProcessor, AutoVideoProcessor
from transformers.utils import cached_file

from vlmdata.step import RecipeError
from vlmdata_train.convert.torch_file import TorchFile
from vlmdata_train.model.hf_configs import published_config
from vlmdata_train.model.hub import offline_hint, prepare_hub
from vlmdata_train.model.special_ids import drop_foreign_ids
from vlmdata_train.model.tokens import published_tokenizer

HEAD, WORDS = "lm_head.weight", "embed_tokens.weight"  # ends of the names of the output layer and of the embeddings
STEPS = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}  # of image processors
# names of a single file of weights and of the index of several files; the first kind that a model has is read
KINDS = [(whole, f"{whole}.index.json") for whole in ("model.safetensors", "pytorch_model.bin")]
NOT_WEIGHTS = {  # files of folders that hold no whole model, and what these folders hold
    "adapter_config.json": "only LoRA updates. Merge them into their base model first",
    "mm_projector.bin": "only the projector of LLaVA's first stage. Start from the model of the second stage",
}


@dataclass(frozen=True)
class Published:
    """A published model by its folder or its name on the hub."""

    name: str

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The content of `config.json`. Raises RecipeError if there is none."""
        path = self.find("config.json")
        if path is None:
            raise RecipeError(
                f"start: {self.name} is not a checkpoint, and there is no published model with this name or path"
                f"{offline_hint()}"
            )
        try:
            facts = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise RecipeError(f"start: cannot read {path}: {error}") from None
        if not isinstance(facts, dict):
            raise RecipeError(f"start: {path} must hold a JSON object")
        return facts

    @cached_property
    def config(self) -> Any:
        """The configuration of transformers, without special ids outside the vocabulary."""
        config = published_config(self.name)
        drop_foreign_ids(config)
        return config

    @cached_property
    def images(self) -> Any:
        """The image processor of transformers. Raises ValueError if it leaves out or changes one of STEPS."""
        images = AutoImageProcessor.from_pretrained(self.name, trust_remote_code=False)
        for name, value in STEPS.items():
            own = getattr(images, name, None)
            if own is not None and not math.isclose(own, value):
                raise ValueError(
                    f"preprocessing: the image processor of {self.name} has {name}: {own}, but only {value} can be loaded"
                )
        return images

    @cached_property
    def videos(self) -> Any:
        """The video processor of transformers."""
        return AutoVideoProcessor.from_pretrained(self.name)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers."""
        return published_tokenizer(self.name)

    def token(self, number: int) -> str:
        """Return the token with this id. Raises ValueError if the tokenizer has no such token."""
        token = self.tokenizer.convert_ids_to_tokens(number) if number < len(self.tokenizer) else None
        if token is None:
            raise ValueError(f"{self.name}: the configuration names the token {number}, which the tokenizer does not have")
        return str(token)

    @cached_property
    def ties(self) -> bool:
        """Whether the output layer has the weights of the embeddings; see `shares_head`."""
        text = self.config.get_text_config()
        return self.shares_head(
            getattr(self.config, "tie_word_embeddings", False) or getattr(text, "tie_word_embeddings", False)
        )

    def shares_head(self, is_tied: bool) -> bool:
        """Return whether the output layer has the weights of the embeddings. `is_tied` is what the configuration says.

        Some configurations say so by default, although the files have an output layer of its own. transformers uses that
        layer, unless its weights equal the embeddings. Here the first rows of both are compared.
        """
        if not is_tied:
            return False
        places = {name: self._path(file) for name, file in self.places.items() if name.endswith((HEAD, WORDS))}
        head, words = (next((name for name in places if name.endswith(end)), None) for end in (HEAD, WORDS))
        if head is None or words is None:
            return True
        return torch.equal(*(self._first_rows(places[name], name) for name in (head, words)))

    def find(self, file: str) -> Path | None:
        """Return the path of one of the model's files, or None if the model has no such file."""
        prepare_hub(self.name)
        found = cached_file(
            self.name, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )  # fmt: skip
        return Path(found) if found else None

    def files(self) -> list[Path]:
        """Return the files of the weights, in the order of the index. Raises RecipeError if a file is missing."""
        return [self._path(name) for name in dict.fromkeys(self.places.values())]

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each weight's name and tensor. One file is open at a time, and its tensors are read when they are used."""
        for path in self.files():
            with _opened(path) as file:
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    yield name, file.get_tensor(name)

    @cached_property
    def places(self) -> dict[str, str]:
        """The name of the file that holds each weight. Raises RecipeError if there are no weights, or if a file is damaged."""
        for whole, index in KINDS:
            if (path := self.find(index)) is not None:
                return _read_index(path)
            if (path := self.find(whole)) is not None:
                return dict.fromkeys(self._names(path), whole)
        held = next((what for file, what in NOT_WEIGHTS.items() if self.find(file) is not None), None)
        names = " and no ".join(whole for whole, _ in KINDS)
        raise RecipeError(f"start: {self.name} " + (f"holds {held}" if held else f"has no weights: no {names}"))

    def _path(self, file: str) -> Path:
        path = self.find(file)
        if path is None:
            raise RecipeError(f"start: {self.name} has no {file}, which its index names")
        return path

    def _names(self, path: Path) -> list[str]:
        with _opened(path) as file:
            return list(file.keys())

    def _first_rows(self, path: Path, name: str) -> Tensor:
        """Return the first rows of a matrix in a file, without reading the rest."""
        with _opened(path) as file:
            return file.get_slice(name)[:64]


def _read_index(index: Path) -> dict[str, str]:
    """Return the name of the file that holds each weight. Raises RecipeError if it is no index, or names a file elsewhere."""
    try:
        table = {str(name): str(file) for name, file in json.loads(index.read_text())["weight_map"].items()}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise RecipeError(f"start: {index} is not an index of weights: {error}") from None
    for file in table.values():
        if Path(file).name != file:  # a name with folders could read a file outside the model
            raise RecipeError(f"start: {index} names '{file}', which must be a file beside it")
    return table


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file of weights. Raises RecipeError if it is damaged."""
    try:
        stack: Any = TorchFile(path) if path.suffix == ".bin" else safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise RecipeError(f"start: {path} is damaged: {error}") from None
    except ValueError as error:
        raise RecipeError(f"start: {path} {error}") from None
    with stack as file:
        yield file


# entries that every configuration has, and that say nothing about a model
UNUSED = {
    "chunk_size_feed_forward": 0, "is_encoder_decoder": False, "id2label": {0: "LABEL_0", 1: "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
}  # fmt: skip
NOTES = (
    "transformers_version", "architectures", "dtype", "use_cache", "output_attentions", "output_hidden_states", "return_dict",
)  # fmt: skip


def plain_config(config: Any, **changes: Any) -> dict[str, Any]:
    """Return a configuration as a mapping for a recipe, without notes that transformers adds, and with changes.

    Entries of None are left out, except if None switches off what the class has by default, such as a sliding window.
    """
    defaults, own = type(config)().to_dict(), config.to_dict()
    values = {name: value for name, value in own.items() if value is not None or _switches_off(name, defaults)}
    values = {name: value for name, value in {**values, **changes}.items() if name not in changes or value is not None}
    return {
        name: value for name, value in values.items()
        if not name.startswith("_") and name not in NOTES and UNUSED.get(name, NOTES) != value
    }  # fmt: skip


def _switches_off(name: str, defaults: Mapping[str, Any]) -> bool:
    """Return whether None differs from the default. The ids of special tokens are those of the tokenizer if they are None."""
    return defaults.get(name) is not None and not name.endswith("_token_id")


def as_causal(text: Any, model_type: str, **changes: Any) -> dict[str, Any]:
    """Return the configuration of a model's text half as that of the causal language model `model_type`, for a recipe.

    Entries that the causal model does not know are left out.
    """
    known = {*CONFIG_MAPPING[model_type]().to_dict(), "model_type"}
    return {
        name: value for name, value in plain_config(text, model_type=model_type, **changes).items()
        if name in known
    }  # fmt: skip
