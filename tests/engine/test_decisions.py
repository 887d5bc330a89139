"""A global decision sees only the columns that it reads, and its changes are merged into the full rows."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.rows import captions, document, table
from vlmdata.engine.drive import decide as decisions
from vlmdata.engine.drive.decide import columns_for, decide
from vlmdata.engine.forget.erase import erase
from vlmdata.engine.partitions.decided import Decided, narrowed
from vlmdata.engine.partitions.pieces import keep_piece
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.row import drop_rows, set_column
from vlmdata.step import Step
from vlmdata.steps.dedupe_exact import DedupeExact
from vlmdata.steps.dedupe_minhash import DedupeMinhash
from vlmdata.steps.dedupe_phash import DedupePhash
from vlmdata.steps.split import Split
from vlmdata.steps.top_fraction import TopFraction

VERDICT = ("drop", "reason", "value", "threshold")


def test_only_the_image_fields_that_a_step_reads_are_sent() -> None:
    size = ("size", "width", "height", "original_width", "original_height")
    assert columns_for(DedupePhash())["images"] == (*size, "phash", *VERDICT)
    assert columns_for(TopFraction())["images"] == VERDICT
    assert columns_for(DedupeMinhash())["texts"] == ("text", *VERDICT)
    assert "texts" not in columns_for(DedupeExact())
    assert columns_for(DedupeExact(merge_captions=True))["texts"] == (), "what is merged is needed whole"
    assert "images" not in columns_for(DedupeExact(by="row"))


def test_a_row_sent_for_perceptual_hashes_takes_less_than_200_bytes() -> None:
    count = 2000
    random = np.random.default_rng(0)
    hashes = list(random.integers(0, 2**63, count).astype(np.uint64))
    rows = captions(["a caption of some fifty characters, as captions go"] * count, phash=hashes, size=[90_000] * count)
    assert narrowed(rows, columns_for(DedupePhash())).nbytes / count < 200 < rows.nbytes / count


def pictures() -> pa.Table:
    """Return captions and documents, some dropped before and some duplicates of others in each way that the steps look for."""
    one, two = {"url": "u1", "sha256": "a", "phash": 1}, {"url": "u2", "sha256": "b", "phash": 2**40}
    text = " ".join(f"w{number}" for number in range(30))
    rows = table(
        [
            document(one, text),
            document({**one, "size": 9}, "so", two, f"{text} more"),
            document({**two, "drop": "before"}, two),
            {**document(two, text), "drop": "before"},
            document("no image at all"),
            document({"url": "u3", "sha256": "c", "phash": 3}, text),
        ]
    )
    scores = [[0.1, None], [0.5, None, 0.2, None], [None, 0.4], None, None, [0.3, None]]
    return set_column(rows, "clip_score", pa.array(scores, pa.list_(pa.float32())))


@pytest.mark.parametrize(
    "step",
    [
        DedupeExact(),
        DedupeExact(by="url", merge_captions=True),
        DedupePhash(),
        DedupeMinhash(),
        TopFraction(fraction=0.3),
        Split(shares={"a": 0.5, "b": 0.5}, only="a"),
    ],
    ids=lambda step: step.name,
)
def test_decisions_on_selected_columns_equal_those_on_full_rows(step: Step, tmp_path: Path) -> None:
    rows, store = pictures(), LocalStore(tmp_path)
    cuts = [rows.slice(0, 2), rows.slice(2, 4)]
    tables = []
    for part, some in enumerate(cuts):
        shown = narrowed(some, columns_for(step))
        shown = set_column(shown, "part", pa.array([part] * len(some), pa.int32()))
        tables.append(set_column(shown, "row", pa.array(range(len(some)), pa.int32())))
    name = decide(step, list(tables), store)
    assert decide(step, tables, store) == name
    found = [Decided(store).apply(some.combine_chunks(), name, part).to_pylist() for part, some in enumerate(cuts)]
    expected = step.decide(rows).to_pylist()
    assert [*found[0], *found[1]] == expected != rows.to_pylist()


def test_a_takedown_erases_the_pieces_that_a_killed_decision_left(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    path = keep_piece(store, np.frombuffer(b"a text that somebody wants forgotten", np.uint8))
    assert Path(path).exists()
    erase(store, {}, set())
    assert not Path(path).exists()


def test_each_partition_gets_its_decisions_across_groups_and_in_any_order(tmp_path: Path, monkeypatch) -> None:
    """The rows include partitions that span several groups, partitions without a row, and a decision that changes nothing."""
    monkeypatch.setattr(decisions, "GROUP_ROWS", 3)
    store, sizes = LocalStore(tmp_path), [4, 0, 1, 9, 2, 3, 5]
    lost = np.random.default_rng(0).random((len(sizes), 9)) < 0.6
    lost[4] = False
    rows = [captions([f"{part} {row}" for row in range(size)]) for part, size in enumerate(sizes)]
    expected = [drop_rows(some, lost[part, : len(some)], "s") for part, some in enumerate(rows)]

    class Chosen(Step):
        sees_all = True

        def decide(self, seen: pa.Table) -> pa.Table:
            return drop_rows(seen, lost[seen["part"].to_numpy(), seen["row"].to_numpy()], "s")

    def shown(part: int) -> pa.Table:
        some = narrowed(rows[part], columns_for(Chosen()))
        some = set_column(some, "part", pa.array([part] * len(some), pa.int32()))
        return set_column(some, "row", pa.array(range(len(some)), pa.int32()))

    name = decide(Chosen(), [shown(part) for part in range(len(sizes))], store)
    nothing = decide(Step(), [shown(part) for part in range(len(sizes))], store)
    decided = Decided(store)
    for part in [*range(len(sizes)), 3, 0, 6, 2, 2]:
        assert decided.apply(rows[part], name, part).equals(expected[part])
        assert decided.apply(rows[part], nothing, part).equals(rows[part])
