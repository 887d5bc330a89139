"""A stand-in for the Hugging Face Hub on the loopback address, with the requests that the Hub's own client sends.

It keeps commits, branches and files in memory, checks the SHA-256 of each upload, and offers uploads by Git LFS, not by Xet.
It is no model of the Hub's quotas or rights.

    with HubServer() as hub:
        hub.fail("POST", "/commit/", 500)  # the next such request
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN, READER = "hf_writer", "hf_reader"  # tokens that the stand-in knows
REPO = r"/api/datasets/(?P<repo>[^/]+/[^/]+)"
LARGE = (".tar", ".parquet", ".arrow")
Answer = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True)
class Stored:
    """A file of a commit."""

    data: bytes
    is_lfs: bool

    @property
    def oid(self) -> str:
        """The id by which the client recognizes an unchanged file: SHA-256 of a large file, git's SHA-1 of a small one."""
        if self.is_lfs:
            return hashlib.sha256(self.data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


@dataclass
class Repo:
    private: bool
    commits: dict[str, dict[str, Stored]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)  # of the commits that clients made, in order

    def commit(self, branch: str, files: dict[str, Stored]) -> str:
        oid = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)


@dataclass
class Fault:
    method: str
    part: str  # of the path
    answer: Callable[[BaseHTTPRequestHandler], Answer | None]  # None: the connection was cut
    is_done: bool  # the request is done before
    times: int


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode()


def refusal(status: int, message: str, code: str = "") -> Answer:
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return json_answer({"error": message}, status, headers)


class HubServer:
    """The server, which runs inside `with`. `requests` has the method and path of every request, in order."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}  # uploaded large files by SHA-256, also those without a commit
        self.requests: list[tuple[str, str]] = []
        self.tokens: set[str] = set()  # that were sent
        self._faults: list[Fault] = []
        self._lock = threading.RLock()

    def __enter__(self) -> HubServer:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _serve(self) -> None:
                with contextlib.suppress(ConnectionError):
                    hub.serve(self)

            do_GET = do_HEAD = do_POST = do_PUT = _serve

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """Return the files of a branch or commit."""
        found = self.repos[repo]
        return {name: one.data for name, one in found.commits[found.resolve(revision) or ""].items()}

    def uploads(self) -> list[str]:
        """Return the SHA-256 of each large file that was sent, in order."""
        return [path.rpartition("/")[2] for method, path in self.requests if method == "PUT"]

    def fail(
        self, method: str, part: str, status: int, *, message: str = "no", times: int = 1, is_done: bool = False, **headers: str
    ) -> None:
        """Answer the next requests with this method, and this text in their path, with an error.

        With `is_done`, do what the requests ask for before.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        def answer(_: BaseHTTPRequestHandler) -> Answer:
            code, found, body = refusal(status, message)
            return code, {**found, **named}, body

        self._faults.append(Fault(method, part, answer, is_done, times))

    def lose_answer(self, method: str, part: str, *, times: int = 1) -> None:
        """Do what the next such requests ask for, but end their connections without an answer."""
        self._faults.append(Fault(method, part, reset, True, times))

    def cut(self, method: str, part: str, *, times: int = 1, before: Callable[[], None] = lambda: None) -> None:
        """End the connection of the next such requests with RST, after calling `before`."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            before()
            reset(handler)

        self._faults.append(Fault(method, part, answer, False, times))

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0)) if handler.command != "HEAD" else b""
        if handler.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(chunks(handler))
        with self._lock:
            self.requests.append((handler.command, handler.path))
            fault = next((f for f in self._faults if f.times and f.method == handler.command and f.part in handler.path), None)
            if fault:
                fault.times -= 1
        found = None
        if fault is None or fault.is_done:
            with self._lock:
                found = self._answer(handler, body)
        if fault:
            found = fault.answer(handler)
        if found is None:
            handler.connection.close()
            return
        status, headers, data = found
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data)

    def _answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> Answer:
        method, address = handler.command, urlsplit(handler.path)
        path = unquote(address.path)
        if method == "PUT" and path.startswith("/lfs/"):
            return self._put(path.rpartition("/")[2], body)
        token = (handler.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.tokens.add(token)
        if path == "/api/validate-yaml":
            return validated(json.loads(body)["content"])
        if token not in (TOKEN, READER):
            return refusal(401, "Invalid username or password.")
        if token == READER and method == "POST" and "/paths-info/" not in path:
            return refusal(403, "You don't have the rights to create a dataset under this namespace")
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/lfs/verify":
            return json_answer({}) if json.loads(body)["oid"] in self.blobs else refusal(404, "not uploaded")
        if match := re.fullmatch(r"/datasets/(.+)\.git/info/lfs/objects/batch", path):
            return self._batch(json.loads(body))
        if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(*match.groups())
        if match := re.fullmatch(REPO + r"(?:/(?P<verb>[a-z-]+)/(?P<revision>[^/]+))?(?P<rest>/.*)?", path):
            if match["verb"] == "tree":
                is_recursive = parse_qs(address.query).get("recursive") == ["true"]
                return self._tree(match["repo"], match["revision"], (match["rest"] or "").strip("/"), is_recursive)
            return self._of_repo(method, match["repo"], match["verb"] or "", match["revision"] or "main", body)
        return refusal(404, f"the stand-in does not know {method} {path}")

    def _create(self, wanted: dict[str, Any]) -> Answer:
        assert wanted["type"] == "dataset", wanted
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.repos:
            url = f"{self.url}/datasets/{name}"
            return json_answer({"error": "You already created this dataset repo", "url": url}, 409)
        self.repos[name] = repo = Repo(wanted.get("visibility") == "private" or bool(wanted.get("private")))
        repo.commit("main", {".gitattributes": Stored(b"*.tar filter=lfs\n", False)})
        return json_answer({"url": f"{self.url}/datasets/{name}", "name": name, "id": name})

    def _of_repo(self, method: str, name: str, verb: str, revision: str, body: bytes) -> Answer:
        repo = self.repos.get(name)
        if repo is None:
            return refusal(404, "Repository not found", "RepoNotFound")
        if verb == "branch":
            if revision in repo.branches:
                return refusal(409, "Reference already exists")
            repo.branches[revision] = repo.branches["main"]
            return json_answer({})
        head = repo.resolve(revision)
        if head is None:
            return refusal(404, "Invalid rev id", "RevisionNotFound")
        files = repo.commits[head]
        match method, verb:
            case "GET", "" | "revision":
                siblings = [{"rfilename": path} for path in files]
                facts = {"id": name, "sha": head, "private": repo.private, "siblings": siblings, "tags": [], "downloads": 0}
                return json_answer({**facts, "likes": 0, "lastModified": "2026-01-01T00:00:00.000Z"})
            case "POST", "paths-info":
                wanted = json.loads(body)["paths"] if body[:1] == b"{" else parse_qs(body.decode()).get("paths", [])
                return json_answer([described(path, files[path]) for path in wanted if path in files])
            case "POST", "preupload":
                return json_answer({"files": [mode(one, files) for one in json.loads(body)["files"]]})
            case "POST", "commit":
                return self._commit(name, repo, revision, head, body)
        return refusal(404, f"the stand-in does not know {method} {verb}")

    def _tree(self, name: str, revision: str, folder: str, is_recursive: bool) -> Answer:
        """Return the files and folders in a folder; with `is_recursive`, all files below it."""
        repo = self.repos.get(name)
        head = repo.resolve(revision) if repo else None
        if repo is None or head is None:
            return refusal(404, "Invalid rev id", "RevisionNotFound")
        found: dict[str, Any] = {}
        start = f"{folder}/" if folder else ""
        for path, one in sorted(repo.commits[head].items()):
            first, slash, _ = path.removeprefix(start).partition("/")
            if not path.startswith(start):
                continue
            if slash and not is_recursive:
                found[start + first] = {"type": "directory", "path": start + first, "size": 0, "oid": "0" * 40}
            else:
                found[path] = described(path, one)
        return json_answer(list(found.values())) if found else refusal(404, "Entry not found", "EntryNotFound")

    def _batch(self, wanted: dict[str, Any]) -> Answer:
        assert "xet" not in wanted["transfers"], "the stand-in offers no Xet"
        actions = {"verify": {"href": f"{self.url}/lfs/verify"}}
        objects = []
        for one in wanted["objects"]:
            action = {"actions": {"upload": {"href": f"{self.url}/lfs/{one['oid']}"}, **actions}}
            objects.append({**one, **({} if one["oid"] in self.blobs else action)})
        return json_answer({"transfer": "basic", "objects": objects})

    def _put(self, oid: str, body: bytes) -> Answer:
        if hashlib.sha256(body).hexdigest() != oid:
            return refusal(400, "the SHA-256 of the upload differs")
        self.blobs[oid] = body
        return 200, {}, b""

    def _commit(self, name: str, repo: Repo, revision: str, head: str, body: bytes) -> Answer:
        files = dict(repo.commits[head])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            match line["key"]:
                case "header":
                    if value.get("parentCommit") not in (None, head):
                        return refusal(412, "A commit has happened since. Please refresh and try again.")
                    message = value["summary"]
                case "file":
                    files[value["path"]] = Stored(base64.b64decode(value["content"]), False)
                case "lfsFile":
                    if len(self.blobs.get(value["oid"], b"")) != value["size"]:
                        return refusal(400, f"the large file {value['path']} was not uploaded")
                    files[value["path"]] = Stored(self.blobs[value["oid"]], True)
                case "deletedFile":
                    if files.pop(value["path"], None) is None:
                        return refusal(404, "A file with this name doesn't exist", "EntryNotFound")
        oid = repo.commit(revision, files)
        repo.messages.append(message)
        return json_answer({"success": True, "commitOid": oid, "commitUrl": f"{self.url}/datasets/{name}/commit/{oid}"})

    def _resolve(self, name: str, revision: str, path: str) -> Answer:
        repo = self.repos.get(name)
        head = repo.resolve(revision) if repo else None
        if repo is None or head is None or path not in repo.commits[head]:
            return refusal(404, "Entry not found", "EntryNotFound")
        one = repo.commits[head][path]
        headers = {"ETag": f'"{one.oid}"', "X-Repo-Commit": head, "Accept-Ranges": "bytes"}
        return 200, headers, one.data


def reset(handler: BaseHTTPRequestHandler) -> None:
    """End the connection with RST."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def chunks(handler: BaseHTTPRequestHandler) -> Iterator[bytes]:
    """Yield the parts of a body that was sent without a length."""
    while size := int(handler.rfile.readline().split(b";")[0], 16):
        yield handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()


def described(path: str, one: Stored) -> dict[str, Any]:
    """Return a file as the Hub lists it."""
    if one.is_lfs:
        large = {"lfs": {"oid": one.oid, "size": len(one.data), "pointerSize": 130}}
        return {"type": "file", "path": path, "size": len(one.data), "oid": hashlib.sha1(one.data).hexdigest(), **large}
    return {"type": "file", "path": path, "size": len(one.data), "oid": one.oid}


def mode(wanted: dict[str, Any], files: dict[str, Stored]) -> dict[str, Any]:
    """Return how the client should send a file."""
    here = files.get(wanted["path"])
    way = "lfs" if wanted["path"].endswith(LARGE) or wanted["size"] > 10 << 20 else "regular"
    return {"path": wanted["path"], "uploadMode": way, "shouldIgnore": False, "oid": here.oid if here else None}


def validated(card: str) -> Answer:
    """Return the answer about the metadata of a card: only its form is checked."""
    head = yaml.safe_load(card.split("---\n")[1]) if card.startswith("---\n") else {}
    lists = [name for name in ("task_categories", "size_categories", "tags") if not isinstance(head.get(name, []), list)]
    found = [{"message": f"{name} must be a list"} for name in lists]
    return json_answer({"errors": found, "warnings": []}, 400 if found else 200)
