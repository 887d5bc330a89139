"""What LLaMA-Factory requires of conversations with `<image>` in their texts, which it calls the format sharegpt.

Source: LLaMA-Factory 0.9.5, `data/converter.py` and `data/mm_plugin.py` (github.com/hiyouga/LLaMA-Factory). It skips a
conversation in which the speakers do not take turns, with a warning during the training. A wrong number of placeholders ends
its run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmdata.exporting.exporter import Unsuitable
from vlmdata.readers.place_images import PLACEHOLDER

ASKED = ("user", "observation")  # roles of the first, third, … message after the system message
ANSWERED = ("assistant", "function_call")
OTHER_MEDIA = ("<video>", "<audio>")
THINK = "<think>\n{}\n</think>\n\n"  # reasoning before an answer, as in the texts of Qwen3 and DeepSeek-R1


def check_turns(turns: Sequence[Mapping[str, Any]], images: int) -> None:
    """Raise Unsuitable if LLaMA-Factory skips or refuses a conversation of these turns, which have `role` and `content`."""
    rest = turns[1:] if turns[0]["role"] == "system" else turns
    for number, turn in enumerate(rest):
        if turn["role"] not in (ANSWERED if number % 2 else ASKED):
            previous = f"after '{rest[number - 1]['role']}'" if number else "as first message"
            raise Unsuitable(f"LLaMA-Factory skips it: '{turn['role']}' {previous}. The form 'parts' holds it")
    if len(rest) % 2:
        raise Unsuitable("LLaMA-Factory skips it: the last message is not an answer. The form 'parts' holds it")
    texts = [turn["content"] for turn in rest]
    for tag in OTHER_MEDIA:
        if any(tag in text for text in texts):
            raise Unsuitable(f"LLaMA-Factory stops at it: it takes {tag} in a text as a medium. The form 'parts' holds it")
    if sum(text.count(PLACEHOLDER) for text in texts) != images:
        raise Unsuitable("LLaMA-Factory stops at it: an image is in the system message. The form 'parts' holds it")


def with_thoughts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON of a conversation in which reasoning is a part of the text after it, between `<think>` and `</think>`.

    Without a text after it, the reasoning is a text of its own.
    """
    turns = facts.get("turns")
    if not turns or not any(turn and turn.get("kind") == "reasoning" for turn in turns):
        return dict(facts)
    roles, texts, metadata, entries = facts["roles"], facts["texts"], facts["metadata"], turns
    kept: list[tuple[str, str | None, Any, Any]] = []
    thought: dict[str, Any] | None = None  # the entry of the reasoning that is the last item of `kept`
    for role, text, place, turn in zip(roles, texts, metadata, entries, strict=True):
        if turn and turn.get("kind") == "reasoning":
            thought = {name: value for name, value in turn.items() if name != "kind"}
            kept.append((role, THINK.format(text), None, thought or None))
            continue
        if thought is not None and not turn and role == kept[-1][0] and text is not None:
            kept[-1] = (role, f"{kept[-1][1]}{text}", None, thought or None)
        else:
            kept.append((role, text, place, turn))
        thought = None
    columns = ([one[place] for one in kept] for place in range(4))
    return {**facts, **dict(zip(("roles", "texts", "metadata", "turns"), columns, strict=True))}
