"""Read conversations from other tools' tars: images, and a JSON with `conversations` (LLaVA) or `messages` (OpenAI)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from vlmdata.images.formats import IMAGE_EXTENSIONS
from vlmdata.readers.dialogue import laid_out, read_dialogue
from vlmdata.readers.image_members import IMAGES, TURNS, Members
from vlmdata.readers.tool_calls import Unfit
from vlmdata_train.data.document import Document, Turn


def read_conversation(facts: Mapping[str, Any], sample: Mapping[str, Any]) -> Document:
    """Return the document of a sample whose JSON holds the turns of a conversation.

    The JSON may contain the images as base64, or name image files of the sample. If it does neither, the image placeholders in
    the text and the empty image parts refer to the sample's image files, in the order of the numbers in the files' names.
    Raises `Unfit`, a ValueError, if the sample cannot be used. The error's text is the reason: a reason of `read_dialogue`, or
    `no_file` if the sample lacks an image that the JSON names.
    """
    own = Members((name for name in sample if name.rpartition(".")[2] in IMAGE_EXTENSIONS), str(sample.get("__key__", "")))

    def picture(where: Any) -> Any:
        image = own.find(where)
        if "member" in image:
            return sample[image["member"]]
        if image.get("reason") or image.get("data") is None:
            raise Unfit(image.get("reason") or "no_file")
        return image["data"]

    record = {**facts, **own.in_order(facts)}
    found = read_dialogue(record, TURNS, IMAGES, picture, otherwise=[sample[name] for name in own.names])
    positions, roles, turns = laid_out(found.messages)
    tools = None if found.tools is None else json.loads(found.tools)
    return Document(positions, roles, cast(list[Turn | None] | None, turns), tools)
