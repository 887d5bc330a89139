"""Scale and cap logits after the output layer, as some language models do.

Cohere and Granite scale logits by a number. Gemma 2 caps logits with a tanh. Generation, evaluation and the chunked loss use
the same `Head`. D width, V vocabulary.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vlmdata_train.model.attention import plan_attention


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
    known = torch.linspace(-120, 120, layer.out_features, device=layer.weight.device)
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


def _run(language: Any, layer: nn.Module, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (input of a language model's output layer, last hidden states of its decoder, logits of the last token).

    The hidden states are from a run of the decoder alone. The other two are from a run of the whole model, in which `known`
    replaces the result of the output layer.
    """
    read: list[Tensor] = []

    def replace(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        read.append(args[0])
        return known.expand(output.shape)

    inputs = {
        "inputs_embeds": language.get_input_embeddings()(torch.tensor([[1, 2, 3]], device=known.device)),
        "position_ids": torch.arange(3, device=known.device)[None], "use_cache": False,
        "packing": plan_attention(torch.ones(1, 3, dtype=torch.int32), backend="segments"),
    }  # fmt: skip
    training = language.training
    language.eval()
    last = language.base_model(**inputs).last_hidden_state
    hook = layer.register_forward_hook(replace)
    try:
        logits = language(**inputs).logits
    finally:
        hook.remove()
    language.train(training)
    return read[0], last, logits[0, -1]


def _numbers_about_logits(config: Any) -> list[float]:
    """Return the numbers in a configuration's fields about logits, except 0 and 1."""
    values = config.get_text_config().to_dict()
    numbers = [value for field, value in values.items() if _is_about_logits(field)]
    return [float(number) for number in numbers if isinstance(number, int | float) and number not in (0, 1, True, False)]


def _is_about_logits(field: str) -> bool:
    """Return whether the name of a configuration's field is about logits."""
    return "logit" in field or "lm_head" in field or "soft_cap" in field or "softcap" in field
