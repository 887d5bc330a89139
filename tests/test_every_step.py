"""These rules hold for every file in vlmdata/steps, vlmdata/sources and vlmdata/generators, including future ones."""

import dataclasses
import inspect
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from tests.rows import captions
from vlmdata import catalog
from vlmdata.generation.choice import completed
from vlmdata.parameters import parameters
from vlmdata.row import ROW, conform, drop_rows

STEPS = [(name, catalog.find("steps", name)) for name in catalog.names("steps")]
SOURCES = [(name, catalog.find("sources", name)) for name in catalog.names("sources")]
GENERATORS = [(name, catalog.find("generators", name)) for name in catalog.names("generators")]
EVERY = [pytest.param(cls, id=name) for name, cls in STEPS + SOURCES + GENERATORS]
ROW_STEPS = [pytest.param(cls, id=name) for name, cls in STEPS if not cls.needs]


@pytest.mark.parametrize("cls", EVERY)
def test_each_class_is_a_frozen_dataclass_with_a_docstring(cls):
    assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
    assert cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}("), "dataclass wrote this docstring, not a person"
    assert inspect.getdoc(inspect.getmodule(cls))


@pytest.mark.parametrize("cls", EVERY)
def test_each_class_has_a_test_file(cls):
    kind, name = cls.__module__.split(".")[1:]
    assert (Path(__file__).parent / kind / f"test_{name}.py").exists(), f"write tests/{kind}/test_{name}.py"


@pytest.mark.parametrize("cls", EVERY)
def test_each_class_declares_its_id_in_datasets(cls):
    kind, name = cls.__module__.split(".")[1:]
    assert vars(cls).get("id") == f"vlmdata.{kind}.{name}", "declare it: id: ClassVar = ..."


@pytest.mark.parametrize("cls", [pytest.param(c, id=n) for n, c in STEPS])
def test_columns_that_a_step_declares_exist(cls):
    fields = {f.name for f in dataclasses.fields(cls)}
    assert set(cls.measured_by) <= fields
    assert all(isinstance(kind, pa.DataType) for kind in cls.writes.values())
    assert set(cls.changes) <= set(ROW.names)
    assert set(cls.needs) <= {"model", "gpu", "web", "endpoint"}
    assert not (cls.sees_all and cls.writes), "a decision over all rows measures nothing: split the step in two"


def test_each_generator_shows_itself_in_its_example_and_needs_a_model_or_an_endpoint():
    for name, cls in GENERATORS:
        assert list(completed(yaml.safe_load(cls.example))) == [name]
        assert set(cls.needs) in ({"model"}, {"model", "gpu"}, {"endpoint"})
        assert all(one.doc.text for one in parameters(cls)), "add a Doc to each parameter"


@pytest.mark.parametrize("cls", ROW_STEPS)
def test_each_step_accepts_a_table_without_rows(cls):
    step = _with_defaults(cls)
    rows = conform(pa.table({"key": pa.array([], pa.string())}))
    for column in step.columns_read():
        if column not in rows.column_names:
            rows = rows.append_column(column, pa.array([], pa.float64()))
    assert len(step.run(rows)) == 0


READS_A_FILE = {"nearest_centroid"}  # its decision needs the user's file of centroids; its own test covers this
MEASURING = [pytest.param(cls, id=name) for name, cls in STEPS if cls.writes and name not in READS_A_FILE]


@pytest.mark.parametrize("cls", MEASURING)
def test_each_step_decides_about_rows_rejected_before_it_measured(cls):
    step = _of_example(cls)
    rows = drop_rows(captions(["one", "two"]), np.array([True, True]), "earlier", reason="broken")
    for name, kind in step.columns_written().items():
        if name not in ROW.names:
            rows = rows.append_column(step.column(name), pa.nulls(2, kind))
    assert step.decide(rows)["reason"].to_pylist() == ["broken", "broken"]


def _of_example(cls: type):
    for step in yaml.safe_load(cls.example):
        name, given = next(iter(step.items())) if isinstance(step, dict) else (step, {})
        if name == cls.__module__.rpartition(".")[2]:
            return cls(**given)
    pytest.fail("its example does not show the step")


def _with_defaults(cls: type):
    required = [f for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
    if required:
        pytest.skip(f"has no default for {required[0].name}; its own test covers this")
    return cls()
