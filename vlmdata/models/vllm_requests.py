"""Requests to vLLM and its outputs, as plain values. vLLM is not imported here.

Names of fields: vLLM 0.33, classes TokensPrompt, SamplingParams, RequestOutput and Logprob.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from vlmdata.generator import Answer, Prompt, Sampling
from vlmdata.models.first_token import ONE_TOKEN, TOP, chosen

FINISHES = ("stop", "length")  # values of `finish_reason` with a complete answer; others are "abort" and "error"


def engine_prompt(tokens: Sequence[int], images: Sequence[Image.Image]) -> dict[str, Any]:
    """Return a TokensPrompt. `tokens` has one image token, or one group of tokens, for each image; the engine repeats it."""
    prompt: dict[str, Any] = {"prompt_token_ids": list(tokens)}
    return prompt | ({"multi_modal_data": {"image": list(images)}} if images else {})


def sampling_fields(prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
    """Return the fields of SamplingParams, apart from `output_kind`. Each request has its own seed.

    A prompt with choices asks for one token and its alternatives. TOP is the largest number that an engine gives by default.
    """
    if prompt.choices:
        sampling = ONE_TOKEN
    fields = {
        "n": 1,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": prompt.seed,
        "skip_special_tokens": True,
    }
    return fields | ({"logprobs": TOP} if prompt.choices else {})


def answer_of(output: Any, seconds: float, choices: Sequence[str] = ()) -> Answer:
    """Return the answer in a RequestOutput. The token that ends an answer is not counted."""
    (one,) = output.outputs
    prompt_tokens = len(output.prompt_token_ids or ())
    if one.finish_reason not in FINISHES:
        return Answer(failure="aborted", prompt_tokens=prompt_tokens, seconds=seconds)
    if choices:
        answer = Answer(prompt_tokens=prompt_tokens, tokens=1, seconds=seconds)
        if not one.logprobs:
            return replace(answer, failure="no_probabilities", tokens=0)
        first = [(other.decoded_token or "", math.exp(other.logprob)) for other in one.logprobs[0].values()]
        if not all(math.isfinite(probability) for _, probability in first):
            return replace(answer, failure="not_finite", tokens=0)
        return chosen(first, choices, answer)
    tokens = len(one.token_ids) - (one.finish_reason == "stop")
    return Answer(one.text, one.finish_reason, None, prompt_tokens, max(0, tokens), seconds)


def failure_of(message: str) -> str:
    """Return the failure of a prompt that the engine refuses with this message."""
    is_long = "max_model_len" in message or "maximum model length" in message or "context length" in message
    return "too_long" if is_long else "bad_prompt"
