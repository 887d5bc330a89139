"""A run from signed addresses writes no secret where others read, and its rows are found by their full addresses."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.engine.site import download, ledger, picture
from tests.servers import LoopbackServer, reply
from vlmdata import run
from vlmdata.cli import main
from vlmdata.explain import why
from vlmdata.takedown import forget

pytestmark = pytest.mark.whole


@pytest.fixture
def signed(tmp_path):
    """Serve a list at an address with a password and a signature. Its pictures have tokens, and one of them is missing."""
    paths = [f"/{n}.jpg?token=SECRET{n}&w=1" for n in (1, 2)] + ["/same.jpg?token=SECRET3", "/same.jpg?token=SECRET4"]
    routes = {path: reply(picture(n), headers={"Content-Type": "image/jpeg"}) for n, path in enumerate(paths)}
    with LoopbackServer(routes) as server:
        urls = [server.url(path) for path in [*paths, "/busy.jpg?sig=SECRET5"]]
        routes["/busy.jpg?sig=SECRET5"] = reply(status=503)
        table = pa.table(
            {"url": urls, "caption": ["some plain words"] * 5, "source": [f"https://u:SECRET@h/{n}" for n in range(5)]}
        )
        body = io.BytesIO()
        pq.write_table(table, body)
        server.routes["/urls.parquet?X-Amz-Signature=SECRET"] = reply(body.getvalue())
        server.routes["/urls.parquet?X-Amz-Signature=SECRET-OF-TODAY"] = reply(body.getvalue())
        address = server.url("/urls.parquet?X-Amz-Signature=SECRET").replace("//", "//user:SECRET@")
        recipe = tmp_path / "recipe.yaml"
        source = {"type": "url_list", "path": address, "format": "parquet"}
        recipe.write_text(yaml.safe_dump({"source": source, "steps": [download(), {"resize": {"size": 48}}]}))
        yield urls, recipe, address


def secrets_in(out) -> list[str]:
    """Return the published files and logs that contain a secret. Tars are left out, because samples keep the addresses they
    came from."""
    files = [path for path in out.rglob("*") if path.is_file() and path.suffix not in (".tar",)]
    return [str(path) for path in files if "work/plan/" not in str(path) and "work/data/" not in str(path) and _holds(path)]


def _holds(path) -> bool:
    if path.suffix == ".parquet":
        return "SECRET" in str(pq.read_table(path).to_pylist())
    return b"SECRET" in path.read_bytes()


def test_no_secret_is_published_logged_or_printed(signed, tmp_path, capsys):
    urls, recipe, address = signed
    out = tmp_path / "out"
    assert main(["run", str(recipe), "--out", str(out), "--local", "--workers", "1"]) == 0
    assert secrets_in(out) == []
    assert main(["show", str(out)]) == 0
    assert main(["why", str(out), urls[0]]) == 0
    assert main(["why", str(out), urls[0] + "0"]) == 1
    assert main(["why", str(out), "http_503", "--json"]) == 0
    assert main(["retry", str(out), "--local"]) == 2  # the manifest has no recipe that could be run
    assert main(["retry", str(out), "--local", "--recipe", str(recipe)]) == 0
    assert main(["run", str(recipe), "--set", f"source.path={address}X", "--out", str(tmp_path / "no"), "--local"]) == 2
    output = "".join(capsys.readouterr())
    assert "SECRET" not in output
    assert "user" not in output and "REDACTED@" in output


def test_a_row_is_found_and_forgotten_by_its_full_address(signed, tmp_path):
    urls, recipe, _ = signed
    run(recipe, tmp_path / "out", local=True, workers=1)
    third, fourth = (why(tmp_path / "out", url) for url in urls[2:4])
    assert [len(third), len(fourth)] == [1, 1] and third != fourth
    assert len(why(tmp_path / "out", third[0]["url"])) == 2  # both rows have the address that the ledger shows
    forget(tmp_path / "out", url=[urls[2]])
    outcomes = {line["key"]: line["outcome"] for line in ledger(tmp_path / "out")}
    assert outcomes[third[0]["key"]] == "forgotten"
    assert outcomes[fourth[0]["key"]] == "kept"


def test_a_list_with_a_new_signature_counts_as_the_same_source(signed, tmp_path):
    _, recipe, address = signed
    first = run(recipe, tmp_path / "out", local=True, workers=1)
    again = run(recipe, tmp_path / "out", local=True, workers=1, overrides={"source.path": f"{address}-OF-TODAY"})
    assert again == json.loads(json.dumps(first))
