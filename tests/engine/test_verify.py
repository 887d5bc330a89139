"""The hash of an image in a list is checked when the image is fetched, and a later change of this setting takes effect."""

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.engine.site import download, ledger, picture
from tests.servers import LoopbackServer, reply
from vlmdata import run
from vlmdata.readers.stated_values import hash_column
from vlmdata.recipe import parse
from vlmdata.step import RecipeError
from vlmdata.verify import check


def test_a_hash_is_read_from_hex_or_bytes_and_ignored_otherwise():
    sha, md5 = hashlib.sha256(b"a"), hashlib.md5(b"a")
    given = [
        sha.hexdigest(),
        f" SHA256:{sha.hexdigest().upper()}".lower(),
        sha.digest(),
        md5.hexdigest().encode(),
        md5.digest(),
    ]
    expected = [sha.hexdigest()] * 3 + [md5.hexdigest()] * 2
    assert hash_column([*given, "", None, "abc", 5, b"\xff", "g" * 64]).to_pylist() == expected + [None] * 6


def test_verifying_without_a_column_of_hashes_is_refused():
    recipe = parse({"source": {"type": "coco", "path": __file__}, "steps": [{"download": {"verify": "md5"}}]})
    with pytest.raises(RecipeError, match=r"as in `hash: sha256` of url_list"):
        check(recipe)


def outcomes(out) -> dict:
    return {line["url"].rpartition("/")[2]: (line["outcome"], line["step"], line["reason"]) for line in ledger(out)}


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_an_image_of_other_bytes_is_dropped_and_one_without_hash_is_not_fetched(tmp_path, kind):
    bodies = {f"/{number}.jpg": picture(number) for number in range(4)}
    with LoopbackServer({path: reply(body) for path, body in bodies.items()}) as server:
        hashes = [hashlib.new(kind, body).hexdigest() for body in bodies.values()]
        listed = [hashes[0].upper(), hashes[0], None, hashes[3]]
        urls = [server.url(path) for path in bodies]
        table = pa.table({"url": [*urls, urls[3]], "caption": ["c"] * 5, "h": [*listed, hashes[0]]})
        pq.write_table(table.append_column("sha256", [["mine"] * 5]), tmp_path / "list.parquet")

        def build(verify: str, out: str) -> dict:
            source = {"type": "url_list", "path": str(tmp_path / "list.parquet"), "hash": "h"}
            steps = [download(robots=False, verify=verify), {"resize": {"mode": "no"}}]
            return run(parse({"source": source, "steps": steps}), tmp_path / out, local=True, workers=1)

        build(kind, "out")
        wrong = ("dropped", "download", f"wrong_{kind}")
        assert outcomes(tmp_path / "out") | {"3.jpg": None} == {
            "0.jpg": ("kept", None, None),
            "1.jpg": wrong,
            "2.jpg": ("dropped", "download", "no_hash"),
            "3.jpg": None,
        }
        assert sorted((line["outcome"], line["reason"]) for line in ledger(tmp_path / "out") if "/3.jpg" in line["url"]) == [
            ("dropped", f"wrong_{kind}"),
            ("kept", None),
        ]
        assert "/2.jpg" not in server.paths()
        assert build("", "out")["kept"] == 5  # and back again
        assert build(kind, "out")["kept"] == 2
        asked = len(server.paths())
        assert build("", "out")["kept"] == 5 and len(server.paths()) == asked
    facts = json.loads((tmp_path / "out/manifest.json").read_text())
    assert facts["recipe"]["steps"][0]["download"]["verify"] == ""
