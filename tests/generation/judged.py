"""Rows about drawn pictures whose facts are known, and a context that asks a test server about them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from tests.generation.colours import Direct
from tests.generators.chat import ChatRequest, Reply
from tests.generators.openai_server import OpenAIServer
from tests.generators.scenes import Scene
from tests.rows import document, table
from vlmdata.recipe import parse
from vlmdata.step import Step


def image_of(scene: Scene) -> dict[str, Any]:
    return {"blob": scene.key, "offset": 0, "size": len(scene.image), "sha256": scene.key}


def pair(scene: Scene, text: str | None, *alternatives: str, origins: Sequence[str | None] = ()) -> dict[str, Any]:
    """Return a caption pair. Without a text, the row has only the image."""
    row = document(image_of(scene), *([] if text is None else [text]))
    if text is not None:
        more = {"alternatives": list(alternatives) or None, "origins": list(origins) or [None] * len(alternatives) or None}
        row["texts"][1] |= more
    return row


def talk(
    scene: Scene | None, *messages: str, roles: Sequence[str] = (), turns: Sequence[str | None] | None = None
) -> dict[str, Any]:
    """Return a conversation about a picture, which is shown in the first question. By default, messages alternate."""
    roles = [*(roles or ["user", "assistant"] * (len(messages) // 2))]
    parts: list[Any] = [*messages]
    if scene:
        place = roles.index("user")
        roles.insert(place, "user")
        parts.insert(place, image_of(scene))
    return {**document(*parts), "roles": roles, "turns": turns}


def rows_of(*rows: dict[str, Any]) -> pa.Table:
    return table([{"roles": None, "turns": None, **row} for row in rows])


def context_of(scenes: Sequence[Scene]) -> Direct:
    return Direct({scene.key: scene.image for scene in scenes})


@contextlib.contextmanager
def served(answer: Callable[[ChatRequest], str | Reply], step: str, **parameters: Any) -> Iterator[tuple[Step, OpenAIServer]]:
    """Start a server that answers, and return the step of a recipe that asks it."""
    with OpenAIServer(answer) as server:
        yield made(step, server.url, **parameters), server


def made(step: str, url: str = "http://127.0.0.1:9/v1", **parameters: Any) -> Step:
    """Return a step of a recipe. The step `claims` comes before it if it needs one."""
    generator = {"openai": {"model": "tester", "url": url, "retries": 0}}
    before = [{"claims": {"generator": generator}}] if step == "check_claims" else []
    steps = [*before, {step: {"generator": generator, **parameters}}]
    *_, one = parse({"source": {"type": "url_list", "path": "urls.parquet"}, "steps": steps}).steps
    return one
