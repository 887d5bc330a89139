"""A file in vlmdata/generators is listed and explained by `vlmdata steps`, docs/steps.md and the schema for editors."""

import json
import sys

import jsonschema
import pytest

import vlmdata.generators
import vlmdata.steps
from vlmdata import catalog, reference
from vlmdata.cli import main
from vlmdata.schema import recipe_schema

GENERATOR = '''
"""Write what the test says."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from vlmdata.generator import Generator
from vlmdata.parameters import Doc


@dataclass(frozen=True, kw_only=True)
class Quill(Generator):
    """Writes slowly.

    It needs ink."""

    id: ClassVar = "vlmdata.generators.{name}"
    example: ClassVar = "{{{name}: {{ink: red}}}}"
    needs: ClassVar = ("endpoint",)
    ink: Annotated[str, Doc("Colour of the ink."){default}
    nibs: Annotated[int, Doc("Number of nibs.", unit="nibs", source="vlmdata's choice")] = 2
'''
STEP = '''
"""Ask about everything."""

from dataclasses import dataclass
from typing import ClassVar

from vlmdata.generation.asking_step import AskingStep


@dataclass(frozen=True, kw_only=True)
class Wonder(AskingStep):
    """Asks."""

    id: ClassVar = "vlmdata.steps.wonder"
    reads: ClassVar = ("texts",)
    example: ClassVar = "- wonder: {generator: {quill: {ink: red}}}"

    def wording(self):
        return {}

    def questions(self, rows, context):
        return [[] for _ in range(len(rows))]
'''


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Add the generators `quill`, which has a required parameter, and `pencil`, which has none, and the step `wonder`."""
    for kind, files in {
        "generators": {
            "quill": GENERATOR.format(name="quill", default="]"),
            "pencil": GENERATOR.format(name="pencil", default='] = "grey"'),
        },
        "steps": {"wonder": STEP},
    }.items():
        (tmp_path / kind).mkdir()
        for name, text in files.items():
            (tmp_path / kind / f"{name}.py").write_text(text)
        package = getattr(vlmdata, kind)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / kind)])
    yield
    for name in ("generators.quill", "generators.pencil", "steps.wonder"):
        sys.modules.pop(f"vlmdata.{name}", None)


def test_the_list_and_the_page_have_a_section_of_generators_if_there_is_one(added, capsys):
    lines = reference.in_list(reference.every(), None).splitlines()
    assert lines.index("generators:") > lines.index("steps:")
    assert {"quill", "pencil"} <= {line.split()[0] for line in lines if line}
    page = reference.page()
    assert page.index("## Generators") > page.index("## Steps\n") and "### quill\n\nWrite what the test says." in page
    assert "```yaml\ngenerator:\n  {quill: {ink: red}}\n```" in page
    assert "- how: asks an endpoint, from one worker" in page.partition("### quill")[2]
    none = {"sources": [], "steps": reference.every_of("steps"), "generators": []}
    assert "generators:" not in reference.in_list(none, None)


def test_steps_explains_a_generator_as_text_and_json(added, capsys):
    assert main(["steps", "quill"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("quill (generator): Write what the test says.") and "It needs ink." in shown
    assert "  ink   text, required" in shown and "generator:\n    {quill: {ink: red}}" in shown
    assert main(["steps", "quill", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert (known["kind"], known["how"]) == ("generator", ["asks an endpoint, from one worker"])
    assert main(["steps", "quil"]) == 2
    assert "Did you mean 'quill'?" in capsys.readouterr().err


def test_an_asking_step_does_not_claim_what_its_example_needs(added):
    known = reference.facts("wonder", catalog.find("steps", "wonder"))
    assert known["how"] == ["measures columns, which later runs use again", "asks a generator"]


@pytest.mark.parametrize(
    "choice",
    [
        {"quill": {"ink": "red"}},
        {"quill": {"ink": "red", "nibs": 3}},
        {"pencil": None},
        {"pencil": {"ink": "blue"}},
        "pencil",
        "my.Own",
        {"my.Own": {"a": 1}},
    ],
    ids=str,
)
def test_the_schema_accepts(choice, added):
    jsonschema.validate(_recipe(choice), recipe_schema())


@pytest.mark.parametrize(
    "choice",
    ["quill", "nobody", {"quill": {}}, {"quill": None}, {"pencil": {"nib": 3}}, {"a": 1}, {"my.Own": 1, "my.Two": 2}, {}, 3],
    ids=str,
)
def test_the_schema_refuses(choice, added):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(_recipe(choice), recipe_schema())


def test_the_schema_describes_the_parameter_and_those_of_generators(added):
    printed = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(printed)
    place = printed["$defs"]["step_wonder"]["properties"]["generator"]
    assert place["description"].startswith("The model that writes") and place["examples"] == [{"quill": {"ink": "red"}}]
    quill = printed["$defs"]["generator_quill"]["properties"]
    assert quill["nibs"]["default"] == 2 and quill["ink"]["examples"] == ["red"]


def _recipe(choice):
    return {"source": {"type": "url_list", "path": "a"}, "steps": [{"wonder": {"generator": choice}}]}
