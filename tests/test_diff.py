"""Two datasets are compared row by row: who came, who went, and by which step."""

import pyarrow.parquet as pq

from tests.engine.site import site
from vlmdata import run
from vlmdata.cli import main
from vlmdata.diff import diff


def test_every_way_a_row_can_go_is_told_with_its_step(tmp_path, capsys):
    with site(tmp_path, 64) as web:
        run(web.recipe, tmp_path / "a", local=True, workers=1)
        run(web.recipe, tmp_path / "loose", set={"image_size.min_side": 10}, local=True, workers=1)
        run(web.recipe, tmp_path / "small", set={"resize.size": 40}, local=True, workers=1)
        table = pq.read_table(tmp_path / "urls.parquet")
        pq.write_table(table.slice(2), tmp_path / "urls.parquet")
        run(web.recipe, tmp_path / "fewer", local=True, workers=1)

    def ways(a, b):
        return {(change.before, change.after): change.rows for change in diff(tmp_path / a, tmp_path / b)}

    assert ways("a", "a") == {}
    assert ways("a", "loose") == {("image_size: min_side", "kept"): 4}
    assert ways("a", "fewer") == {("kept", "not there"): 2}
    assert ways("fewer", "a") == {("not there", "kept"): 2}
    assert ways("a", "small") == {("kept", "kept, but another sample"): 48}
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "loose")]) == 0
    assert "4  image_size: min_side -> kept" in capsys.readouterr().out
