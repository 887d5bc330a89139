"""What LLaVA's own trainer requires of a conversation: one image at most, and turns of `human` and `gpt` in alternation.

Source: LLaVA 1.2.2.post1, `llava/train/train.py` (github.com/haotian-liu/LLaVA), with the template `v1`. Its reader joins
`image` to a folder, so a list of images ends the run, and so does a speaker that it does not know. A conversation that it can
only read in part is trained in part or not at all, with a warning in the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmdata.exporting.exporter import Unsuitable

SPEAKERS = ("human", "gpt")
MARKS = ("</s>", " ASSISTANT: ", "<unk>")  # the ends of a turn and of a question in the template, and its padding
UNREAD = ("avif",)  # Pillow 10, which LLaVA's requirements need, does not open them


def check_trained(turns: Sequence[Mapping[str, Any]], images: Sequence[str]) -> None:
    """Raise Unsuitable if LLaVA's trainer stops at these turns, which have `from` and `value`, or leaves out some of them."""
    if len(images) > 1:
        raise Unsuitable(f"LLaVA's trainer stops at it: it has {len(images)} images. The form 'any' holds it")
    if any(path.rpartition(".")[2] in UNREAD for path in images):
        raise Unsuitable("LLaVA's trainer stops at it: it cannot open AVIF. The form 'any' holds it")
    for turn in turns:
        if turn["from"] not in SPEAKERS:
            raise Unsuitable(f"LLaVA's trainer stops at it: it has no speaker '{turn['from']}'. The form 'any' holds it")
        if not turn["value"]:
            raise Unsuitable("LLaVA's trainer does not train it: a turn is empty. The form 'any' holds it")
        if any(mark in f" {turn['value']} " for mark in MARKS):
            raise Unsuitable("LLaVA's trainer does not train it: a text has one of its marks ('</s>'). The form 'any' holds it")
    speakers = [turn["from"] for turn in turns]
    if speakers != [SPEAKERS[number % 2] for number in range(len(turns))] or len(turns) % 2:
        raise Unsuitable("LLaVA's trainer reads only questions with an answer each, in turns. The form 'any' holds it")
