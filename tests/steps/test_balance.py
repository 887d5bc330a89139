from pathlib import Path

import numpy as np
import pytest

from tests.rows import captions
from vlmdata.step import RecipeError
from vlmdata.steps.balance import Balance


def balance(tmp_path: Path, **parameters: int) -> Balance:
    path = tmp_path / "entries.txt"
    path.write_text("dog\ncat\nblack cat\nart\n", encoding="utf-8")
    return Balance(entries=str(path), **parameters)


def test_rare_entries_keep_all_rows_and_unmatched_texts_are_dropped(tmp_path: Path) -> None:
    rows = captions(["a dog", "a party", "two cats", "Black Cat!", "art, she said"])
    assert balance(tmp_path).run(rows)["reason"].to_pylist() == [None, "no_entry", "no_entry", None, None]


def test_a_common_entry_is_limited_to_the_cap_and_a_rare_one_keeps_its_rows(tmp_path: Path) -> None:
    rows = captions([f"a dog number {i}" for i in range(4000)] + ["a dog and a black cat"] * 10)
    kept = balance(tmp_path, cap=400).run(rows)["drop"].is_null().to_numpy(zero_copy_only=False)
    assert abs(kept[:4000].sum() - 400) < 4 * np.sqrt(400)
    assert kept[4000:].all()


def test_the_draw_depends_only_on_key_and_seed(tmp_path: Path) -> None:
    rows = captions([f"a dog number {i}" for i in range(300)])
    first = balance(tmp_path, cap=100).run(rows)["drop"].to_pylist()
    order = np.random.default_rng(0).permutation(300)
    again = balance(tmp_path, cap=100).run(rows.take(order))["drop"].to_pylist()
    assert again == [first[place] for place in order]
    assert balance(tmp_path, cap=100, seed=1).run(rows)["drop"].to_pylist() != first


def test_a_missing_file_is_refused_before_any_work() -> None:
    with pytest.raises(RecipeError, match="there is no file"):
        Balance(entries="/nowhere/entries.txt").check()
