"""Generate tokens: greedily, by drawing them, or by beam search.

B prompts, N texts (several for each prompt in beam search), S tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from vlmdata_train.model.batch import Batch
from vlmdata_train.model.beam_search import Process, beam_search, draw
from vlmdata_train.model.continuation import Continuation
from vlmdata_train.model.decoding import Decoding
from vlmdata_train.model.model import VisionLanguageModel

GREEDY = Decoding()


@torch.no_grad()
def generate(
    model: VisionLanguageModel, batch: Batch, *, max_new_tokens: int, stop_ids: Iterable[int], decoding: Decoding = GREEDY,
    is_over: Callable[[bool], bool] = bool,
) -> list[list[int]]:  # fmt: skip
    """Continue the prompt of each row, and return the new token ids of each row without the stop token.

    A text ends at any of `stop_ids`; see `ChatTemplate.stop_ids`. After each token, `is_over` receives whether all rows have
    ended, and returns whether to stop. Under FSDP `is_over` must return the same on all ranks, because all ranks must take the
    same number of steps. Raises ValueError for a packed batch.
    """
    text = Continuation(model, batch, decoding.beams)
    stops = torch.tensor(sorted(set(stop_ids)), dtype=torch.int64, device=text.ids.device)
    process = processors(model, decoding, len(stops))
    if decoding.beams > 1:
        return beam_search(
            text, process, beams=decoding.beams, length_penalty=decoding.length_penalty, stops=stops,
            max_new_tokens=max_new_tokens, is_over=is_over,
            choose=draw(seeded(decoding, text.ids.device)) if decoding.temperature else torch.topk,
        )  # fmt: skip
    return one_by_one(text, chooser(process, decoding, text.ids.device), stops, max_new_tokens, is_over)


def processors(model: VisionLanguageModel, decoding: Decoding, stops: int) -> Process:
    """Return a function that changes logits, with transformers' classes in the order of `generate` of transformers.

    `stops` is the number of stop tokens. Beam search keeps one token more, so that a beam can always be continued.
    Image tokens, video tokens and ids that only pad the embedding matrix get -inf, because no text contains them.
    """
    weight, video = model.lm_head.weight, model.video_token_id
    never = [model.image_token_id, *([] if video is None else [video]), *range(len(model.tokenizer), len(weight))]
    process: Any = LogitsProcessorList()
    keep = 1 if decoding.beams == 1 else max(2, 1 + stops)
    if decoding.repetition_penalty != 1:
        process.append(RepetitionPenaltyLogitsProcessor(float(decoding.repetition_penalty)))
    process.append(SuppressTokensLogitsProcessor(never, device=weight.device))
    temperature = float(decoding.temperature or 0)
    if temperature not in (0, 1):
        process.append(TemperatureLogitsWarper(temperature))
    if decoding.top_k is not None:
        process.append(TopKLogitsWarper(decoding.top_k, min_tokens_to_keep=keep))
    if decoding.top_p < 1:
        process.append(TopPLogitsWarper(decoding.top_p, min_tokens_to_keep=keep))
    return process


def chooser(process: Process, decoding: Decoding, device: torch.device) -> Process:
    """Return a function that chooses the next tokens: texts (N, S) and logits (N, V) -> tokens (N,)."""
    if decoding.temperature == 0:
        return lambda ids, logits: process(ids, logits).argmax(-1)
    generator = seeded(decoding, device)
    return lambda ids, logits: torch.multinomial(process(ids, logits).softmax(-1), 1, generator=generator)[:, 0]


def seeded(decoding: Decoding, device: torch.device) -> torch.Generator | None:
    """Return a random generator with the seed, or None, torch's own generator, if there is no seed."""
    return None if decoding.seed is None else torch.Generator(device).manual_seed(decoding.seed)


def one_by_one(
    text: Continuation, choose: Process, stops: Tensor, max_new_tokens: int, is_over: Callable[[bool], bool]
) -> list[list[int]]:
    """Continue each text by the tokens that `choose` returns, and return the new tokens without the stop token."""
    answers: list[list[int]] = [[] for _ in text.ids]
    done = torch.zeros(len(answers), dtype=torch.bool, device=text.ids.device)
    for step in range(max_new_tokens):
        tokens = choose(text.ids, text.logits)
        done |= torch.isin(tokens, stops)
        for answer, has_ended, token in zip(answers, done.tolist(), tokens.tolist(), strict=True):
            if not has_ended:
                answer.append(token)
        if step == max_new_tokens - 1 or is_over(bool(done.all())):
            break
        text.append(tokens)
    return answers
