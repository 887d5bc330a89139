"""The schemas describe what is written: the recipe's schema is generated, and the others are checked against real files."""

import json
import tarfile
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.engine.site import manifest, site
from tests.rows import document, table
from vlmdata import run
from vlmdata.engine.output.sample import samples
from vlmdata.schema import text
from vlmdata.shipped import PIPELINES

pytestmark = pytest.mark.whole

SCHEMAS = Path(__file__).parent.parent / "schemas"


def check(name: str, value: object) -> None:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(value, schema)


def test_the_recipe_schema_is_generated_from_the_dataclasses():
    assert (SCHEMAS / "recipe.json").read_text() == text(), "run: python -m vlmdata.schema > schemas/recipe.json"


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("build/*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_match_the_schema(path):
    check("recipe", yaml.safe_load(path.read_text()))


def test_a_misspelt_parameter_does_not_match_the_schema():
    with pytest.raises(jsonschema.ValidationError):
        check("recipe", {"source": {"type": "url_list", "path": "a"}, "steps": [{"image_size": {"min_sid": 3}}]})


def test_a_built_dataset_matches_the_schemas(tmp_path):
    with site(tmp_path, 32) as web:
        run(web.recipe, tmp_path / "out", local=True, workers=1)
    check("manifest", manifest(tmp_path / "out"))
    with tarfile.open(tmp_path / "out" / "00000.tar") as tar:
        for member in tar:
            if member.name.endswith(".json"):
                check("sample", json.load(tar.extractfile(member)))


def test_a_document_matches_the_schema():
    image = {"url": "http://example.org/a.jpg", "blob": "b", "offset": 0, "size": 1, "format": "jpeg", "width": 3, "height": 4}
    sample = next(samples(table([document("before", image, "after")]), "documents", 0, 1))
    check("sample", json.loads(dict(sample.members)["json"]))


def test_a_conversation_matches_the_schema_and_other_forms_of_turns_do_not():
    turn = {"kind": "tool_call", "train": False, "name": "w"}
    rows = {**document("a", "b", "c"), "roles": ["user", "assistant", "tool"], "tools": '[{"name": "w"}]'}
    rows["turns"] = [None, json.dumps(turn), '{"begins": true, "tool_call_id": "c1"}']
    facts = json.loads(dict(next(samples(table([rows]), "documents", 0, 1)).members)["json"])
    check("sample", facts)
    for wrong in ({"turns": [{}]}, {"turns": [{"kind": "song"}]}, {"roles": ["judge"]}, {"tools": ["w"]}):
        with pytest.raises(jsonschema.ValidationError):
            check("sample", {**facts, **wrong})
