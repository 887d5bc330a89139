"""Read conversation records in any published form as messages. A message has a role, and texts and images in order.

This module opens no file. The caller's function `image_of` returns the image that an entry of a record names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmdata.readers.place_images import Form, Marked, Message, Slot, count_marks, count_slots, has_image, is_image, placed
from vlmdata.readers.strings import clean, is_blank
from vlmdata.readers.tool_calls import Unfit, calls_of, json_text, tools_of

ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "chatgpt", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "observation", "function", "ipython"), "tool"),
    **dict.fromkeys(("tool_response", "tool_result", "tool_output", "function_response", "function_result"), "tool"),
}
CALLERS = ("function_call", "tool_call", "tool_calls")  # roles of an assistant whose text is a JSON call
REASONING = ("reasoning_content", "reasoning", "thinking")  # fields of a message
LOSS_FIELDS = ("weight", "train", "training", "trainable", "loss")  # fields of a message: false or 0 means no loss
# fields that make a conversation unusable: in a turn always, and in a record if a text has <video> or <audio>
UNREAD = ("video", "videos", "audio", "audios")
PART_LOSS_FIELDS = ("train_detail", "training_detail")  # fields of a message with the loss of each part
SPECIAL_FIELDS = frozenset(
    (
        *REASONING,
        *LOSS_FIELDS,
        *UNREAD,
        *PART_LOSS_FIELDS,
        "tool_calls",
        "function_call",
        "name",
        "tool_call_id",
        "image",
        "images",
    )
)
ROW_ROLES = frozenset(("user", "assistant", "system", "tool"))  # the roles of a row
ImageOf = Callable[[Any], Any]


@dataclass(frozen=True)
class Dialogue:
    """The messages of a record. Their parts include the record's images.

    `tools` is JSON text. `used` holds the names of the fields that were read.
    """

    messages: list[Message]
    tools: str | None
    used: frozenset[str]


def read_dialogue(
    record: Mapping[str, Any],
    turns: Sequence[str],
    images: Sequence[str],
    image_of: ImageOf,
    *,
    nulls: bool = True,
    otherwise: Sequence[Any] = (),
) -> Dialogue:
    """Return a record's conversation. Raises Unfit, with the reason, if it cannot be used for training.

    `turns` and `images` are possible field names, and the first field that is not empty is read. `otherwise` holds the images
    for a record that names no images. A `system` field becomes the first message if the turns do not begin with a system
    message. `nulls` is as in `calls_of`.
    """
    messages = [_message(turn, image_of, nulls) for turn in _turns(first_of(record, turns))]
    used = {*turns, *images}
    prompt = record.get("system")
    if isinstance(prompt, str) and prompt.strip() and messages and messages[0].role != "system":
        messages.insert(0, Message("system", [_whole(prompt)]))
        used.add("system")
    check_messages(messages)
    shown = [name for name in UNREAD if record.get(name)]
    if any(count_marks(message.parts, f"<{name.removesuffix('s')}>") for name in shown for message in messages):
        raise Unfit("unknown_part")
    tools, name = tools_of(record, nulls=nulls)
    beside: list[Any] = [image_of(where) for where in images_of(first_of(record, images))]
    if not beside and not any(has_image(message) for message in messages):
        beside = list(otherwise)
    return Dialogue(placed(messages, beside), tools, frozenset(used | ({name} if name else set())))


def first_of(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Return the value of the first field in `names` that is not empty, or None if all are empty. JSON text is parsed."""
    value = next((record[name] for name in names if record.get(name)), None)
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def images_of(value: Any) -> list[Any]:
    """Return the entries of a field of images as a list, without empty entries."""
    if isinstance(value, list):
        return [one for one in value if not _is_nothing(one)]
    return [] if _is_nothing(value) else [value]


def laid_out(messages: Iterable[Message]) -> tuple[list[Any], list[str], list[Mapping[str, Any] | None] | None]:
    """Return messages as (positions of one row, role of each position, the row's `turns`).

    `turns` has an entry per position, or is None if all entries are empty. An empty message becomes one empty text. A blank
    text beside an image is removed, because it only separates the image from the next one.
    """
    positions: list[Any] = []
    roles: list[str] = []
    said: list[Mapping[str, Any] | None] = []
    for message in messages:
        parts = _kept(message.parts)
        own: dict[str, Any] = dict(message.own)
        if message.role == "tool" or (roles and roles[-1] == message.role):
            own["begins"] = True
        for part in parts:
            about = {**own, "kind": part.kind} if isinstance(part, Marked) else own
            said.append(about or None)
            own = {}
        positions += [part.text if isinstance(part, Marked) else part for part in parts]
        roles += [message.role] * len(parts)
    return positions, roles, said if any(said) else None


def _kept(parts: Sequence[Any]) -> list[Any]:
    def is_between(number: int) -> bool:
        return any(is_image(one) for one in (*parts[max(number - 1, 0) : number], *parts[number + 1 : number + 2]))

    kept = [
        part
        for number, part in enumerate(parts)
        if not isinstance(part, str) or not (part == "" or (not part.strip() and is_between(number)))
    ]
    return kept or [""]


def check_messages(messages: Sequence[Message]) -> None:
    """Raise Unfit for a conversation without a question, without an answer, or with only empty answers."""
    roles = {message.role for message in messages}
    if not roles:
        raise Unfit("no_turns")
    if "user" not in roles:
        raise Unfit("no_user_turn")
    if "assistant" not in roles:
        raise Unfit("no_assistant_turn")
    said = [part for message in messages if message.role == "assistant" for part in message.parts]
    if all(isinstance(part, str) and is_blank(part) for part in said):
        raise Unfit("empty_answer")


def checked_turns(given: Any, roles: Sequence[Any]) -> list[Mapping[str, Any] | None] | None:
    """Return the `turns` of a sample's JSON, with one entry for each role, or None if the JSON has no turns.

    Raises Unfit for another shape or an unknown role.
    """
    if not all(isinstance(role, str) and role in ROW_ROLES for role in roles):
        raise Unfit("unknown_role")
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != len(roles) or not all(map(_is_entry, given)):
        raise Unfit("bad_turns")
    return [dict(one) if one else None for one in given]


def _is_entry(entry: Any) -> bool:
    if entry is None:
        return True
    fits: dict[str, Callable[[Any], bool]] = {
        **dict.fromkeys(("begins", "train"), lambda value: isinstance(value, bool)),
        **dict.fromkeys(("name", "tool_call_id"), lambda value: isinstance(value, str)),
        "kind": lambda value: value in ("reasoning", "tool_call"),
    }
    return isinstance(entry, Mapping) and all(name in fits and fits[name](value) for name, value in entry.items())


def role_of(name: object) -> str:
    """Return user, assistant, system or tool for the name of a role in a published dataset. Raises Unfit if it is unknown."""
    role = ROLES.get(_plain(name))
    if role is None:
        raise Unfit("unknown_role")
    return role


def _plain(name: object) -> str:
    return name.lower().replace("-", "_").replace(" ", "_") if isinstance(name, str) else ""


def _is_nothing(value: Any) -> bool:
    """Say whether a value is null, an empty text, or a struct with only empty fields, as in Parquet."""
    return not any(value.values()) if isinstance(value, Mapping) else value is None or value == ""


def _turns(said: Any) -> list[Mapping[str, Any]]:
    if isinstance(said, Mapping):  # a struct of lists: old versions of `datasets` wrote lists of structs in this form
        lists = [value for value in said.values() if isinstance(value, list)]
        if len(lists) != len(said) or len({len(one) for one in lists}) != 1:
            raise Unfit("no_turns")
        said = [dict(zip(said, values, strict=True)) for values in zip(*lists, strict=True)]
    if not isinstance(said, list) or not all(isinstance(turn, Mapping) for turn in said):
        raise Unfit("no_turns")
    return [one for given in said for one in _question_and_answer(given)]


def _question_and_answer(turn: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Split {"user": ..., "assistant": ...} into its two turns. Return any other turn alone in a list."""
    if turn.get("role") is not None or turn.get("from") is not None or not {"user", "assistant"} <= turn.keys():
        return [turn]
    return [{"role": role, "content": turn[role]} for role in ("user", "assistant")]


def _message(turn: Mapping[str, Any], image_of: ImageOf, nulls: bool) -> Message:
    """Return a turn as a message, with its reasoning first and its calls last.

    An image part that names no image becomes a Slot.
    """
    name = turn["role"] if turn.get("role") is not None else turn.get("from")
    content = next((turn[one] for one in ("content", "value") if turn.get(one) is not None), None)
    if isinstance(content, str) and isinstance(name, str) and name in ROLES and turn.keys().isdisjoint(SPECIAL_FIELDS):
        return Message(ROLES[name], [_whole(content)])  # a fast path: most turns take it, in a third of the time
    calls = [turn[one] for one in ("tool_calls", "function_call") if turn.get(one) and not _is_nothing(turn[one])]
    if is_call := _plain(name) in CALLERS:
        calls, content = ([content] if content or not calls else []) + calls, None
    elif content is None and not calls and not any(turn.get(one) for one in REASONING):
        raise Unfit("no_text")
    role = "assistant" if is_call else role_of(name)
    made = [Marked("tool_call", text) for value in calls for text in calls_of(value, nulls=nulls)]
    if made and role != "assistant":
        raise Unfit("bad_tool_call")
    thought = _reasoning(turn, role)
    if content is None and (made or thought):
        return Message(role, [*thought, *made], _own(turn))
    if role == "tool" and isinstance(content, Mapping):  # a tool's result as an object
        content = json_text(content, "no_text")
    given = [content] if isinstance(content, str) else content
    if not isinstance(given, list):
        raise Unfit("no_text")
    form: Form = "text" if isinstance(content, str) else "list"
    parts = [_part(part, role, image_of) for part in given]
    if any(is_image(part) or isinstance(part, Slot) for part in parts):
        form = "image_parts"
    parts = _with_images(Message(role, parts, {}, form), turn, image_of)
    return Message(role, [*thought, *parts, *made], _own(turn), form)


def _with_images(message: Message, turn: Mapping[str, Any], image_of: ImageOf) -> list[Any]:
    """Return a turn's parts with the images of the turn's fields `image` and `images`.

    The images replace the placeholders in the parts. If there are no placeholders, the images come first.
    """
    if any(images_of(turn.get(name)) for name in UNREAD):
        raise Unfit("unknown_part")
    images = [image_of(where) for name in ("image", "images") for where in images_of(turn.get(name))]
    if images and (count_slots(message.parts) or count_marks(message.parts)):
        return placed([message], images)[0].parts
    return [*images, *message.parts]


def _own(turn: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message's `train`, `name` and `tool_call_id`, for its entry of `turns`. Raises Unfit for a bad value.

    A loss weight of 0 or false becomes `train` = False. Any other weight counts as 1, because losses are not weighted here.
    """
    given = [turn[name] for name in LOSS_FIELDS if turn.get(name) is not None]
    if not all(isinstance(one, int | float) and math.isfinite(one) and one >= 0 for one in given):
        raise Unfit("bad_weight")
    if len({bool(one) for one in given}) > 1 or any(turn.get(name) for name in PART_LOSS_FIELDS):
        raise Unfit("bad_weight")
    own: dict[str, Any] = {} if all(given) else {"train": False}
    for name in ("name", "tool_call_id"):
        if turn.get(name):
            if not isinstance(turn[name], str):
                raise Unfit(f"bad_{name}")
            own[name] = _whole(turn[name])
    return own


def _reasoning(turn: Mapping[str, Any], role: str) -> list[Marked]:
    """Return a message's reasoning as a list of one text, or [] if there is none. A boolean field is a switch and is ignored.

    Raises Unfit if fields hold different texts, or if the message is not the assistant's.
    """
    given = [turn[name] for name in REASONING if turn.get(name) and not isinstance(turn[name], bool)]
    texts = {_reasoned(one) for one in given} - {""}
    if len(texts) > 1 or (texts and role != "assistant"):
        raise Unfit("bad_reasoning")
    return [Marked("reasoning", text) for text in texts]


def _reasoned(value: Any) -> str:
    """Return the text of reasoning that is a string or a list of text parts. Raises Unfit for other values."""
    parts = value if isinstance(value, list) else [value]
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    found = [text for text in texts if isinstance(text, str)]
    if len(found) < len(texts):
        raise Unfit("bad_reasoning")
    return _whole("".join(found))


def _part(part: object, role: str, image_of: ImageOf) -> Any:
    if isinstance(part, str):
        return _whole(part)
    if not isinstance(part, Mapping):
        raise Unfit("unknown_part")
    kind = part.get("type") or ("image" if part.get("image") else "text")
    if kind == "text" and isinstance(part.get("text"), str):
        return _whole(part["text"])
    if kind in ("thinking", "reasoning") and role == "assistant":
        return Marked("reasoning", _reasoned(next((part[one] for one in (*REASONING, "text") if part.get(one)), "")))
    if kind not in ("image", "image_url"):
        raise Unfit("unknown_part")
    source = part.get("source")  # Anthropic's {"type": "base64", "data": ...} or {"type": "url", "url": ...}
    part = {**source, "base64": source.get("data"), **part} if isinstance(source, Mapping) else part
    named = (part.get(name) for name in ("image", "image_url", "url", "path", "base64"))
    where = next((one for one in named if not _is_nothing(one)), None)
    if isinstance(where, str) and where == part.get("base64") and not where.startswith("data:"):
        where = f"data:;base64,{where}"
    return Slot() if where is None else image_of(where)


def _whole(text: str) -> str:
    """Return a text unchanged. Raises Unfit if it holds an unpaired surrogate."""
    if clean(text) != text:
        raise Unfit("bad_encoding")
    return text
