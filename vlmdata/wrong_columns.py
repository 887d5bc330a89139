"""Finds steps that read a column which no step before them measures, and steps with a name that is taken."""

from __future__ import annotations

from vlmdata import catalog
from vlmdata.columns import COLUMNS
from vlmdata.loader.index.index_file import INDEX
from vlmdata.row import ROW
from vlmdata.step import Step, file_name


def wrong_columns(steps: tuple[Step, ...], where: str) -> list[str]:
    """Return a line for each step with the name of another, and for each column that no step before its reader measures."""
    mistakes = []
    known = set(ROW.names)
    fields = {f"{column}.{field.name}" for column in ("images", "texts") for field in ROW.field(column).type.value_type}
    later = {name: (number, step.name) for number, step in enumerate(steps, 1) for name in _columns_of(step)}
    seen: set[str] = set()
    for number, step in enumerate(steps, 1):
        here = f"{where}, step {number}"
        if step.name in seen:
            mistakes.append(f"{here}: another step is already called '{step.name}'. Give this step a `label`")
        if step.label in {*ROW.names, *COLUMNS, *INDEX.names}:
            mistakes.append(f"{here}: '{step.label}' is the name of a vlmdata column. Choose another `label`")
        seen.add(step.name)
        unknown = [column for column in step.columns_read() if column not in known | fields]
        for column in {column.partition(".")[0]: column for column in reversed(unknown)}.values():  # one for each missing step
            problem = f"{here}: {step.name} reads the column '{column}', which no step before it measures."
            if column in later and later[column][0] > number:
                mistakes.append(f"{problem} Move step {number} behind step {later[column][0]}, {later[column][1]}")
            else:
                mistakes.append(problem + _fix(column, steps[: number - 1], known - set(ROW.names)))
        known |= _columns_of(step)
    return mistakes


def _fix(column: str, before: tuple[Step, ...], known: set[str]) -> str:
    """Return the end of a message about a column that no step of a recipe measures: how to get it."""
    maker = column.partition(".")[0]
    if maker in catalog.names("steps") and all(step.name != maker for step in before):
        labels = [step.name for step in before if file_name(step) == maker]
        return f" Write '{labels[-1]}', the label of {maker}, in place of '{maker}'" if labels else f" Put {maker} before it"
    return catalog.suggest(column, sorted(known))


def _columns_of(step: Step) -> set[str]:
    return {step.column(name) for name in step.columns_written()} | set(step.columns_decided())
