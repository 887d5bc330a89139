import json

import numpy as np
import pyarrow as pa
import pytest

from tests.rows import captions
from vlmdata.row import set_column
from vlmdata.step import RecipeError
from vlmdata.steps.source_score import SourceScore


def brought(*values: object) -> pa.Table:
    rows = captions(["text"] * len(values))
    extras = [json.dumps({"similarity": value}) for value in values]
    return set_column(rows, "extra", pa.array(extras, pa.string()))


def test_a_single_precision_number_is_compared_as_its_decimal() -> None:
    rows = brought(float(np.float32(0.26)), float(np.nextafter(np.float32(0.26), np.float32(0))), "0.3", None, "none")
    found = SourceScore(of="similarity", min_value=0.26).run(rows)
    assert found["source_score"].to_pylist()[0] == 0.26
    assert found["reason"].to_pylist() == [None, "min_value", None, None, None]
    double = SourceScore(of="similarity", single=False, min_value=0.26).run(rows)
    assert double["reason"].to_pylist()[:2] == ["min_value", "min_value"]


def test_a_row_above_the_greatest_value_is_dropped() -> None:
    found = SourceScore(of="similarity", max_value=0.5).run(brought(0.5, 0.51))
    assert found["reason"].to_pylist() == [None, "max_value"]
    with pytest.raises(RecipeError, match="above max_value"):
        SourceScore(of="a", min_value=2, max_value=1).check()
