"""Scale and cap logits after the output layer, as some language models do.

Cohere and Granite scale logits by a number. Gemma 2 caps logits with a tanh. Generation, evaluation and the chunked loss use
the same `Head`. D width, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vlmdata_train.model.placeholders import stand_ins


@dataclass(frozen=True)
class Head:
    """The step after the output layer: logits become cap * tanh(scale * logits / cap)."""

    scale: float = 1.0  # Cohere's logit_scale, or 1 / Granite's logits_scaling
    cap: float | None = None  # Gemma 2's final_logit_softcapping; None: no cap

    def finish(self, logits: Tensor) -> Tensor:
        """Scale and cap the output layer's logits, (..., V) -> (..., V)."""
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


@torch.no_grad()
def head_of(language: Any) -> Head:
    """Return how a language model changes the logits of its output layer. Raises ValueError if no `Head` describes it.

    Models use similar fields differently: Granite divides by the field with which HyperCLOVA X multiplies. So this function
    measures the change. It replaces the output layer's logits by known numbers, and compares the model's result with that of
    each `Head` whose scale and cap can be made from numbers in the model's configuration.
    """
    name, layer = type(language).__name__, language.get_output_embeddings()
    if type(layer) is not nn.Linear:
        raise ValueError(
            f"{name} has an output layer of type {type(layer).__name__}, which the trainer's loss does not support"
        )
    device = torch.empty(0).device if layer.weight.is_meta else layer.weight.device
    known = torch.linspace(-120, 120, layer.out_features, device=device)
    read, last, logits = _run(language, layer, known)
    if not torch.equal(read, last):
        raise ValueError(f"{name} changes its last hidden states before the output layer, which the trainer does not support")
    numbers = _numbers_about_logits(language.config)
    scales = [1.0, *numbers, *(1 / number for number in numbers)]
    for scale, cap in itertools.product(scales, (None, *numbers)):
        form = Head(scale, cap)
        expected = form.finish(known)
        if logits.shape == expected.shape and (logits - expected).abs().max() <= 1e-5 * expected.abs().max():
            return form
    fields = ", ".join(field for field in language.config.get_text_config().to_dict() if _is_about_logits(field))
    raise ValueError(
        f"{name} changes its logits in a way that the trainer's loss does not support (fields about logits: {fields or 'none'})"
    )


def _run(language: Any, layer: nn.Linear, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (input of a language model's output layer, last hidden states of its decoder, logits of the last token).

    The decoder and the output layer do not compute: they return known numbers. So all weights may be placeholders.
    """
    read: list[Tensor] = []

    def replace(hidden: Tensor) -> Tensor:
        read.append(hidden)
        return known.expand(*hidden.shape[:-1], -1)

    width, dtype = layer.in_features, layer.weight.dtype
    last = torch.linspace(-2, 2, 3 * width, device=known.device).to(dtype).view(1, 3, width)
    embedded, places = torch.zeros_like(last), torch.arange(3, device=known.device)[None]
    # OPT's base model is not the module that its output layer follows
    decoders = {language.base_model, language.get_decoder()} - {layer}
    training = language.training
    language.eval()
    with ExitStack() as stack:
        for decoder in decoders:
            stack.enter_context(_replaced(decoder, lambda *_, **__: _States(last)))
        stack.enter_context(_replaced(layer, replace))
        inputs = {"inputs_embeds": embedded, "position_ids": places, "use_cache": False}
        logits = functional_call(language, stand_ins(language), (), inputs).logits
    language.train(training)
    return read[0], last, logits[0, -1]


class _States:
    """The output of a decoder that has only last hidden states."""

    def __init__(self, last: Tensor) -> None:
        self.last_hidden_state = last

    def __getitem__(self, index: Any) -> Any:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        """Return None for all other fields, such as the cache and the attention scores."""


@contextmanager
def _replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Replace the forward pass of a module in the block."""
    setattr(module, "forward", forward)  # noqa: B010 (mypy refuses to assign a method)
    try:
        yield
    finally:
        delattr(module, "forward")


def _numbers_about_logits(config: Any) -> list[float]:
    """Return the numbers in a configuration's fields about logits, except 0 and 1."""
    values = config.get_text_config().to_dict()
    numbers = [value for field, value in values.items() if _is_about_logits(field)]
    return [float(number) for number in numbers if isinstance(number, int | float) and number not in (0, 1, True, False)]


def _is_about_logits(field: str) -> bool:
    """Return whether the name of a configuration's field is about logits."""
    return "logit" in field or "lm_head" in field or "soft_cap" in field or "softcap" in field
