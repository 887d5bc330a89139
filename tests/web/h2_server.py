"""A server that speaks only HTTP/2 over TLS and counts its connections."""

import contextlib
import socket
import ssl
import threading
from types import TracebackType

import h2.config
import h2.connection
import h2.events

from bench.inputs.certificate import Certificate

Answer = tuple[int, list[tuple[str, str]], bytes]


class H2Server:
    """A server that answers a path with (status, headers, body), and other paths with 404. A body must fit the first flow
    window, 64 KB."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers = answers
        self.certificate = Certificate("127.0.0.1")
        self.connections = 0
        self.paths: list[str] = []

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.port}{path}"

    def __enter__(self) -> "H2Server":
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(timeout=10)
        self._listener.close()  # after the thread ends: another socket may reuse the descriptor
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(timeout=10)

    def _accept(self) -> None:
        context = self.certificate.server_context()
        context.set_alpn_protocols(["h2"])
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection, context), daemon=True))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        with contextlib.suppress(OSError, ssl.SSLError), context.wrap_socket(connection, server_side=True) as secured:
            state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
            state.initiate_connection()
            secured.sendall(state.data_to_send())
            while data := secured.recv(65_536):
                for event in state.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        self._answer(state, event)
                secured.sendall(state.data_to_send())

    def _answer(self, state: h2.connection.H2Connection, event: h2.events.RequestReceived) -> None:
        path = next(str(value) for name, value in event.headers if name == ":path")
        self.paths.append(path)
        status, headers, body = self.answers.get(path, (404, [], b""))
        stream = event.stream_id or 0
        state.send_headers(stream, [(":status", str(status)), *headers], end_stream=not body)
        for start in range(0, len(body), 16_384):
            state.send_data(stream, body[start : start + 16_384], end_stream=start + 16_384 >= len(body))
