"""Conversations in tars of others: a JSON of `conversations` or `messages`, as LLaVA and OpenAI have them, beside images."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from vlmdata.intake.dialogue import first_of, images_of, laid_out, read_dialogue
from vlmdata.intake.pictures import image_given
from vlmdata.intake.tool_calls import Unfit
from vlmdata.loader.grouping import IMAGE_EXTENSIONS

TURNS = ("conversations", "messages")
IMAGES = ("image", "images")


def is_conversation(facts: Mapping[str, Any]) -> bool:
    """Say whether a sample's JSON holds turns."""
    return isinstance(first_of(facts, TURNS), list | Mapping)


def read_conversation(
    facts: Mapping[str, Any], sample: Mapping[str, Any]
) -> tuple[list[Any], list[str], list[Mapping[str, Any] | None] | None, list[Any] | None]:
    """Return positions, roles, turns and tools, as a Document has them, of a sample whose JSON holds turns.

    Placeholders and empty image parts stand for the sample's image members, in the order of the numbers in their names, unless
    the JSON names images itself: by a member's name, or as base64. Where a sample has one image, whatever path or address the
    JSON has for an image means it. Raises Unfit, with the reasons of `read_dialogue`, or `no_file`: such an image is not there.
    """
    own = _Members(sample)
    record = {**facts, **own.in_order(facts)}
    found = read_dialogue(record, TURNS, IMAGES, own.image_of, otherwise=own.pictures())
    positions, roles, turns = laid_out(found.messages)
    return positions, roles, turns, None if found.tools is None else json.loads(found.tools)


class _Members:
    """The image members of a sample, found by what its JSON calls them."""

    def __init__(self, sample: Mapping[str, Any]) -> None:
        self.sample = sample
        self.names = sorted((name for name in sample if name.rpartition(".")[2] in IMAGE_EXTENSIONS), key=_natural)
        self.key = str(sample.get("__key__", "")).rpartition("/")[2].lower()
        self.meant: set[str] = set()  # what the JSON calls a sample's only image

    def pictures(self) -> list[Any]:
        return [self.sample[name] for name in self.names]

    def in_order(self, facts: Mapping[str, Any]) -> dict[str, list[str]]:
        """Return the field of images with names of members, where it has as many others: paths from before they were packed."""
        named = images_of(first_of(facts, IMAGES))
        is_paths = len(named) == len(self.names) > 1 and all(isinstance(one, str) and not _is_inline(one) for one in named)
        if not is_paths or len(set(named)) < len(named) or any(self.member(one) for one in named):
            return {}
        return {next(name for name in IMAGES if facts.get(name)): self.names}

    def image_of(self, where: Any) -> Any:
        """Return an image that the JSON names: a member, or the bytes that base64 holds. Raises Unfit."""
        image = image_given(where, self._named)
        if image.get("reason"):
            raise Unfit(image["reason"])
        if image.get("data") is not None:
            return image["data"]
        return (image if "picture" in image else self._named(image["url"], is_sure=True))["picture"]

    def _named(self, name: str, is_sure: bool = False) -> dict[str, Any]:
        member = self.member(name)
        if member is None and len(self.names) == 1:
            self.meant.add(name)
            member = self.names[0] if len(self.meant) == 1 else None  # two names cannot both be of the only image
        if member is None and is_sure:
            raise Unfit("no_file")
        return {"reason": "no_file"} if member is None else {"picture": self.sample[member]}

    def member(self, name: str) -> str | None:
        """Return the member of this name: what follows the key, or the whole name of the file; folders do not count."""
        short = unquote(name.partition("?")[0] if "://" in name else name).replace("\\", "/").rpartition("/")[2].lower()
        whole = short.removeprefix(f"{self.key}.")
        return short if short in self.names else whole if whole in self.names else None


def _is_inline(where: str) -> bool:
    return image_given(where, lambda name: {}).get("data") is not None


def _natural(name: str) -> list[tuple[int, str]]:
    """Return what sorts names by the numbers in them: `jpg`, `2.jpg`, `10.jpg`."""
    stem, _, ending = name.rpartition(".")
    parts = [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", stem) if part]
    return [*parts, (-2, ending)]
