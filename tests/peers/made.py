"""The datasets that peers read: captions, documents and chats with real pictures in several formats and odd sizes.

`rare_captions`, `rare_documents` and `rare_chats` have a sample for each format of pictures, with a picture that is only drawn.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tests.exporting.made import Made, key_of, make_dataset
from tests.peers.rare_pictures import rare_pictures
from vlmdata.demo.recipe import HERE
from vlmdata.readers.dialogue import Marked, Message, laid_out

PER_SHARD = 11
UNUSUAL = [
    "naïve café – “quoted” ‘text’, 50 % off; a\ttab",
    "猫が窓辺で眠っている。\n二行目です。",
    "صورة لقطة على النافذة",
    "👩‍🔬🏳️‍🌈 emoji with joiners, e\u0301 and é",
    '{"json": "in a caption"}, <b>tags</b> & \\backslashes\\ "quotes"',
    "a caption that is long. " * 400,
]
U, S, T, X = "user", "assistant", "system", "tool"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
CALL = json.dumps({"name": "weather", "arguments": {"city": "Zürich"}}, ensure_ascii=False)


def encoded(image: Image.Image, kind: str) -> bytes:
    """Return an image as a file of this kind."""
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def pictures() -> list[tuple[bytes, str]]:
    """Return (file, caption) of the demo's figures. Some files are PNG or WebP, grey, with alpha, or have odd sizes."""
    lines = (HERE / "figures.jsonl").read_text(encoding="utf-8").splitlines()[::3][:44]
    found = []
    for number, line in enumerate(lines):
        figure = json.loads(line)
        data = (HERE / "figures" / figure["file"]).read_bytes()
        change = CHANGES.get(number % 11)
        with Image.open(io.BytesIO(data)) as image:
            data = change(image) if change else data
        found.append((data, UNUSUAL[number // 5] if number % 5 == 2 and number // 5 < len(UNUSUAL) else figure["caption"]))
    return found


CHANGES: dict[int, Callable[[Image.Image], bytes]] = {  # by the last digits of a picture's number
    1: lambda image: encoded(image.convert("RGB"), "PNG"),
    3: lambda image: encoded(image.convert("RGB"), "WEBP"),
    5: lambda image: encoded(image.convert("L"), "JPEG"),
    6: lambda image: encoded(image.convert("RGBA"), "PNG"),
    7: lambda image: encoded(image.convert("RGB").resize((301, 33)), "JPEG"),
    8: lambda image: encoded(image.convert("P"), "PNG"),
    9: lambda image: encoded(image.convert("RGB").resize((29, 173)), "PNG"),
}


def kind_of(data: bytes) -> tuple[str, int, int]:
    """Return an image's extension, width and height."""
    with Image.open(io.BytesIO(data)) as image:
        name = str(image.format).lower()
        return {"jpeg": "jpg"}.get(name, name), image.width, image.height


def captions(found: Sequence[tuple[bytes, str]] | None = None) -> Iterator[Made]:
    """Yield caption pairs of `found`, which are (file, caption), or of the demo's figures."""
    for number, (data, text) in enumerate(pictures() if found is None else found):
        key, (extension, width, height) = key_of(number), kind_of(data)
        facts = {"key": key, "url": f"https://example.org/{number}.{extension}", "caption": text, "width": width}
        facts |= {"height": height, "original_width": width, "original_height": height, "scores": {"clip_score": number / 100}}
        facts |= {"sha256": hashlib.sha256(data).hexdigest(), "book": None if number % 3 else "a book"}
        yield key, {extension: data, "json": json.dumps(facts).encode(), "txt": text.encode()}


def aligned(number: int, parts: Sequence[str | bytes], **facts: Any) -> Made:
    """Return a document. A text is a part, and so are the bytes of an image."""
    key, members, metadata = key_of(number), dict[str, bytes](), list[dict[str, Any] | None]()
    for part in parts:
        if isinstance(part, str):
            metadata.append(None)
            continue
        extension, width, height = kind_of(part)
        name = f"{len(members)}.{extension}"
        members[name] = part
        metadata.append({"file": name, "alt": "a figure", "width": width, "height": height})
    lists = {
        "texts": [part if isinstance(part, str) else None for part in parts],
        "images": [entry and f"https://example.org/{number}/{entry['file']}" for entry in metadata],
        "metadata": metadata,
        "files": [entry and f"{key}.{entry['file']}" for entry in metadata],
    }
    record = {"key": key, "url": f"https://example.org/{number}", **lists, "scores": {}, **facts}
    return key, {**members, "json": json.dumps(record).encode()}


def documents() -> Iterator[Made]:
    """Yield documents: images before, between and after texts, several in a row, more than nine, and none at all."""
    found = itertools.cycle(pictures())
    shapes = ["ti", "it", "tit", "iit", "tii", "titit", "itiit", "ttit", "i", "t", "tt", "ii", "iiiiiiiiiiit", "tittti"]
    for number, shape in enumerate(shapes * 3):
        parts: list[str | bytes] = []
        for letter in shape:
            data, text = next(found)
            parts.append(text if letter == "t" else data)
        yield aligned(number, parts, general={"title": UNUSUAL[number % 6][:40]} if number % 2 else None)


def chats() -> Iterator[Made]:
    """Yield conversations: of one image and of several, with system turns, tools and reasoning, and in unusual orders."""
    found = itertools.cycle(pictures())

    def image() -> bytes:
        return next(found)[0]

    talks = [[said(U, data, "Describe the picture."), said(S, text)] for data, text in pictures()[:18]]
    for text in UNUSUAL:
        first, second = said(U, "Which?\n", image(), image()), said(S, "The first.")
        talks.append([said(T, "You are precise."), first, second, said(U, "Why?"), said(S, text)])
    for number, messages in enumerate([*talks, *usual(image), *unusual(image)]):
        parts, roles, turns = laid_out(messages)
        texts = [part.text if isinstance(part, Marked) else part for part in parts]
        own = {"turns": turns} if turns else {}
        offered = {"tools": TOOLS} if any(isinstance(text, str) and "eather" in text for text in texts) else {}
        yield aligned(number, texts, roles=roles, **own, **offered, **({"id": number} if number % 2 else {}))


def said(role: str, *parts: Any, **own: Any) -> Message:
    """Return the message of one speaker. A part is a text, the bytes of an image, or a `Marked` text."""
    return Message(role, list(parts), own)


def usual(image: Callable[[], bytes]) -> list[list[Message]]:
    """Return conversations that begin with a user and in which user and assistant take turns."""
    call, think = Marked("tool_call", CALL), Marked("reasoning", "I count two.")
    return [
        [said(U, "No image."), said(S, "Right."), said(U, "Still none?"), said(S, "None.")],
        [said(U, image(), "before", image(), "between", image()), said(S, "All three.")],
        [said(U, "Hello."), said(S, "Hi."), said(U, "And this?", image()), said(S, "A figure.")],
        [said(T, "A system turn."), said(U, "Describe.", image()), said(S, "Done.")],
        [said(U, image(), "Weather there?"), said(S, call), said(X, "12 °C"), said(S, "12 degrees.")],
        [said(T, "Use tools."), said(U, "Weather of both?", image()), said(S, call, call), said(X, "12 °C"), said(S, "12.")],
        [said(U, "Weather tools are there."), said(S, "But not used.")],
        [said(U, image(), "How many?"), said(S, think, "Two.")],
        [said(U, "a"), said(S, "b", train=False), said(U, "c"), said(S, "d")],
        [said(U, image(), "Not trained."), said(S, "Neither.", train=False)],
    ]


def unusual(image: Callable[[], bytes]) -> list[list[Message]]:
    """Return conversations that some libraries refuse or change."""
    call = Marked("tool_call", CALL)
    return [
        [said(U, "one", image()), said(U, "two"), said(S, "answer")],
        [said(S, "Hello, I begin."), said(U, image(), "What is it?"), said(S, "A figure.")],
        [said(U, image(), "What?"), said(S, "A figure."), said(U, "Thank you.")],
        [said(U, image(), "What?"), said(S, "A figure."), said(T, "In French."), said(U, "Why?"), said(S, "Parce que.")],
        [said(U, "Draw it."), said(S, "Here:", image())],
        [said(U, image(), "What does <image> mean?"), said(S, "A tag.")],
        [said(U, image(), "What does <video> mean?"), said(S, "A tag, like <audio>.")],
        [said(U, "a", "two texts of one turn"), said(S, "c")],
        [said(U, image(), "An answer in two messages."), said(S, "first"), said(S, "second")],
        [said(U, image(), "Weather?"), said(S, call), said(X, "12 °C")],
        [said(U, "Weather of both?"), said(S, call, call), said(X, "12 °C"), said(X, "9 °C"), said(S, "12 and 9.")],
        [said(U, image(), "Weather?"), said(S, "Looking.", call), said(X, "9 °C"), said(S, "9.")],
        [said(U, image(), "An empty answer."), said(S, "")],
        [said(T, "First."), said(T, "Second."), said(U, image(), "?"), said(S, "!")],
    ]


def rare_documents() -> Iterator[Made]:
    """Yield a document of each rare picture."""
    for number, (data, name) in enumerate(rare_pictures()):
        yield aligned(number, [f"before the {name}", data, "after it"])


def rare_chats() -> Iterator[Made]:
    """Yield a conversation about each rare picture."""
    for number, (data, name) in enumerate(rare_pictures()):
        yield aligned(number, [data, "Which format is it?", name], roles=[U, U, S])


DATA: dict[str, tuple[str, Callable[[], Iterable[Made]]]] = {  # dataset -> kind of its samples, and what makes them
    "captions": ("captions", captions),
    "documents": ("documents", documents),
    "chats": ("conversations", chats),
    "rare_captions": ("captions", lambda: captions(rare_pictures())),
    "rare_documents": ("documents", rare_documents),
    "rare_chats": ("conversations", rare_chats),
}


def samples_of(data: str) -> list[Made]:
    """Return the samples of the dataset `data`."""
    return list(DATA[data][1]())


def make(data: str, out: Path) -> None:
    """Write the dataset `data`."""
    make_dataset(out, samples_of(data), layout="captions" if DATA[data][0] == "captions" else "documents", per_shard=PER_SHARD)


def expected(sample: Made) -> dict[str, Any]:
    """Return the line of EXPECTED for a sample."""
    key, members = sample
    facts = json.loads(members["json"])
    if "txt" in members:
        image = next(data for name, data in members.items() if name not in ("json", "txt"))
        return _line(key, [members["txt"].decode()], None, [image], "captions")
    images = [members[place["file"]] for place in facts["metadata"] if place]
    texts = [text for text in facts["texts"] if text is not None]
    if "roles" not in facts:
        return _line(key, texts, None, images, "documents")
    roles = [role for role, text in zip(facts["roles"], facts["texts"], strict=True) if text is not None]
    return _line(key, texts, roles, images, "conversations")


def _line(key: str, texts: list[str], roles: list[str] | None, images: list[bytes], kind: str) -> dict[str, Any]:
    hashes = [hashlib.sha256(data).hexdigest() for data in images]
    return {"key": key, "texts": texts, "roles": roles, "images": hashes, "kind": kind}
