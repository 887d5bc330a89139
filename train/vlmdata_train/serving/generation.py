"""Generates the answers to several requests as one batch. Each request has its own sampling, seed and length.

N requests, S tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from vlmdata_train.data.collate import Ready, build_batch
from vlmdata_train.data.prompt import Prompt
from vlmdata_train.data.prompts import Prompter
from vlmdata_train.loop.train_step import to_device
from vlmdata_train.model.continuation import Continuation
from vlmdata_train.model.decoding import Decoding
from vlmdata_train.model.generate import GREEDY, chooser, processors
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.serving.logprobs import ScoredToken, scored


@dataclass(frozen=True)
class Asked:
    """A prompt with how to answer it."""

    prompt: Prompt
    decoding: Decoding  # without beams; with a seed, if tokens are drawn
    max_tokens: int
    stop: tuple[str, ...] = ()  # the answer ends before the first of these texts
    alternatives: int | None = None  # of each token, to return with their probabilities; None: no probabilities


@dataclass(frozen=True)
class Answer:
    """The answer to one request."""

    text: str
    tokens: int  # of the answer, without the token that ended it
    finish_reason: Literal["stop", "length"]
    scored: tuple[ScoredToken, ...] | None = None  # all tokens, with the one that ended the answer


@torch.no_grad()
def answer_together(
    model: VisionLanguageModel, prompter: Prompter, asked: Sequence[Asked], finish: Callable[[int, Answer], None],
    is_wanted: Callable[[int], bool] = lambda number: True,
) -> None:  # fmt: skip
    """Generate the answers to all requests. `finish` receives the number and the answer of each request as soon as it ends.

    Each answer is the one that `generate` gives for the request alone, except for rounding errors of the logits. All texts grow
    until the last answer ends, so the longest prompt and the longest answer together must fit in the context of the model. A
    request ends without an answer when `is_wanted` is false for its number. Raises ValueError if an image cannot be decoded.
    """
    broken: Counter[str] = Counter()
    ready = [Ready(one.prompt, "serve", "") for one in asked]
    batch = build_batch(ready, model.plan, prompter.pad_id, packed_tokens=None, broken=broken)
    if broken:
        raise ValueError(f"an image cannot be decoded: {', '.join(broken)}")
    text = Continuation(model, to_device(batch, next(model.parameters()).device))
    stop_ids = frozenset(prompter.template.stop_ids)
    choose = _chooser_of_each(model, [one.decoding for one in asked], len(stop_ids), text.ids.device)
    answers: list[list[int]] = [[] for _ in asked]
    scores: list[list[ScoredToken]] = [[] for _ in asked]
    left = set(range(len(asked)))
    while True:
        tokens, logits = choose(text.ids, text.logits, left)
        for number, token in enumerate(tokens.tolist()):
            if number not in left:
                continue
            alternatives = asked[number].alternatives
            if alternatives is not None:
                scores[number].append(scored(logits[number], token, alternatives))
            answer = _extended(prompter, asked[number], answers[number], token, stop_ids)
            if answer is not None:
                finish(number, answer if alternatives is None else replace(answer, scored=tuple(scores[number])))
            if answer is not None or not is_wanted(number):
                left.remove(number)
        if not left:
            return
        text.append(tokens)


def _chooser_of_each(
    model: VisionLanguageModel, ways: Sequence[Decoding], stops: int, device: torch.device
) -> Callable[[Tensor, Tensor, Collection[int]], tuple[Tensor, Tensor]]:
    """Return a function that chooses the next tokens: texts (N, S), logits (N, V) and the requests left -> tokens (N,).

    It also returns the logits (N, V) before temperature and top_p, with -inf for the tokens that no text contains.
    A drawn token depends only on the logits and the generator of its own request, so not on the other requests of the batch.
    """
    greedy = processors(model, GREEDY, stops)
    drawn = {
        number: chooser(processors(model, way, stops), way, device) for number, way in enumerate(ways) if way.temperature != 0
    }

    def choose(ids: Tensor, logits: Tensor, left: Collection[int]) -> tuple[Tensor, Tensor]:
        possible = greedy(ids, logits)
        tokens = possible.argmax(-1)
        for number, draw in drawn.items():
            if number in left:
                tokens[number] = draw(ids[number : number + 1], logits[number : number + 1])[0]
        return tokens, possible

    return choose


def _extended(prompter: Prompter, asked: Asked, ids: list[int], token: int, stop_ids: Collection[int]) -> Answer | None:
    """Add a token to the ids of an answer. Return the answer if it ends here, otherwise None."""
    if token in stop_ids:
        return Answer(prompter.answer_text(ids), len(ids), "stop")
    ids.append(token)
    if asked.stop:
        text = prompter.untrimmed_text(ids)
        found = [at for stop in asked.stop if (at := text.find(stop)) >= 0]
        if found:
            return Answer(text[: min(found)].strip(), len(ids), "stop")
    return Answer(prompter.answer_text(ids), len(ids), "length") if len(ids) >= asked.max_tokens else None
