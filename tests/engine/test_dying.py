"""A run dies before a chosen change to the file system, and a later run resumes and writes the bytes of an undisturbed run."""

import functools
import itertools

import pytest

from tests.engine.dying import DIED, die_before, dying_run, spoiled_run
from tests.engine.site import download, hashes, ledger, site
from vlmdata.audit import audit

pytestmark = [pytest.mark.whole, pytest.mark.timeout(1200)]
STRIDE = 11  # `make chaos` tests every change


@pytest.fixture(scope="session")
def web(tmp_path_factory):
    """Serve a site whose run has every stage: a plan, two passes with a decision between them, shards, ledger, report and
    card."""
    folder = tmp_path_factory.mktemp("dying")
    steps = [{"text_length": {}}, download(), {"resize": {"size": 48}}, "dedupe_phash", {"image_detail": {}}]
    with site(folder, 20, steps=steps, samples=8, part_rows=10) as web:
        assert dying_run(web.recipe, folder / "undisturbed", None) == 0
        web.expected = hashes(folder / "undisturbed")
        yield web


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_that_dies_before_any_change_resumes(web, tmp_path):
    for change in itertools.count(0, STRIDE):
        out = tmp_path / str(change)
        status = dying_run(web.recipe, out, change)
        if status == DIED:
            assert dying_run(web.recipe, out, None) == 0
        assert hashes(out) == web.expected and audit(out, read_bytes=True) == []
        if status != DIED:
            break
    assert status == 0 and change > 5 * STRIDE


def test_a_run_that_dies_repeatedly_resumes(web, tmp_path):
    out = tmp_path / "out"
    deaths = 0
    while dying_run(web.recipe, out, 15 + 15 * deaths) == DIED:  # each attempt gets a little further
        deaths += 1
    assert deaths > 2 and hashes(out) == web.expected
    assert len({line["key"] for line in ledger(out)}) == len(ledger(out)) == 20


@pytest.mark.parametrize("change", [0, 4, 9])
def test_a_worker_that_dies_before_a_change_is_replaced(web, tmp_path, change):
    out = tmp_path / "out"
    death = functools.partial(die_before, change, out, tmp_path / "died")
    assert spoiled_run(web.recipe, out, death, tmp_path / "output") == 0
    assert (tmp_path / "died").exists() and hashes(out) == web.expected
