"""Read a sample of a shard as a document. The sample may have any supported form."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any, cast

from vlmdata.images.formats import CAPTION_EXTENSIONS, IMAGE_EXTENSIONS
from vlmdata.loader.captions import Weights, drawn_caption, origins_of
from vlmdata.loader.decoding import text_of
from vlmdata.readers.dialogue import checked_turns
from vlmdata.readers.image_members import holds_turns, turns_alone
from vlmdata.readers.tool_calls import Unfit, calls_of, checked_tools
from vlmdata_train.data.conversations import read_conversation
from vlmdata_train.data.document import BoxedImage, Document, Turn
from vlmdata_train.data.grounded_text import grounded
from vlmdata_train.data.videos_of import Entry, with_videos

_IMAGE_MEMBER = re.compile(rf"(?:\d+\.)?(?:{'|'.join(sorted(IMAGE_EXTENSIONS))})")


def read_document(sample: Mapping[str, Any], weights: Weights | None = None) -> Document:
    """Return a sample of a shard as a document.

    The sample may be a document that vlmdata wrote, with images such as `0.jpg` and the aligned lists `texts` and `metadata` in
    its JSON. It may be a conversation, with `conversations` or `messages` in its JSON. Otherwise it is read as images with a
    caption.

    The caption is the member `txt`, `text` or `caption`, or else the value of `caption` or `text` in the JSON. If there are
    alternative captions, the sample's random number chooses a caption in each epoch, by the weights of the recipe's `captions`
    if there are some. Raises KeyError or ValueError if the sample does not have its expected form. For a conversation, the text
    of the ValueError is a key of REASONS.
    """
    facts = facts_of(sample)
    if is_document(facts, sample):
        return _laid_out(facts, sample)
    if holds_turns(facts) and not any(name in sample for name in CAPTION_EXTENSIONS):
        return read_conversation(facts, sample)
    images = [sample[name] for name in sample if _IMAGE_MEMBER.fullmatch(name)]
    main = _main_caption(facts, sample)
    caption = drawn_caption(main, facts, sample.get("__seed__", 0), weights)
    if caption == main and len(images) == 1:
        caption = grounded(caption, facts.get("grounding"), {0: BoxedImage(images[0], facts.get("boxes"))})
    return Document([*images, caption], None)


def caption_origins(facts: Mapping[str, Any], sample: Mapping[str, Any]) -> list[str | None]:
    """Return the origin of each caption that a sample may draw, as `origins_of` does. A document draws no caption: [None]."""
    if is_document(facts, sample):
        return [None]
    try:
        caption = _main_caption(facts, sample)
    except UnicodeDecodeError:  # `read_document` fails too, whichever caption is drawn
        caption = ""
    return origins_of(caption, dict(facts))


def _main_caption(facts: Mapping[str, Any], sample: Mapping[str, Any]) -> str:
    captions = [text_of(sample[name]) for name in CAPTION_EXTENSIONS if name in sample]
    captions += [facts[name] for name in ("caption", "text") if isinstance(facts.get(name), str)]
    return (captions or [""])[0]


def _laid_out(facts: Mapping[str, Any], sample: Mapping[str, Any]) -> Document:
    """Return the document of a sample that vlmdata wrote, from the lists in its JSON.

    Item i of each list describes position i. A position that has no text and no image is skipped. Neighbouring images with
    times are a video.
    """
    count = len(facts["texts"])
    all_roles = facts.get("roles")  # None if the document is not a conversation
    turns = checked_turns(facts.get("turns"), all_roles) if all_roles else None
    tools = checked_tools(facts.get("tools")) if all_roles else None
    boxes = _boxes_of(facts, sample)
    groundings = facts.get("grounding")
    if not isinstance(groundings, list) or len(groundings) != count:
        groundings = [None] * count
    found: list[Entry] = []
    entries = zip(
        facts["texts"], facts["metadata"], all_roles or [""] * count, turns or [None] * count, groundings, strict=True
    )
    for text, image, role, turn, grounding in entries:
        if isinstance(text, str):
            is_call = bool(turn and turn.get("kind") == "tool_call")
            item, time = _call(text) if is_call else grounded(text, grounding, boxes), None
        elif isinstance(image, dict) and "file" in image:
            item, time = sample[_member(image, sample)], time_of(image)
        elif turn:
            raise ValueError("bad_turns")  # an empty position must not have properties
        else:
            continue
        found.append((item, role, cast(Turn | None, turn), time))
    positions, roles, kept_turns = [list(column) for column in zip(*with_videos(found), strict=True)] or [[], [], []]
    return Document(positions, roles if all_roles else None, kept_turns if any(kept_turns) else None, tools)


def _member(image: Mapping[str, Any], sample: Mapping[str, Any]) -> str:
    """Return the name of an image's member, from its entry in `metadata`."""
    return str(image["file"].removeprefix(sample["__key__"] + "."))


def _boxes_of(facts: Mapping[str, Any], sample: Mapping[str, Any]) -> dict[int, BoxedImage]:
    """Return the images of a document that have boxes, by their positions."""
    if not facts.get("grounding"):
        return {}
    images = {place: image for place, image in enumerate(facts["metadata"]) if isinstance(image, dict) and "file" in image}
    return {place: BoxedImage(sample[_member(image, sample)], image.get("boxes")) for place, image in images.items()}


def time_of(image: Mapping[str, Any]) -> float | None:
    """Return the time of a video frame in seconds, from its entry in `metadata`, or None for other images."""
    time = image.get("time_s")
    if not isinstance(time, int | float) or isinstance(time, bool) or not math.isfinite(time):
        return None
    return float(time)


def _call(text: str) -> str:
    """Return a tool call as a JSON with `name` and `arguments`. Raises ValueError if the text is not exactly one call."""
    calls = calls_of(text)
    if len(calls) != 1:
        raise Unfit("bad_tool_call")
    return calls[0]


def facts_of(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object in a sample's JSON, or an empty dict if the sample has no JSON. Raises ValueError for invalid JSON.

    If the JSON is a list of turns, return {"messages": turns}.
    """
    try:
        facts = json.loads(sample["json"]) if "json" in sample else {}
    except RecursionError as error:
        raise ValueError(str(error)) from None
    return facts if isinstance(facts, dict) else turns_alone(facts)


def is_document(facts: Mapping[str, Any], sample: Collection[str]) -> bool:
    """Return whether a sample's JSON has the aligned lists `texts` and `metadata`.

    The result is False if the sample has a caption file, because other tools may use `texts` and `metadata` for other columns.
    """
    has_lists = isinstance(facts.get("texts"), list) and isinstance(facts.get("metadata"), list)
    return has_lists and not any(name in sample for name in CAPTION_EXTENSIONS)
