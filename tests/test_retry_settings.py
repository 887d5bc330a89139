"""`retry` asks again for what a changed setting may allow, and says what it did not ask; a repeated `run` says what it did."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.engine.site import download, picture, site
from tests.servers import LoopbackServer, in_turn, redirect, reply
from tests.test_hardly_any_rows import printed_by
from vlmdata import retry, run
from vlmdata.cli import main
from vlmdata.engine.output.run_log import logged_runs
from vlmdata.engine.store.open_store import open_store
from vlmdata.fetch_failures import find_failures
from vlmdata.recipe import RecipeError, apply_overrides, parse
from vlmdata.refetch import plan_retry

pytestmark = pytest.mark.whole
LOCAL = {"local": True, "workers": 1}
JPEG = {"Content-Type": "image/jpeg"}


def listed(folder, server, paths, steps):
    """Write a list of addresses and a recipe that reads it. Return the recipe's path."""
    table = pa.table({"url": [server.url(path) for path in paths], "caption": [f"the picture {path}" for path in paths]})
    pq.write_table(table, folder / "urls.parquet")
    tree = {"source": {"type": "url_list", "path": str(folder / "urls.parquet")}, "steps": steps}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    return folder / "recipe.yaml"


def asked_since(server, before):
    return sorted(path for path in server.paths()[before:] if path != "/robots.txt")


@pytest.fixture
def failing(tmp_path):
    """Serve six pictures, five of which fail under the settings of the first run, each for another reason."""
    body = picture(1)
    routes = {
        "/good.jpg": reply(body, headers=JPEG),
        "/large.jpg": reply(picture(2) + bytes(100_000), headers=JPEG),
        "/moved.jpg": redirect("/good.jpg"),
        "/private/a.jpg": reply(picture(3), headers=JPEG),
        "/busy.jpg": in_turn(reply(b"", 503), reply(picture(4), headers=JPEG)),
        "/robots.txt": reply(b"User-agent: *\nDisallow: /private/\n"),
    }
    with LoopbackServer(routes) as server:
        paths = ["/good.jpg", "/large.jpg", "/moved.jpg", "/private/a.jpg", "/busy.jpg", "/none.jpg"]
        steps = [download(max_bytes=50_000, max_redirects=0), {"resize": {"size": 48}}]
        yield server, listed(tmp_path, server, paths, steps), tmp_path / "out"


def test_retry_asks_again_for_temporary_failures_and_explains_the_rest(failing, capsys):
    server, recipe, out = failing
    assert run(recipe, out, **LOCAL)["kept"] == 1
    before = len(server.requests)
    lines = printed_by(["retry", out, "--local", "--workers", 1], capsys)
    assert asked_since(server, before) == ["/busy.jpg"]
    assert lines[:7] == [
        "asks again for 1 image:",
        "             1  http_503: temporary (the server answered 503 (Service Unavailable))",
        "does not ask again for 4 images:",
        "             1  http_404: permanent (the server answered 404 (Not Found))",
        "             1  robots: permanent unless download.robots or download.agent changes "
        "(robots.txt of the site disallows it)",
        "             1  too_large: permanent unless download.max_bytes changes "
        "(more than max_bytes, as sent or after decompression)",
        "             1  too_many_redirects: permanent unless download.max_redirects changes (more than max_redirects)",
    ]
    assert lines[-1] == "1 more row kept than before"


def test_retry_asks_again_for_what_each_changed_setting_may_allow(failing, capsys):
    server, recipe, out = failing
    run(recipe, out, **LOCAL)
    before = len(server.requests)
    changes = {"download.max_bytes": 500_000, "download.max_redirects": 3, "download.timeout_s": 200}
    made = retry(out, overrides=changes, **LOCAL)
    assert asked_since(server, before) == ["/busy.jpg", "/good.jpg", "/large.jpg", "/moved.jpg"]
    assert (made["kept"], {line["reason"] for line in made["dropped"]}) == (4, {"http_404", "robots"})
    before = len(server.requests)
    assert retry(out, overrides={"download.robots": False}, **LOCAL)["kept"] == 5
    assert asked_since(server, before) == ["/private/a.jpg"]
    lines = printed_by(["retry", out], capsys)  # the settings of the last retry are those of the dataset now
    assert lines[0] == "does not ask again for 1 image:" and lines[-1] == f"{out}: there is nothing to retry"


def test_a_setting_that_a_run_changed_is_found_by_a_retry_without_arguments(failing, capsys):
    server, recipe, out = failing
    run(recipe, out, **LOCAL)
    command = ["run", recipe, "--out", out, "--local", "--workers", 1, "--set", "download.max_bytes=500000"]
    before = len(server.requests)
    lines = printed_by(command, capsys)
    assert len(server.requests) == before
    told = lines.index("reused: all stored fetches and measurements; only the decisions and the tars are new")
    assert lines[told + 1 : told + 3] == [
        "2 images failed before, and `run` does not fetch them again "
        "(http_503 1: temporary (the server answered 503 (Service Unavailable)); too_large 1: download.max_bytes changed)",
        f"  this asks again: vlmdata retry {out}",
    ]
    again = printed_by(command, capsys)
    assert "nothing to do: this recipe has built all 6 rows (1 kept, 5 dropped)" in again and lines[told + 1] in again
    assert retry(out, **LOCAL)["kept"] == 3
    assert asked_since(server, before) == ["/busy.jpg", "/large.jpg"]
    assert not plan_retry(out).failures.again


def test_only_names_the_reasons_and_leaves_the_others(failing):
    _, recipe, out = failing
    run(recipe, out, **LOCAL)
    plan = plan_retry(out, "http_404")
    assert plan.failures.again == {"http_404": (1, "named")} and len(plan.failures.left) == 4
    with pytest.raises(RecipeError, match=r"failed with timeout\. The reasons that occur are: http_404, http_503, robots"):
        plan_retry(out, ["timeout"])


def test_retry_keeps_the_limit_of_the_dataset(tmp_path):
    with site(tmp_path, 32) as web:
        made = run(web.recipe, tmp_path / "out", limit=31, **LOCAL)  # at least one of the two missing pictures
        assert retry(tmp_path / "out", only="http_404", **LOCAL)["rows"] == made["rows"] == 31


def test_failed_images_inside_a_kept_document_are_asked_again(tmp_path):
    routes = {"/a.jpg": reply(picture(1), headers=JPEG)}
    routes["/b.jpg"] = in_turn(reply(b"", 503), reply(picture(2), headers=JPEG))
    with LoopbackServer(routes) as server:
        images = "".join(f'<p>Some words about the picture {p}.</p><img src="{server.url(p)}">' for p in routes)
        (tmp_path / "page.html").write_text(f"<html><body><article>{images}</article></body></html>")
        tree = {"source": {"type": "html", "path": str(tmp_path / "page.html")}, "shards": {"layout": "documents"}}
        tree["steps"] = [download(), {"resize": {"mode": "no", "skip_reencode": True}}]
        made = run(parse(tree), tmp_path / "out", **LOCAL)
        assert (made["kept"], made["dropped"]) == (1, [])
        assert list(plan_retry(tmp_path / "out").failures.again) == ["http_503"]
        retry(tmp_path / "out", **LOCAL)
        assert server.paths().count("/b.jpg") == 2 and not plan_retry(tmp_path / "out").failures.again


def test_a_changed_recipe_says_what_was_measured(tmp_path, capsys):
    with site(tmp_path, 16) as web:
        command = ["run", web.recipe, "--out", tmp_path / "out", "--local", "--workers", 1]
        assert not [line for line in printed_by(command, capsys) if "reused" in line or "nothing to do" in line]
        assert logged_runs(open_store(tmp_path / "out"))[-1].measured == {"download + resize": 16}
        tree = yaml.safe_load(web.recipe.read_text())
        tree["steps"].append("image_detail")
        web.recipe.write_text(yaml.safe_dump(tree))
        lines = printed_by(command, capsys)
    assert "measured in this run: image_detail 12 rows; everything else was stored before and is reused" in lines


def test_logs_that_cannot_be_read_are_left_out(tmp_path):
    with site(tmp_path, 16) as web:
        made = run(web.recipe, tmp_path / "out", **LOCAL)
    logs = tmp_path / "out" / "work" / "logs"
    for number, text in enumerate(
        ["{", "", "5\n", '{"recipe": 5}\n', '{"recipe": {"steps": [3, {}, {"download": 4}]}, "again": 3}\n']
    ):
        (logs / f"{number}.jsonl").write_text(text)
    (logs / "9.jsonl").write_bytes(b"\xff\xfe")
    store = open_store(tmp_path / "out")
    assert len(logged_runs(store)) == 2
    assert list(find_failures(store, made, made["recipe"]).left) == ["http_404"]


def test_a_setting_of_an_unknown_step_is_reported_with_the_known_ones(tmp_path, capsys):
    with site(tmp_path, 16) as web:
        run(web.recipe, tmp_path / "out", **LOCAL)
    assert main(["retry", str(tmp_path / "out"), "--set", "downlod.max_bytes=5"]) == 2
    assert "has no step 'downlod'. Did you mean 'download'?" in capsys.readouterr().err


def test_a_setting_that_changes_no_fetch_is_refused_with_the_command_that_applies_it(tmp_path, capsys):
    with site(tmp_path, 16) as web:
        run(web.recipe, tmp_path / "out", **LOCAL)
    capsys.readouterr()
    for setting in ("image_size.min_side=10", "image_size=off"):
        assert main(["retry", str(tmp_path / "out"), "--set", setting]) == 2
        place = setting.partition("=")[0]
        assert capsys.readouterr().err == (
            f"vlmdata: {place} changes no fetch, and `retry` only fetches again. This applies it: "
            f"vlmdata run RECIPE --set {place}=... --out {tmp_path}/out\n"
        )
    again = retry(tmp_path / "out", recipe=web.recipe, overrides={"image_size.min_side": 32}, **LOCAL)  # as the run had it
    assert again["kept"] == 12


def test_settings_apply_to_labels_and_to_users_classes_in_a_stored_recipe():
    tree = {
        "source": {},
        "steps": [{"image_size": {"label": "first"}}, {"image_size": {"label": ""}}, {"mine.Mine": {"label": ""}}],
    }
    apply_overrides(tree, {"first.min_side": 1, "image_size.min_side": 2, "mine.x": 3}, "OUT")
    assert [value for step in tree["steps"] for value in step.values()] == [
        {"label": "first", "min_side": 1},
        {"label": "", "min_side": 2},
        {"label": "", "x": 3},
    ]
    assert json.dumps(tree)
