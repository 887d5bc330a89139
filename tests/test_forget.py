"""Forgotten samples are gone from every file under OUT, even if the process is killed at any change, and never return."""

import contextlib
import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
from PIL import Image

from tests.engine.site import download, hashes, ledger, manifest, site
from tests.sources.pictures import picture
from vlmdata import run, stream
from vlmdata.audit import audit
from vlmdata.cli import main
from vlmdata.engine.partitions.tombstones import Tombstones, domains_of, hash_of
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.explain import why
from vlmdata.forget_words import domain_of, key_of, sha256_of
from vlmdata.recipe import RecipeError, parse
from vlmdata.takedown import finish, forget

pytestmark = pytest.mark.whole


@pytest.fixture(scope="session")
def web(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forget")
    steps = [{"text_length": {}}, download(), {"resize": {"size": 48}}, {"image_size": {"min_side": 32}}, "dedupe_phash"]
    with site(folder, 96, steps=steps, samples=20) as web:
        run(web.recipe, folder / "out", local=True, workers=1)
        web.out = folder / "out"
        yield web


@pytest.fixture
def out(web, tmp_path):
    shutil.copytree(web.out, tmp_path / "out")
    return tmp_path / "out"


def kept(out: Path) -> list[dict]:
    return [line for line in ledger(out) if line["outcome"] == "kept"]


def one_of(out: Path) -> dict:
    """Return the line of a kept row whose caption is not contained in another caption, as "number 7" is in "number 72"."""
    return next(line for line in kept(out)[25:] if len(Path(line["url"]).stem) == 2)


def samples(out: Path) -> dict[str, dict[str, bytes]]:
    """Return the members of every sample of the tars, as any tar reader finds them."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, name = member.name.partition(".")
                found.setdefault(key, {})[name] = tar.extractfile(member).read()
    return found


def traces(out: Path, *needles: bytes) -> list[str]:
    """Return the files under OUT that contain a byte string, plain or in a value of a Parquet file."""
    found = []
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if data[:4] == b"PAR1":
            data += repr(pq.read_table(path).to_pylist()).encode()
        found += [str(path.relative_to(out)) for needle in needles if needle in data]
    return found


def needles(out: Path, line: dict) -> list[bytes]:
    image = samples(out)[line["key"]]["jpg"]
    return [
        image[len(image) // 2 :][:64],
        line["url"].encode(),
        samples(out)[line["key"]]["txt"],
        line["images"][0]["sha256"].encode(),
    ]


@pytest.mark.parametrize("by", ["url", "key", "sha256"])
def test_no_byte_of_a_forgotten_sample_remains_and_all_others_do(out, by):
    before, line = samples(out), one_of(out)
    wanted = needles(out, line)
    assert all(traces(out, needle) for needle in wanted)
    receipt = forget(out, **{by: line["images"][0][by] if by == "sha256" else line[by]})
    assert traces(out, *wanted) == []
    assert samples(out) == {key: sample for key, sample in before.items() if key != line["key"]}
    assert audit(out, read_bytes=True) == []
    assert "report.html" in manifest(out)["files"]
    assert (receipt["samples"], receipt["shards"]) == (1, [line["shard"]])
    assert [entry["outcome"] for entry in why(out, line["key"])] == ["forgotten"] and not why(out, line["url"])
    assert sorted(sample["__key__"] for sample in stream(out, torch=False)) == sorted(samples(out))


def test_only_the_tars_of_a_forgotten_sample_are_rewritten(out):
    line = kept(out)[25]
    before = hashes(out)
    forget(out, url=[line["url"]])
    changed = {name for name, digest in hashes(out).items() if before.get(name) != digest}
    assert {name for name in changed if name.endswith(".tar")} == {line["shard"]}


def test_forgetting_an_address_removes_its_picture_under_other_addresses_too(tmp_path):
    with site(tmp_path, 16) as web:
        web.server.routes["/good/1.jpg"] = web.server.routes["/good/0.jpg"]
        run(web.recipe, tmp_path / "out", local=True, workers=1)
        receipt = forget(tmp_path / "out", url=[web.server.url("/good/0.jpg")])
    assert sorted(line["url"] for line in receipt["removed"]) == [web.server.url(f"/good/{n}.jpg") for n in (0, 1)]


def test_forgetting_a_domain_removes_dropped_rows_too_and_may_empty_a_dataset(out):
    forget(out, domain=["127.0.0.1"])
    assert {line["outcome"] for line in ledger(out)} == {"forgotten"}
    assert not list(out.glob("*.tar")) and audit(out, read_bytes=True) == []
    assert manifest(out)["dropped"] == [{"step": "forget", "reason": "forgotten", "rows": 96}]


def test_an_image_is_found_by_similarity(out, tmp_path):
    line = kept(out)[3]
    small = Image.open(io.BytesIO(samples(out)[line["key"]]["jpg"])).resize((40, 30))
    small.save(tmp_path / "like.png")
    assert main(["forget", str(out), "--like", str(tmp_path / "like.png"), "--receipt", str(tmp_path / "receipt.json")]) == 0
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    assert [entry["key"] for entry in receipt["removed"]] == [line["key"]]


def test_a_list_is_forgotten_and_addresses_not_found_are_reported(out, tmp_path, capsys):
    lines = kept(out)[:3]
    (tmp_path / "list.txt").write_text("\n".join([*(line["url"] for line in lines), "https://nowhere.example/x.jpg"]))
    assert main(["forget", str(out), "--url", f"@{tmp_path / 'list.txt'}", "--dry-run"]) == 0
    assert len(samples(out)) == 72
    assert main(["forget", str(out), "--url", f"@{tmp_path / 'list.txt'}"]) == 0
    assert "3 rows forgotten" in (printed := capsys.readouterr().out) and "1 not found: https://nowhere" in printed
    assert len(samples(out)) == 69


def test_a_changed_threshold_or_a_new_build_does_not_restore_it(web, out):
    line = one_of(out)
    wanted = needles(out, line)
    forget(out, url=[line["url"]])
    asked = len(web.requests())
    run(web.recipe, out, overrides={"image_size.min_side": 10}, local=True, workers=1)
    assert len(web.requests()) == asked and manifest(out)["kept"] == 72 - 1 + 6
    shutil.rmtree(out / "work")
    (out / "manifest.json").unlink()
    run(web.recipe, out, local=True, workers=1)
    path = line["url"].removeprefix(web.server.url(""))
    assert f"/{path.lstrip('/')}" not in web.requests()[asked:] and len(web.requests()) > asked
    assert manifest(out)["kept"] == 71 and traces(out, *wanted) == []


def test_the_same_picture_under_another_address_is_not_stored(web, out):
    """An image that was forgotten by its hash before it was fetched never reaches a file."""
    body = next(body for path, body in web.bodies.items() if "good" in path)
    shutil.rmtree(out / "work")
    forget(out, sha256=[hashlib.sha256(body).hexdigest()])
    (out / "manifest.json").unlink()
    run(web.recipe, out, local=True, workers=1)
    assert manifest(out)["kept"] == 71
    assert all(line["outcome"] == "forgotten" for line in ledger(out) if line["url"] is None)


class Killed(BaseException):
    pass


def test_a_takedown_killed_at_any_change_leaves_the_old_or_the_new_dataset(web, tmp_path, monkeypatch):
    """The process is killed at each change to the store in turn, and the next command finds an intact dataset."""
    line = one_of(web.out)
    wanted = needles(web.out, line)
    shutil.copytree(web.out, tmp_path / "after")
    forget(tmp_path / "after", url=[line["url"]])
    states = hashes(web.out), hashes(tmp_path / "after")
    seen = set()
    for at in range(1000):
        out = tmp_path / f"killed-{at}"
        shutil.copytree(web.out, out)
        with monkeypatch.context() as patch:
            changes = _killing(patch, at)
            with contextlib.suppress(Killed):
                forget(out, url=[line["url"]])
            ended = len(changes) <= at
        finish(out)
        assert audit(out, read_bytes=True) == []
        done = why(out, line["key"])[0]["outcome"] == "forgotten"
        found = {name: digest for name, digest in hashes(out).items() if not name.startswith("forgotten")}
        assert found == {name: digest for name, digest in states[done].items() if not name.startswith("forgotten")}
        assert not done or traces(out, *wanted) == []
        seen.add(done)
        shutil.rmtree(out)
        if ended:
            break
    assert ended and seen == {False, True}


def test_verbs_that_read_report_an_unfinished_takedown_and_change_nothing(web, out, tmp_path, monkeypatch, capsys):
    line = one_of(out)
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr("vlmdata.engine.forget.pending.roll_forward", _killed)
        forget(out, url=[line["url"]])
    before = files(out)
    for verb in (["show", out], ["why", out, line["key"]], ["diff", web.out, out], ["check", out]):
        assert main([str(word) for word in verb]) == 2
        says = f"vlmdata: {out}: a takedown was interrupted. Finish it with: vlmdata forget {out}\n"
        assert capsys.readouterr().err == says
    assert (
        main(["export", str(out), str(tmp_path / "exported")])
        == main(["forget", str(out), "--key", "f" * 24, "--dry-run"])
        == 2
    )
    assert files(out) == before and not (tmp_path / "exported").exists()
    assert main(["forget", str(out)]) == 0
    assert audit(out, read_bytes=True) == [] and why(out, line["key"])[0]["outcome"] == "forgotten"
    capsys.readouterr()
    assert main(["forget", str(out)]) == 2
    assert "no sample to forget" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["clean", "retry"])
def test_verbs_that_change_a_dataset_first_finish_its_takedown(out, verb, monkeypatch):
    line = one_of(out)
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr("vlmdata.engine.forget.pending.roll_forward", _killed)
        forget(out, url=[line["url"]])
    assert main([verb, str(out)]) == 0
    assert why(out, line["key"])[0]["outcome"] == "forgotten"


def _killed(*_):
    raise Killed


def files(out: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def _killing(patch: pytest.MonkeyPatch, at: int) -> list[str]:
    """Let a LocalStore make its change number `at` and then end, as if the process had been killed."""
    changes: list[str] = []
    for name in ("new_file", "put", "put_new", "publish", "delete", "erase", "delete_folder"):
        patch.setattr(LocalStore, name, _counted(getattr(LocalStore, name), name, changes, at))
    return changes


def _counted(method, name, changes, at):
    def change(self, *args):
        if len(changes) > at:
            raise Killed
        changes.append(name)
        result = method(self, *args)
        if len(changes) > at:
            raise Killed
        return result

    return change


@pytest.mark.parametrize("layout", ["captions", "documents"])
def test_rows_of_a_compressed_tar_are_erased_from_work_too(web, tmp_path, layout):
    """A compressed tar is unpacked into work/, so its bytes are there too, both as unpacked and as resized."""
    import gzip

    (tmp_path / "tars").mkdir()
    for tar in web.out.glob("*.tar"):
        (tmp_path / "tars" / f"{tar.name}.gz").write_bytes(gzip.compress(tar.read_bytes()))
    recipe = tmp_path / "recipe.yaml"
    tree = {"source": {"type": "webdataset", "path": str(tmp_path / "tars")}, "steps": [{"resize": {"size": 40}}]}
    recipe.write_text(json.dumps({**tree, "shards": {"samples": 30, "layout": layout}}))
    out = tmp_path / "out"
    run(recipe, out, local=True, workers=1)
    line = kept(out)[11]
    wanted = [member[len(member) // 2 :][:64] for name, member in samples(out)[line["key"]].items() if name.endswith("jpg")]
    url = line["images"][0]["url"]
    wanted += [url.encode(), samples(web.out)[why(web.out, url)[0]["key"]]["jpg"][-200:]]
    assert all(traces(out, needle) for needle in wanted)
    forget(out, url=[url])
    assert traces(out, *wanted) == [] and audit(out, read_bytes=True) == []
    run(recipe, out, overrides={"resize.size": 32}, local=True, workers=1)
    assert manifest(out)["kept"] == len(kept(web.out)) - 1 and traces(out, *wanted) == []


def test_another_row_with_the_same_picture_keeps_it(tmp_path):
    """Two rows of one address share the bytes in work/. Forgetting one row by its key must keep the other's."""
    with site(tmp_path, 16) as web:
        listing = tmp_path / "urls.parquet"
        table = pq.read_table(listing)
        again = table.slice(0, 1).set_column(1, "caption", pa.array(["another text of it"]))
        pq.write_table(pa.concat_tables([table, again]), listing)
        run(web.recipe, tmp_path / "out", overrides={"part_rows": 100}, local=True, workers=1)
        line = next(line for line in kept(tmp_path / "out") if line["url"].endswith("/0.jpg"))
        forget(tmp_path / "out", key=[line["key"]])
        run(web.recipe, tmp_path / "out", overrides={"part_rows": 100, "image_size.min_side": 10}, local=True, workers=1)
    left = [sample for sample in samples(tmp_path / "out").values() if json.loads(sample["json"])["url"].endswith("/0.jpg")]
    assert [simplejpeg.decode_jpeg(sample["jpg"]).shape[0] for sample in left] == [48]


def test_the_address_beside_an_inline_image_is_found(tmp_path):
    columns = {"image": [picture()], "url": ["https://example.org/0.jpg"], "caption": ["some words"]}
    pq.write_table(pa.table(columns), tmp_path / "d.parquet")
    source = {"type": "hf_dataset", "path": str(tmp_path / "d.parquet")}
    run(parse({"source": source, "steps": [{"resize": {"mode": "no"}}]}), tmp_path / "out", local=True, workers=1)
    (sample,) = samples(tmp_path / "out").values()
    assert json.loads(sample["json"])["url"] == "https://example.org/0.jpg"
    receipt = forget(tmp_path / "out", domain="example.org")
    assert (receipt["samples"], [line["url"] for line in receipt["removed"]]) == (1, ["https://example.org/0.jpg"])


@pytest.mark.parametrize(
    ("word", "domain"),
    [
        ("Example.ORG", "example.org"),
        ("https://example.org/", "example.org"),
        ("HTTPS://example.org:443", "example.org"),
        ("example.org:80", "example.org"),
        ("*.example.org", "example.org"),
        ("example.org.", "example.org"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("[::1]", "::1"),
        ("::1", "::1"),
    ],
)
def test_a_domain_is_read_as_addresses_have_it(word, domain):
    assert domain_of(word) == domain


@pytest.mark.parametrize(
    ("word", "fix"),
    [
        ("example.org:8080", "a domain includes all ports. Name it without one: --domain example.org"),
        ("https://example.org:8443/", "Name it without one: --domain example.org"),
        ("https://example.org/a.jpg", "Name it with --url, or its whole domain: --domain example.org"),
        ("two words", "Write it like example.org"),
        ("*", "Write it like example.org"),
    ],
)
def test_what_is_no_domain_is_refused_with_the_right_option(word, fix):
    with pytest.raises(RecipeError) as caught:
        domain_of(word)
    assert fix in str(caught.value)


def test_a_domain_is_found_in_both_ways_to_write_it():
    both = {"b\u00fccher.example", "xn--bcher-kva.example"}
    assert both <= set(domains_of("https://a.b\u00fccher.example/1.jpg"))
    for url in ("https://b\u00fccher.example/1.jpg", "https://XN--bcher-kva.example/1.jpg"):
        assert Tombstones(hashes={hash_of("domain", domain_of("b\u00fccher.example"))}).holds_address(url)


@pytest.mark.parametrize(
    ("option", "word", "says"),
    [
        ("key", "cat", "--key cat: this is not a key. A key is 24 hex digits, and perhaps _ and a number"),
        ("key", f"{'a' * 24}.jpg", "this is not a key"),
        ("key", f"{'a' * 24}_0", "this is not a key"),
        ("key", "a" * 64, "this is not a key. A key is 24 hex digits"),
        ("key", "a" * 64, "Name it with --sha256"),
        ("sha256", "cat", "--sha256 cat: this is not a SHA-256. Write the 64 hex digits that `sha256sum FILE` prints first"),
        ("sha256", "a" * 63, "this is not a SHA-256"),
        ("sha256", f"{'a' * 64}  cat.jpg", "this is not a SHA-256"),
        ("sha256", "a" * 24, "Name it with --key"),
        ("sha256", "https://example.org/cat.jpg", "Name it with --url"),
    ],
)
def test_what_cannot_be_a_key_or_a_hash_is_refused_with_its_form(tmp_path, option, word, says):
    with pytest.raises(RecipeError) as caught:
        forget(tmp_path, **{option: ["b" * (24 if option == "key" else 64), word]})
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_upper_case_and_spaces_of_a_key_and_a_hash_do_not_count():
    assert key_of(f" {'A' * 24}_12\n") == f"{'a' * 24}_12" and sha256_of("F" * 64) == "f" * 64


def test_what_no_row_has_is_listed_with_what_is_near(out, capsys):
    url = next(line["url"] for line in ledger(out) if line["outcome"] == "kept")
    wrong = [url.replace("http://", "https://"), "127.0.0.2", "f" * 24]
    words = ["--url", wrong[0], "--domain", wrong[1], "--key", wrong[2]]
    assert main(["forget", str(out), *words, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["not_found"] == [wrong[0], wrong[2], wrong[1]]
    assert main(["forget", str(out), *words, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "0 rows would be forgotten, among them 0 samples in 0 tars",
        f"3 not found: {wrong[0]}, {wrong[2]}, {wrong[1]}. No later run would add them",
        f"  near to {wrong[0]}: {url}",
        "  near to 127.0.0.2: 127.0.0.1",
    ]
