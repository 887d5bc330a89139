"""Rows on a user's block lists are dropped, and no byte of them is written."""

import hashlib
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.engine.site import download, ledger, manifest, picture, site
from tests.images.pictures import photo, saved
from tests.rows import captions
from vlmdata import run
from vlmdata.images.decode import decode
from vlmdata.images.pdq import pdq
from vlmdata.images.phash import phash, phash_imagededup
from vlmdata.recipe import parse
from vlmdata.step import RecipeError
from vlmdata.steps.block_list import BlockList

pytestmark = pytest.mark.whole


def listed(folder, **lines: list[str]) -> BlockList:
    for name, words in lines.items():
        (folder / name).write_text("\n".join(words))
    step = BlockList(**{name: (str(folder / name),) for name in lines})
    step.check()
    return step


def pixels(body: bytes):
    return decode(body, max_pixels=10**6).pixels


def smaller(body: bytes) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(body)).resize((200, 150)).save(out, "JPEG", quality=70)
    return out.getvalue()


def test_domains_with_subdomains_and_addresses_in_any_form_are_blocked(tmp_path):
    step = listed(tmp_path, domains=["# bad ones", "bad.example"], urls=["http://good.example/A%20b.jpg"])
    urls = ["http://a.BAD.example/1.jpg", "http://notbad.example/1.jpg", "http://good.example/A b.jpg#x", None]
    rows = step.run(captions(["x"] * 4, url=urls))
    assert rows["reason"].to_pylist() == ["blocked_domain", None, "blocked_url", None]


def test_a_large_picture_is_compared_at_a_smaller_size_or_refused(tmp_path):
    large = photo(2400, 1800)
    step = listed(tmp_path, phash=[f"{phash(large):016x}"])
    bodies = [saved(large, "jpeg", quality=90), saved(large, "png"), saved(photo(2400, 1800, 1), "jpeg")]
    assert [step.match(body) for body in bodies] == ["blocked_phash", "blocked_phash", None]
    assert [step.match(body, 60) for body in bodies] == ["blocked_phash", "too_large", None]


def test_bytes_are_blocked_by_digest_and_pictures_by_similarity(tmp_path):
    bodies = [saved(photo(480, 360, seed=n), "jpeg", quality=92) for n in range(5)]
    step = listed(
        tmp_path,
        md5=["md5,file", f"{hashlib.md5(bodies[0]).hexdigest().upper()},x.jpg"],
        sha256=[hashlib.sha256(bodies[1]).hexdigest()],
        phash=[f"{phash(pixels(bodies[2])):016x}"],
        pdq=[f"{pdq(pixels(bodies[3]))[0]:064x}"],
    )
    assert [step.match(body) for body in bodies] == ["blocked_md5", "blocked_sha256", "blocked_phash", "blocked_pdq", None]
    assert [step.match(smaller(body)) for body in bodies] == [None, None, "blocked_phash", "blocked_pdq", None]
    assert step.match(b"no image") is None


def test_a_list_of_imagededup_hashes_is_read(tmp_path):
    body = picture(7, 200)
    (tmp_path / "list").write_text(f"{phash_imagededup(pixels(body)):016x}\n")
    assert BlockList(phash=(str(tmp_path / "list"),), phash_kind="imagededup").match(body) == "blocked_phash"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({}, "set at least one of the lists"),
        ({"md5": ("absent.txt",)}, "cannot read the list absent.txt"),
        ({"pdq": ("list",)}, "list, line 2: 'xyz' is not a valid pdq, which must have 64 hex digits"),
        ({"urls": ("list",)}, "list, line 2: 'xyz' is not an http"),
        ({"md5": ("list",), "phash_bits": 40}, "More bits would match any picture"),
    ],
)
def test_a_mistake_in_a_list_is_reported_with_its_place(step, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list").write_text("header\nxyz\n")
    with pytest.raises(RecipeError, match=message):
        BlockList(**step).check()


def everything(out) -> bytes:
    return b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())


def test_a_blocked_picture_is_in_no_file_and_a_blocked_address_is_not_requested(tmp_path):
    steps = [download(), {"resize": {"mode": "no", "skip_reencode": True}}]
    with site(tmp_path, 16, steps=steps) as web:
        bodies = {n: web.bodies[f"/good/{n}.jpg"] for n in range(4)}
        listed(
            tmp_path,
            md5=[hashlib.md5(bodies[0]).hexdigest()],
            pdq=[f"{pdq(pixels(bodies[1]))[0]:064x}"],
            sha256=[hashlib.sha256(bodies[2]).hexdigest()],
            urls=[web.server.url("/good/3.jpg")],
        )
        lists = {"block_list": {name: [str(tmp_path / name)] for name in ("md5", "pdq", "sha256", "urls")}}
        recipe = web.recipe.read_text().replace("steps:\n", f"steps:\n- {lists}\n")
        web.recipe.write_text(recipe)
        run(web.recipe, tmp_path / "out", local=True, workers=1)
        assert "/good/3.jpg" not in web.requests() and "/good/2.jpg" in web.requests()
    blocked = [line for line in ledger(tmp_path / "out") if line["step"] == "block_list"]
    found = {line["url"].rpartition("/")[2]: line["reason"] for line in blocked}
    assert found == {"0.jpg": "blocked_md5", "1.jpg": "blocked_pdq", "2.jpg": "blocked_sha256", "3.jpg": "blocked_url"}
    written = everything(tmp_path / "out")
    assert not any(body[-200:-136] in written for body in bodies.values())
    assert all(web.bodies[f"/good/{n}.jpg"][-200:-136] in written for n in (4, 5))


@pytest.mark.parametrize("streaming", [False, True])
def test_inline_bytes_of_a_source_are_checked_before_they_are_written(tmp_path, streaming):
    (tmp_path / "in").mkdir()
    bodies = [picture(n) for n in range(6)]
    images = [{"bytes": body, "path": None} for body in bodies]
    pq.write_table(pa.table({"image": images, "caption": [f"picture {n}" for n in range(6)]}), tmp_path / "in" / "0.parquet")
    listed(tmp_path, sha256=[hashlib.sha256(bodies[2]).hexdigest()], phash=[f"{phash(pixels(bodies[4])):016x}"])
    tree = {
        "source": {"type": "hf_dataset", "path": str(tmp_path / "in"), "streaming": streaming},
        "steps": [{"block_list": {"sha256": [str(tmp_path / "sha256")], "phash": [str(tmp_path / "phash")]}}, "resize"],
    }
    run(parse(tree), tmp_path / "out", local=True, workers=1)
    assert sorted(line["reason"] for line in ledger(tmp_path / "out") if line["step"]) == ["blocked_phash", "blocked_sha256"]
    assert manifest(tmp_path / "out")["kept"] == 4
    assert not any(bodies[n][-200:-136] in everything(tmp_path / "out") for n in (2, 4))


def test_a_longer_list_removes_stored_pictures_from_the_tars(tmp_path):
    (tmp_path / "sha256").write_text("0" * 64)
    steps = [{"block_list": {"sha256": [str(tmp_path / "sha256")]}}, download(), {"resize": {"size": 48}}]
    with site(tmp_path, 16, steps=steps) as web:
        run(web.recipe, tmp_path / "out", local=True, workers=1)
        kept = manifest(tmp_path / "out")["kept"]
        (tmp_path / "sha256").write_text(hashlib.sha256(web.bodies["/good/5.jpg"]).hexdigest())
        run(web.recipe, tmp_path / "out", overrides={"shards.samples": 10}, local=True, workers=1)
    assert manifest(tmp_path / "out")["kept"] == kept - 1
