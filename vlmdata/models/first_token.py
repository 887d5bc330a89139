"""The probabilities of a few words, such as yes and no, from those of the first token of an answer.

Sources of the idea: VQAScore (Lin et al. 2024), RLAIF-V (Yu et al. 2024), which add up the probabilities of "yes" and "Yes".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from vlmdata.generator import Answer, Sampling

# of a prompt with choices; some servers give probabilities after temperature and top_p, so both are 1
ONE_TOKEN = Sampling(max_tokens=1, temperature=1.0, top_p=1.0)
TOP = 20  # most alternatives of a token that the protocol of OpenAI gives
AROUND = " \t\r\n\u2581\u0120.,:;!?*_#`'\"()[]"  # around the word in a token: blanks, their signs in vocabularies, punctuation


def bare(token: str) -> str:
    """Return the word in a token, without case, blanks and punctuation around it."""
    return token.strip(AROUND).casefold()


def choice_of(token: str, choices: Sequence[str]) -> int | None:
    """Return the number of the choice that an answer with this first token begins with, or None.

    A token counts for a choice if it is its word, or the beginning of the word of no other choice. Case, blanks and punctuation
    around the word do not matter.
    """
    word = bare(token)
    words = [choice.casefold() for choice in choices]
    if word in words:
        return words.index(word)
    begun = [number for number, choice in enumerate(words) if word and choice.startswith(word)]
    return begun[0] if len(begun) == 1 else None


def chosen(tokens: Iterable[tuple[str, float]], choices: Sequence[str], answer: Answer) -> Answer:
    """Return `answer` with the probabilities of the choices, and the most probable choice as its text.

    `tokens` are the known alternatives of the first token, each with its probability. The text is empty if no token counts for
    a choice.
    """
    sums = [0.0] * len(choices)
    for token, probability in tokens:
        number = choice_of(token, choices)
        if number is not None:
            sums[number] += probability
    return with_probabilities(sums, choices, answer)


def with_probabilities(sums: Sequence[float], choices: Sequence[str], answer: Answer) -> Answer:
    """Return `answer` with the probabilities of the choices, of which rounding errors above 1 are cut.

    The text is the most probable choice, or empty if all probabilities are 0.
    """
    best = max(range(len(choices)), key=sums.__getitem__)
    text = choices[best] if sums[best] else ""
    return replace(answer, text=text, finish="stop", probabilities=tuple(min(1.0, one) for one in sums))
