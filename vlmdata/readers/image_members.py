"""Find the image members of a tar sample by the names that a conversation in its JSON uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from vlmdata.readers.dialogue import first_of, images_of
from vlmdata.readers.source_images import image_given
from vlmdata.readers.strings import clean

# Fields of the JSON; `texts` has turns of {"user": ..., "assistant": ...}, as in The Cauldron
TURNS = ("conversations", "messages", "conversation", "texts")
IMAGES = ("image", "images")


def holds_turns(facts: Mapping[str, Any]) -> bool:
    """Say whether a sample's JSON holds a conversation: a list of objects, or an object of lists."""
    said = first_of(facts, TURNS)
    return isinstance(said, Mapping) or (isinstance(said, list) and isinstance(said[0], Mapping))


def turns_alone(said: Any) -> dict[str, Any]:
    """Return {"messages": ...} if a sample's JSON is a list of turns, or {} for any other value."""
    is_turns = (
        isinstance(said, list) and said and all(isinstance(one, Mapping) and {"role", "from"} & one.keys() for one in said)
    )
    return {"messages": said} if is_turns else {}


class Members:
    """The image members of the sample `key`, sorted by the numbers in their names."""

    def __init__(self, names: Iterable[str], key: str) -> None:
        self.names = sorted(names, key=_natural)
        self._key = key.rpartition("/")[2].lower()
        self._meant: set[str] = set()  # names in the JSON for a sample's only image

    def in_order(self, facts: Mapping[str, Any]) -> dict[str, Sequence[str]]:
        """Return {field name: member names} if the JSON lists one path for each image but the paths are not members' names.

        Such paths were written before the images were packed into the tar, so they have the order of the members. The sample
        must have several images, and the paths must differ. In any other case, return {}.
        """
        named = images_of(first_of(facts, IMAGES))
        is_paths = len(named) == len(self.names) > 1 and all(isinstance(one, str) and not _is_inline(one) for one in named)
        if not is_paths or len(set(named)) < len(named) or any(self._member(one) for one in named):
            return {}
        return {next(name for name in IMAGES if facts.get(name)): self.names}

    def find(self, where: Any) -> dict[str, Any]:
        """Return the image that an entry of the JSON gives, as `image_given` does.

        If the entry is a path or address with the name of a member, the field `member` of the result holds this name. If the
        sample has only one image, the first path or address without a member's name also means this image.
        """
        image = image_given(where, self._file)
        if "member" in image or image.get("data") is not None or not image.get("url"):
            return image
        return image | self._meaning(image["url"])

    def _file(self, name: str) -> dict[str, Any]:
        problem = f"the JSON names the image {clean(name)[:300]!r}, and the sample has no such member"
        return self._meaning(name) or {"drop": "source", "reason": "no_file", "problem": problem}

    def _meaning(self, name: str) -> dict[str, Any]:
        member = self._member(name)
        if member is None and len(self.names) == 1:
            self._meant.add(name)
            member = self.names[0] if len(self._meant) == 1 else None
        return {} if member is None else {"member": member}

    def _member(self, name: str) -> str | None:
        """Return the member with this name, or None. Folders and the sample's key before the name are ignored."""
        path = unquote(name.partition("?")[0]) if "://" in name else name
        short = path.replace("\\", "/").rpartition("/")[2].lower()
        whole = short.removeprefix(f"{self._key}.")
        return short if short in self.names else whole if whole in self.names else None


def _is_inline(where: str) -> bool:
    return image_given(where, lambda name: {}).get("data") is not None


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names by the numbers in them. A name without a number is first: `jpg`, `2.jpg`, `10.jpg`."""
    stem, _, ending = name.rpartition(".")
    parts = [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", stem) if part]
    return [*parts, (-2, ending)]
