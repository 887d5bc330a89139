"""`vlmdata show` prints the summary of a finished dataset in a terminal."""

import webbrowser

import pytest

from tests.engine.site import site
from vlmdata import run
from vlmdata.cli import main

pytestmark = pytest.mark.whole


@pytest.fixture(scope="session")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("show")
    with site(folder, 32) as web:
        run(web.recipe, folder / "out", local=True, workers=1)
    return folder / "out"


def test_show_prints_the_kept_rows_and_the_steps_that_dropped_others(out, capsys):
    assert main(["show", str(out), "--samples", "0"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"{out}: 24 of 32 rows kept, in 1 tar (")
    assert [line.split()[0] for line in printed[1:]] == ["32", "-2", "-2", "-2", "-2", "24"]
    assert "image_size: min_side" in " ".join(" ".join(printed).split())


def test_samples_are_printed_with_their_texts_members_and_sizes(out, capsys):
    assert main(["show", str(out), "--samples", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("a picture of the number") == 2
    assert printed.count("(48 x 48)") == 2
    assert printed.count("json ") == printed.count("txt ") == printed.count("jpg ") == 2


def test_open_shows_the_report_from_disk(out, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert main(["show", str(out), "--open"]) == 0
    assert opened == [(out / "report.html").as_uri()]


def test_a_folder_without_a_manifest_is_reported_with_the_fix(tmp_path, capsys):
    assert main(["show", str(tmp_path)]) == 2
    assert "not a finished dataset" in capsys.readouterr().err
