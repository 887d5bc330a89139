"""A web server on the loopback address that serves a folder. Some addresses fail, as on the real web."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

TROUBLE = {"/forbidden.jpg": 403, "/gone.jpg": 410, "/broken.jpg": 500}


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # with keep-alive

    def do_GET(self) -> None:
        if self.path in TROUBLE:
            self.send_error(TROUBLE[self.path])
        elif self.path == "/page.jpg":
            self._answer(b"<!doctype html><title>Not a picture</title>", "image/jpeg")
        elif self.path == "/moved.jpg":
            self.send_response(301)
            self.send_header("Location", "/absent.jpg")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path == "/optout.jpg":
            self._answer(b"\xff\xd8", "image/jpeg", ("X-Robots-Tag", "noai"))
        else:
            super().do_GET()

    def _answer(self, body: bytes, kind: str, *headers: tuple[str, str]) -> None:
        self.send_response(200)
        for name, value in [("Content-Type", kind), ("Content-Length", str(len(body))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # with the default of 5, a client with more connections waits for seconds

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that disconnects needs no message


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder during the `with` block. Yields the server's address, such as http://127.0.0.1:8123."""
    server = _Server(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
