"""A dataset in a bucket has complete objects and records created only once, and equals a dataset in a folder byte for byte."""

import hashlib
import itertools
import subprocess
import sys
import threading

import pytest

from tests.buckets import bucket, names, objects
from tests.engine.site import hashes, site
from vlmdata import run, stream
from vlmdata.audit import audit
from vlmdata.engine.store.open_store import open_store
from vlmdata.explain import why
from vlmdata.loader.stream import ReadOptions
from vlmdata.step import RecipeError
from vlmdata.takedown import forget

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def data():
    with bucket() as address:
        yield address


def published(address: str) -> dict[str, str]:
    found = objects(address)
    return {name: hashlib.sha256(body).hexdigest() for name, body in found.items() if not name.startswith("work/")}


def test_a_record_is_created_only_once_and_files_are_replaced_atomically(data):
    store = open_store(f"{data}/records")
    assert store.put_new("work/a.json", b"first") and not store.put_new("work/a.json", b"second")
    assert store.read("work/a.json") == b"first" and store.list("work") == ["work/a.json"]
    store.put("b", b"0123456789")
    store.put("b", b"9876543210")
    store.erase("b", [(2, 3)])
    assert store.read("b") == b"98\0\0\x003210"[:2] + bytes(3) + b"43210"
    assert store.read_range("b", 8, 2) == b"10" and store.size("b") == 10
    store.publish("b", "c")
    store.delete("b")
    store.delete("b")
    assert store.list("") == ["c"] and store.folders("") == ["work"]
    with pytest.raises(FileNotFoundError):
        store.read("b")


def test_a_large_file_uploaded_in_parts_appears_complete_or_not_at_all(data):
    store = open_store(f"{data}/large")
    block = bytes(range(256)) * 4096
    with store.new_file("work/whole") as file:
        for _ in range(70):
            file.write(block)
    assert store.size("work/whole") == 70 * len(block)
    with pytest.raises(RuntimeError), store.new_file("work/broken") as file:
        file.write(block)
        raise RuntimeError
    assert store.list("work") == ["work/whole"]
    store.publish("work/whole", "copy")
    assert store.size("copy") == 70 * len(block)


def test_a_store_that_ignores_conditional_writes_is_refused():
    with bucket(lambda request: request.pop("HTTP_IF_NONE_MATCH", None)) as careless:
        with pytest.raises(RecipeError, match="lets a second writer replace a file"):
            open_store(f"{careless}/out")
        assert names(careless) == []


def test_an_uploader_killed_between_two_parts_leaves_no_object():
    parts, begun = [], threading.Event()
    code = "import sys; from vlmdata.engine.store.open_store import open_store\n"
    code += "with open_store(sys.argv[1]).new_file('a') as file: file.truncate(1 << 28)"

    def see(request):
        if "partNumber=" in request["QUERY_STRING"]:
            parts.append(request["QUERY_STRING"])
            if len(parts) > 1:
                begun.wait()
                uploader.kill()

    with bucket(see) as data:
        uploader = subprocess.Popen([sys.executable, "-c", code, f"{data}/out"])
        begun.set()
        assert uploader.wait() < 0 and len(parts) >= 2
        assert "out/a" not in names(data)


def test_a_run_into_a_bucket_gives_the_bytes_of_a_run_into_a_folder(data, tmp_path):
    with site(tmp_path, 48, samples=10) as web:
        run(web.recipe, tmp_path / "out", local=True, workers=1)
        out = f"{data}/whole"
        run(web.recipe, out, local=True, workers=2)
        assert published(out) == hashes(tmp_path / "out")
        asked = len(web.requests())
        run(web.recipe, out, overrides={"image_size.min_side": 10}, local=True, workers=1)
        assert len(web.requests()) == asked
        run(web.recipe, tmp_path / "out", overrides={"image_size.min_side": 10}, local=True, workers=1)
    assert published(out) == hashes(tmp_path / "out")
    assert audit(out, read_bytes=True) == []
    keys = [sample["__key__"] for sample in stream(out, torch=False, reading=ReadOptions(cache=tmp_path / "cache"))]
    assert len(keys) == 39
    line = why(out, keys[7])[0]
    assert (line["outcome"], why(out, line["url"])) == ("kept", [line])
    forget(out, url=[line["url"]])
    assert audit(out, read_bytes=True) == [] and why(out, line["key"])[0]["outcome"] == "forgotten"
    assert not [name for name, body in objects(out).items() if line["url"].encode() in body]


class Wall:
    """A web hook that lets `uploads` uploads pass and holds further ones until `down` is set."""

    def __init__(self, uploads: int):
        self.uploads = uploads
        self.seen = itertools.count()
        self.reached, self.down = threading.Event(), threading.Event()

    def see(self, request: dict) -> None:
        if request["REQUEST_METHOD"] == "PUT" and next(self.seen) >= self.uploads:
            self.reached.set()
            self.down.wait()


@pytest.mark.slow
def test_a_driver_killed_during_an_upload_leaves_no_partial_dataset(tmp_path):
    walls: list[Wall] = []
    with bucket(lambda request: [wall.see(request) for wall in walls]) as data, site(tmp_path, 96, samples=10) as web:
        run(web.recipe, tmp_path / "out", local=True, workers=1)
        out = f"{data}/killed"
        command = [sys.executable, "-m", "vlmdata.cli", "run", str(web.recipe), "--out", out, "--local", "--workers", "2"]
        for uploads in (8, 30):
            walls[:] = [Wall(uploads)]
            driver = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            walls[0].reached.wait()
            driver.kill()
            assert driver.wait() < 0
            walls[0].down.set()
            assert "manifest.json" not in names(out) or audit(out, read_bytes=True) == []
        assert subprocess.run(command, capture_output=True).returncode == 0
        assert published(out) == hashes(tmp_path / "out")
