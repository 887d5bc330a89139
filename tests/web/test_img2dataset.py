"""img2dataset is used as the engine of `download`, with its code and bytes, and with vlmdata's outcomes and address guard."""

import json
import subprocess
import sys
import tarfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.inputs.certificate import Certificate
from tests.engine.site import manifest, picture
from tests.servers import LoopbackServer, drip, head, in_turn, raw, redirect, reply
from tests.web.ask import wait_until
from vlmdata.build import run
from vlmdata.recipe import parse
from vlmdata.step import RecipeError
from vlmdata.web.img2dataset_download import Fetcher, outcome_of
from vlmdata.web.options import WebOptions
from vlmdata.web.outcomes import is_passing

pytestmark = [pytest.mark.whole, pytest.mark.skipif(find_spec("img2dataset") is None, reason="img2dataset is not installed")]

FIGURES = sorted((Path(__file__).parents[2] / "vlmdata/demo/figures").glob("*.jpg"))[:12]
FREE = {"engine": "img2dataset", "robots": False, "tdm": False, "host_connections": 0, "host_requests_per_s": 0}
PEER = "import img2dataset, json, sys; img2dataset.download(**json.loads(sys.argv[1]))"


@pytest.fixture(autouse=True)
def own_opener(monkeypatch):
    """Restore urllib's opener, which a Fetcher replaces for the whole process."""
    monkeypatch.setattr("urllib.request._opener", None)


def recipe(listing: Path, resize: dict, **download) -> dict:
    patient = {"allowed_hosts": ["127.0.0.1"], "timeout_s": 300, "connect_timeout_s": 300}
    steps = [{"download": {**FREE, **patient, **download}}, {"resize": resize}]
    return {"source": {"type": "url_list", "path": str(listing)}, "steps": steps, "part_rows": 5}


def write_list(folder: Path, urls: list[str]) -> Path:
    path = folder / "urls.parquet"
    pq.write_table(pa.table({"url": urls, "caption": [f"picture {n}" for n in range(len(urls))]}), path)
    return path


def ours(out: Path) -> dict[str, bytes]:
    """Return the stored image of each address."""
    found = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}
        for name, body in members.items():
            if not name.endswith((".json", ".txt")):
                found[json.loads(members[name.rsplit(".", 1)[0] + ".json"])["url"]] = body
    return found


def theirs(folder: Path, listing: Path, **options) -> dict[str, bytes]:
    options = {"url_list": str(listing), "output_folder": str(folder), "input_format": "parquet", **options}
    options |= {"url_col": "url", "caption_col": "caption", "output_format": "parquet", "processes_count": 1, "timeout": 300}
    code = f"if __name__ == '__main__':\n    {PEER}"
    done = subprocess.run([sys.executable, "-c", code, json.dumps(options)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    column = options.get("encode_format", "jpg")
    rows = pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*.parquet"))]).to_pylist()
    return {row["url"]: row[column] for row in rows if row["status"] == "success"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resize", "options"),
    [
        ({"mode": "border", "size": 256}, {"resize_mode": "border", "image_size": 256}),
        (
            {"mode": "keep_ratio_largest", "size": 200, "only_if_bigger": True, "skip_reencode": True},
            {"resize_mode": "keep_ratio_largest", "image_size": 200, "resize_only_if_bigger": True, "skip_reencode": True},
        ),
        (
            {"mode": "center_crop", "size": 300, "format": "webp", "quality": 80},
            {"resize_mode": "center_crop", "image_size": 300, "encode_format": "webp", "encode_quality": 80},
        ),
    ],
)
def test_the_bytes_equal_those_that_img2dataset_writes(tmp_path, resize, options):
    with LoopbackServer({f"/{n}.jpg": reply(path.read_bytes()) for n, path in enumerate(FIGURES)}) as server:
        listing = write_list(tmp_path, [server.url(f"/{n}.jpg") for n in range(len(FIGURES))])
        run(parse(recipe(listing, resize)), tmp_path / "ours", local=True, workers=1)
        mine = ours(tmp_path / "ours")
        peer = theirs(tmp_path / "theirs", listing, **options)
    assert len(mine) == len(FIGURES) and mine == peer


def test_every_failure_is_an_outcome_and_no_private_address_is_reached(tmp_path):
    body = picture(1)
    with LoopbackServer(default=reply(body), host="127.0.0.2") as private:
        routes = {
            "/good": reply(body),
            "/noai": reply(body, headers={"X-Robots-Tag": "noai"}),
            "/busy": in_turn(reply(b"", 503)),
            "/again": in_turn(reply(b"", 500), reply(picture(2))),
            "/to-private": redirect(private.url("/x")),
            "/to-file": redirect("file:///etc/hostname"),
            "/loop": redirect("/loop"),
            "/short": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nabc"),
            "/empty": reply(b""),
            "/no-http": raw(b"hello\r\n\r\n"),
            "/text": reply(b"<html>sorry</html>"),
        }
        with LoopbackServer(routes) as server:
            urls = [server.url(path) for path in [*routes, "/missing"]]
            urls += [private.url("/y"), "file:///etc/hostname", "http://blocked.example/a", "http://127.0.0.1:1/"]
            listing = write_list(tmp_path, urls)
            changes = {"retries": 1, "blocked_domains": ["blocked.example"]}
            run(parse(recipe(listing, {"mode": "border", "size": 64}, **changes)), tmp_path / "out", local=True, workers=1)
        assert private.requests == []
    dropped = {line["reason"]: line["rows"] for line in manifest(tmp_path / "out")["dropped"]}
    assert dropped == {
        "opted_out": 1,
        "http_503": 1,
        "private_address": 2,
        "bad_redirect": 1,
        "too_many_redirects": 1,
        "truncated_body": 1,
        "empty_body": 1,
        "bad_response": 1,
        "not_an_image": 1,
        "http_404": 1,
        "bad_url": 1,
        "blocked": 1,
        "connect_failed": 1,
    }
    assert manifest(tmp_path / "out")["kept"] == 2


def trickle(request, wire):
    """Answer without a length and never end."""
    wire.send(head(200))
    while True:
        wire.send(b"x")
        time.sleep(0.05)


class Timer:
    """A timer that fires when the test calls it."""

    running: ClassVar[dict["Timer", float]] = {}

    def __init__(self, seconds, ring):
        self.seconds, self.ring = seconds, ring

    def start(self):
        self.running[self] = self.seconds

    def cancel(self):
        del self.running[self]


@pytest.mark.parametrize("certificate", [None, Certificate("127.0.0.1")], ids=["plain", "tls"])
def test_a_slow_server_times_out_with_and_without_tls(monkeypatch, certificate):
    monkeypatch.setattr("vlmdata.web.img2dataset_download.Timer", Timer)
    body = picture(1)
    routes = {"/slow": drip(body * 1000), "/endless": trickle, "/good": reply(body)}
    with LoopbackServer(routes, tls=certificate) as server:
        trusted = str(certificate.file) if certificate else ""
        options = WebOptions(connections=3, allowed_hosts=("127.0.0.1",), retries=1, timeout_s=150.0, ca_file=trusted)
        fetcher = Fetcher(options)
        answers = fetcher.fetch({number: server.url(path) for number, path in enumerate(routes)})
        assert next(answers) == (2, body, None)  # no other timer fires
        wait_until(lambda: {"/slow", "/endless"} <= set(server.paths()))
        assert list(Timer.running.values()) == [300.0] * 2
        for timer in list(Timer.running):
            timer.ring()
        assert sorted(answers) == [(0, None, "timeout"), (1, None, "timeout")]
        fetcher.close()
    assert not Timer.running


def test_an_abandoned_fetch_leaves_no_thread_blocked():
    with LoopbackServer(default=reply(b"x")) as server:
        fetcher = Fetcher(WebOptions(connections=2, allowed_hosts=("127.0.0.1",)))
        answers = fetcher.fetch({number: server.url(f"/{number}") for number in range(50)})
        assert next(answers)[1] == b"x"
        answers.close()
        fetcher.close()  # would block forever if the feeder blocked


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        ("<urlopen error timed out>", "timeout"),
        ("The read operation timed out", "timeout"),
        ("<urlopen error [Errno -2] Name or service not known>", "dns_failed"),
        ("<urlopen error [Errno -3] Temporary failure in name resolution>", "dns_temporary"),
        ("<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed>", "tls_failed"),
        ("[Errno 104] Connection reset by peer", "reset"),
        ("HTTP Error 429: Too Many Requests", "http_429"),
        ("something new", "bad_response"),
    ],
)
def test_errors_of_img2dataset_become_outcomes(message, outcome):
    assert outcome_of(message) == outcome
    is_passing(outcome)  # raises for an unknown name


def test_a_recipe_must_turn_off_options_that_img2dataset_does_not_support():
    def checked(**download):
        tree = {"source": {"type": "url_list", "path": "a"}, "steps": [{"download": {"engine": "img2dataset", **download}}]}
        parse(tree).steps[0].check()

    free = {name: value for name, value in FREE.items() if name != "engine"}
    checked(**free)
    with pytest.raises(RecipeError, match="set robots: false, tdm: false, host_connections: 0, host_requests_per_s: 0"):
        checked()
    with pytest.raises(RecipeError, match="does not support max_bytes, proxy"):
        checked(**free, max_bytes=5, proxy="http://127.0.0.1:8080")
