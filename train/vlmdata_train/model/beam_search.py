"""Beam search: keep the most likely continuations of each prompt, and return the best one that has ended.

The results are those of `generate` of transformers with `early_stopping=False`.
B prompts, K beams, C candidates, V vocabulary, N = B K texts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vlmdata_train.model.continuation import Continuation

Ended = tuple[float, list[int]]  # the score of an answer that has ended, and its tokens without the stop token
Process = Callable[[Tensor, Tensor], Tensor]  # tokens (N, S) and scores of the next token (N, V) -> changed scores
# scores (B, K V) and a number C -> the scores and the indices of C of them, (B, C) each, highest score first
Choose = Callable[[Tensor, int], tuple[Tensor, Tensor]]


def draw(generator: torch.Generator | None) -> Choose:
    """Return a function that draws candidates without replacement, by the softmax of their scores."""

    def drawn(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
        index = torch.multinomial(scores.softmax(-1), number, generator=generator)
        ordered, order = scores.gather(1, index).sort(descending=True)
        return ordered, index.gather(1, order)

    return drawn


def beam_search(
    text: Continuation, process: Process, *, beams: int, length_penalty: float, stops: Tensor, max_new_tokens: int,
    is_over: Callable[[bool], bool], choose: Choose = torch.topk,
) -> list[list[int]]:  # fmt: skip
    """Continue texts, of which each prompt has `beams`, and return the best answer (token ids) to each prompt.

    `choose` chooses the candidates of each step: those with the highest scores, or `draw`. The score of an answer is its
    log-probability / tokens ** `length_penalty`, where the stop token counts. A prompt is done when it has K answers and its
    best beam, at its current length, would score no more than the worst of them. See `generate` for `is_over`.
    """
    prompts, begin = len(text.ids) // beams, text.ids.shape[1]
    first = torch.arange(prompts, device=text.ids.device)[:, None] * beams  # (B, 1) number of each prompt's first text
    scores = torch.zeros(prompts, beams, device=text.ids.device)
    scores[:, 1:] = -1e9  # the texts of a prompt are equal at first, so only one of them may be continued
    ended: list[list[Ended]] = [[] for _ in range(prompts)]
    done = [False] * prompts
    for length in range(1, max_new_tokens + 1):
        is_last = length == max_new_tokens
        chances = process(text.ids, text.logits.log_softmax(-1)).unflatten(0, (prompts, beams))  # (B, K, V)
        # At most `len(stops)` candidates of a beam end, so at least K of the most likely ones do not.
        totals, index = choose((chances + scores[..., None]).flatten(1), beams * max(2, 1 + len(stops)))  # (B, C)
        source, token = first + index // chances.shape[-1], index % chances.shape[-1]
        stopped = torch.isin(token, stops)
        scaled = totals[:, :beams] / length**length_penalty
        for prompt, candidate in torch.nonzero(stopped[:, :beams] | is_last).tolist():
            if not done[prompt]:
                before = text.ids[source[prompt, candidate], begin:].tolist()
                last = [] if stopped[prompt, candidate] else [int(token[prompt, candidate])]
                answers = [*ended[prompt], (float(scaled[prompt, candidate]), [*before, *last])]
                ended[prompt] = sorted(answers, key=lambda answer: -answer[0])[:beams]
        scores, kept = (totals - 1e9 * stopped).topk(beams)  # (B, K), finite, because scores of -inf have no softmax
        best = (scores[:, 0] / length**length_penalty).tolist()
        for prompt, answers in enumerate(ended):
            done[prompt] |= len(answers) == beams and best[prompt] <= answers[-1][0]
        if is_last or is_over(all(done)):
            break
        text.append(token.gather(1, kept).flatten(), source.gather(1, kept).flatten())
    return [answers[0][1] if answers else [] for answers in ended]
