"""How generated tokens are chosen: the most likely token, a drawn token, or beam search.

This file imports no torch, so that mistakes are reported at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmdata_train.model.model_recipe import check_range

# (name, least, most). Scaled logits and the power of a long answer must be finite numbers.
LIMITS = (
    ("beams", 1, 64),  # torch draws from at most 2**24 numbers: the beams times a vocabulary of 262,144 tokens, as in Gemma
    ("repetition_penalty", 0.01, 100),
    ("length_penalty", -50, 50),
)


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen. With the defaults, each token is the most likely one.

    The numbers have the meaning that they have in `generate` of transformers. Beam search with a temperature above 0 draws the
    continuations of its beams.
    """

    # divides the logits before a token is drawn; 0: take the most likely token; None: 1 with `top_k` or `top_p`, otherwise 0
    temperature: float | None = None
    top_k: int | None = None  # draw from this number of most likely tokens; None: from all
    top_p: float = 1.0  # draw from the fewest most likely tokens with this sum of probabilities; Holtzman et al. 2020
    beams: int = 1  # continuations of a prompt that are kept at each step
    # divides positive logits of tokens that are already in the text, and multiplies negative ones; Keskar et al. 2019, CTRL
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0  # beam search compares answers by log-probability / tokens ** length_penalty
    seed: int | None = None  # of the drawn tokens; None: use torch's own generator

    def __post_init__(self) -> None:
        if self.temperature is None:
            object.__setattr__(self, "temperature", 1.0 if self.top_k is not None or self.top_p < 1 else 0.0)
        elif self.temperature != 0 and not 0.001 <= self.temperature <= 1000:
            raise ValueError(f"temperature must be 0, or from 0.001 to 1000, not {self.temperature}")
        check_range(self, "top_k", least=1)
        check_range(self, "seed", least=0, below=2**64)  # what torch takes
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be more than 0 and at most 1, not {self.top_p}")
        for name, least, most in LIMITS:
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be from {least} to {most}, not {getattr(self, name)}")
        if self.beams == 1 and self.length_penalty != 1:
            raise ValueError("length_penalty needs 2 beams or more, because it only compares answers of beam search")
        for name, is_set in (("top_k", self.top_k is not None), ("top_p", self.top_p < 1)):
            if is_set and not self.temperature:
                raise ValueError(f"{name} needs a temperature above 0, because no token is drawn at temperature 0")
