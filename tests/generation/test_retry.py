"""`vlmdata retry` asks again for answers that failed temporarily, and for no answer that came."""

import json

import pytest

from tests.generation.scripted import asked, recipe_of
from vlmdata import retry, run
from vlmdata.answer_failures import find_answer_failures
from vlmdata.cli import main
from vlmdata.engine.output.run_log import logged_runs
from vlmdata.engine.store.open_store import open_store
from vlmdata.generation.outcomes import PASSING, is_passing, meaning
from vlmdata.recipe import RecipeError
from vlmdata.web import outcomes

LOCAL = {"local": True, "workers": 1}


@pytest.fixture
def failing(own_folder):
    """Build 6 rows with 12 answers, of which three fail. Two rows are dropped for it, and one is kept."""
    healed = str(own_folder / "healed")
    failures = {"first caption 01": "timeout", "second caption 02": "http_503", "first caption 03": "http_400"}
    recipe, out = recipe_of(own_folder, 6, failures=failures, healed=healed), own_folder / "out"
    made = run(recipe, out, **LOCAL)
    assert made["kept"] == 4 and made["generations"]["louder"]["failed"] == {"http_400": 1, "http_503": 1, "timeout": 1}
    return recipe, out


@pytest.mark.whole
def test_retry_asks_only_for_the_answers_that_failed_temporarily(failing, own_folder, capsys):
    _, out = failing
    (own_folder / "healed").touch()
    (own_folder / "log").unlink()
    assert main(["retry", str(out), "--local"]) == 0
    assert asked(own_folder) == ["first caption 01", "second caption 02"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[:5] == [
        "asks again for 2 answers:",
        "             1  http_503: temporary (the endpoint answered 503)",
        "             1  timeout: temporary (no complete answer in time)",
        "does not ask again for 1 answer:",
        "             1  http_400: permanent (the endpoint answered 400)",
    ]
    assert printed[-1] == "1 more row kept than before"
    assert main(["retry", str(out), "--local", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["retried"] == [] and document["generations"]["louder"]["failed"] == {"http_400": 1}
    assert document["generations"]["louder"]["answers"] == 11


@pytest.mark.whole
def test_only_names_the_failures_of_answers_too(failing, own_folder):
    _, out = failing
    (own_folder / "healed").touch()
    (own_folder / "log").unlink()
    with pytest.raises(RecipeError, match="The reasons that occur are: http_400, http_503, timeout"):
        retry(out, only="http_404")
    manifest = retry(out, only="http_400", **LOCAL)
    assert asked(own_folder) == ["first caption 03"]
    assert manifest["generations"]["louder"]["failed"] == {"http_503": 1, "timeout": 1}


@pytest.mark.whole
def test_a_permanent_failure_is_kept_if_another_answer_of_its_row_is_asked_for(own_folder):
    healed = str(own_folder / "healed")
    recipe = recipe_of(own_folder, 2, failures={"first caption 01": "timeout", "second caption 01": "http_400"}, healed=healed)
    run(recipe, own_folder / "out", **LOCAL)
    (own_folder / "healed").touch()
    (own_folder / "log").unlink()
    manifest = retry(own_folder / "out", **LOCAL)
    assert asked(own_folder) == ["first caption 01"]
    assert manifest["generations"]["louder"]["failed"] == {"http_400": 1}


@pytest.mark.whole
def test_a_failure_that_lasts_is_counted_once_and_can_be_asked_for_again(failing, own_folder):
    _, out = failing
    for _ in range(2):
        manifest = retry(out, **LOCAL)
        assert manifest["generations"]["louder"]["failed"] == {"http_400": 1, "http_503": 1, "timeout": 1}
    assert asked(own_folder).count("first caption 01") == 3 and asked(own_folder).count("second caption 01") == 1


@pytest.mark.whole
def test_a_repeated_run_says_which_answers_it_did_not_ask_for_again(failing, own_folder, capsys):
    recipe, out = failing
    assert main(["run", str(recipe), "--out", str(out), "--local"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "2 answers failed temporarily, and a repeated `run` does not ask for them again (http_503 1; timeout 1)" in lines
    assert f"  this asks again: vlmdata retry {out}" in lines


@pytest.mark.whole
def test_one_run_retries_images_and_answers(own_folder):
    import yaml

    from tests.engine.site import download, picture
    from tests.servers import LoopbackServer, in_turn, reply

    recipe = recipe_of(own_folder, 1, failures={"first one": "timeout"}, healed=str(own_folder / "healed"))
    tree = yaml.safe_load(recipe.read_text())
    routes = {
        "/1.jpg": reply(picture(1), headers={"Content-Type": "image/jpeg"}),
        "/2.jpg": in_turn(reply(b"", 503), reply(picture(2), headers={"Content-Type": "image/jpeg"})),
    }
    with LoopbackServer(routes) as server:
        rows = f"url,caption\n{server.url('/1.jpg')},one\n{server.url('/2.jpg')},two\n"
        (own_folder / "a.csv").write_text(rows)
        tree["source"] = {"type": "url_list", "path": str(own_folder / "a.csv")}
        tree["steps"] = [download(retries=0), *tree["steps"]]
        recipe.write_text(yaml.safe_dump(tree))
        out = own_folder / "out"
        assert run(recipe, out, **LOCAL)["kept"] == 0
        (own_folder / "healed").touch()
        manifest = retry(out, **LOCAL)
    assert manifest["kept"] == 2 and manifest["generations"]["louder"]["failed"] == {}
    assert logged_runs(open_store(out))[-1].again == ["http_503", "timeout"]
    assert asked(own_folder) == ["first one", "first one", "first two", "second one", "second two"]


def test_an_answer_that_failed_as_images_that_are_fetched_again_is_asked_for_again():
    manifest = {"generations": {"a": {"failed": {"http_403": 2, "odd": 1}}, "b": {"failed": {"http_403": 1}}}}
    found = find_answer_failures(manifest, also=["http_403"])
    why = "images are fetched again for the same reason (the endpoint answered 403)"
    assert found.again == {"http_403": (3, why)} and found.left == {"odd": (1, "permanent")}
    assert find_answer_failures(manifest).again == {}


@pytest.mark.parametrize("reason", [*PASSING, "http_429", "http_503", "http_500", "http_408"])
def test_a_later_attempt_may_succeed_after(reason):
    assert is_passing(reason) and meaning(reason)


@pytest.mark.parametrize(
    "reason", ["http_400", "http_401", "http_501", "bad_image", "http_", "http_5", "503", "http_²²²", "", "x"]
)
def test_a_later_attempt_does_not_change(reason):
    assert not is_passing(reason)


def test_a_status_is_as_temporary_as_that_of_a_fetch():
    assert all(is_passing(f"http_{status}") == outcomes.is_passing(f"http_{status}") for status in range(400, 600))
