"""Errors of the server, in the form that clients of OpenAI's API expect."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """A request that is not answered. The message says in one line what is wrong with it."""

    def __init__(self, message: str, *, status: int = 400, code: str = "invalid_request") -> None:
        super().__init__(" ".join(message.split()))
        self.status, self.code = status, code

    def document(self) -> dict[str, Any]:
        """Return the body of the answer."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "code": self.code}}
