"""Draw the tokens of several answers, each with its own seed. B answers in a batch, V tokens in the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

from vlmdata.generator import Sampling


class TokenDraw(LogitsProcessor):
    """Changes the scores of the next tokens so that the highest score of each answer is the drawn token.

    It adds Gumbel noise to the logarithms of the probabilities, and the maximum of the sums is then a draw from the
    probabilities. The noise of an answer comes from its own generator, so it does not depend on the other answers of the batch.
    Source: Gumbel 1954; Maddison et al. 2014, A* Sampling.
    """

    def __init__(self, sampling: Sampling, seeds: Sequence[int], end: int, device: torch.device):
        """`end` is a token that ends an answer. Without temperature, the scores are not changed."""
        self.sampling = sampling
        self.end = end
        self.steps = 0  # tokens drawn for each answer
        self.broken = torch.zeros(len(seeds), dtype=torch.bool, device=device)  # answers with scores that are not finite, (B,)
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds] if sampling.temperature else []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the changed scores: (B, T), (B, V) -> (B, V)."""
        self.steps += 1
        self.broken |= ~torch.isfinite(scores.amax(-1))  # the maximum of a row with NaN is NaN
        if self._generators:
            logs = most_probable(scores.float() / self.sampling.temperature, self.sampling.top_p)
            noise = torch.empty_like(logs)
            for row, generator in zip(noise, self._generators, strict=True):
                row.exponential_(generator=generator)
            scores = logs - noise.clamp_min_(torch.finfo(noise.dtype).tiny).log()
        scores = torch.where(self.broken[:, None], -torch.inf, scores)  # ends a broken answer
        scores[:, self.end] = torch.where(self.broken, 0.0, scores[:, self.end])
        return scores


class FirstToken(LogitsProcessor):
    """Keeps the probabilities of the first new token of each answer, and takes the most probable token."""

    probabilities: Tensor  # (B, V), float32; a row with a score that is no number is NaN

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores as they are: (B, T), (B, V) -> (B, V)."""
        self.probabilities = scores.float().softmax(-1)
        return scores


def most_probable(scores: Tensor, top_p: float) -> Tensor:
    """Return the log-probabilities of the most probable tokens, and -inf for the others: (B, V) -> (B, V).

    These are the fewest tokens whose probabilities add up to `top_p`. Several tokens with the probability of the least probable
    one are all kept, so the result does not depend on their order.
    """
    logs = scores.log_softmax(-1)
    if top_p >= 1:
        return logs
    ordered = logs.sort(-1, descending=True).values
    before = ordered.exp().cumsum(-1) - ordered.exp()  # the sum of the more probable tokens
    least = ordered.masked_fill(before >= top_p, torch.inf).amin(-1, keepdim=True)
    return logs.masked_fill(logs < least, -torch.inf)
