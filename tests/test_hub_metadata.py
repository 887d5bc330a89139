"""The card's metadata has the Hub's words, and claims no licence and no language that the source does not state."""

import json
from importlib import resources

import pytest
import yaml
from huggingface_hub import DatasetCard, DatasetCardData

from tests.exporting.made import IMAGE, caption, chat, document, make_dataset
from vlmdata import export
from vlmdata.card import card
from vlmdata.hub_metadata import NAMES, TASKS, identifier_of, language_of, licence, size_category

COMMONS = "https://creativecommons.org/licenses"
# Both lists as the Hub published them in August 2026, on the pages that vlmdata/hub_metadata.py names.
LICENCES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m afl-3.0
artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0
cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0
epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research
intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openmdw-1.1 openrail++ osl-3.0
postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2 llama3
llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown other
"""
TASK_CATEGORIES = """
text-classification token-classification table-question-answering question-answering zero-shot-classification translation
summarization feature-extraction text-generation fill-mask sentence-similarity text-to-speech text-to-audio
automatic-speech-recognition audio-to-audio audio-classification voice-activity-detection depth-estimation
image-classification object-detection image-segmentation text-to-image image-to-text image-to-image image-to-video
unconditional-image-generation video-classification reinforcement-learning robotics tabular-classification
tabular-regression tabular-to-text table-to-text multiple-choice text-ranking text-retrieval time-series-forecasting
text-to-video image-text-to-text image-text-to-image image-text-to-video visual-question-answering
zero-shot-image-classification graph-ml mask-generation zero-shot-object-detection text-to-3d image-to-3d
image-feature-extraction video-text-to-text visual-document-retrieval any-to-any
"""
UNKNOWN = {"license": "unknown"}
SEVERAL = {"license": "other", "license_name": "several-licenses"}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("CC BY 4.0", "cc-by-4.0"),
        ("cc-by-sa-4.0", "cc-by-sa-4.0"),
        ("https://creativecommons.org/licenses/by-nc-sa/3.0/", "cc-by-nc-sa-3.0"),
        ("http://creativecommons.org/licenses/by/4.0/legalcode", "cc-by-4.0"),
        ("https://creativecommons.org/licenses/by/4.0/deed.de", "cc-by-4.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0"),
        ("CC0", "cc0-1.0"),
        ("MIT License", "mit"),
        ("https://opendatacommons.org/licenses/by/1-0/", "odc-by"),
        ("Etalab 2.0", "etalab-2.0"),
        ("BSD-3-Clause", "bsd-3-clause"),
        ("CC BY", None),
        ("CC BY-SA 2.0", None),
        ("https://creativecommons.org/licenses/by/3.0/us/", None),
        ("https://creativecommons.org.example.org/licenses/by/4.0/", None),
        ("mine", None),
    ],
)
def test_a_licence_has_an_identifier_only_if_it_is_certain(value, found):
    assert identifier_of(value) == found


@pytest.mark.parametrize(
    ("provenance", "found"),
    [
        ({}, UNKNOWN),
        ({"license": {"CC BY 4.0": 10}}, {"license": "cc-by-4.0"}),
        ({"license": {"CC BY 4.0": 9}}, UNKNOWN),
        ({"license": {"CC BY 4.0": 9, "": 1}}, UNKNOWN),
        ({"license": {"unknown": 10}}, UNKNOWN),
        ({"license": {"CC BY 4.0": 9, "CC0": 1}}, SEVERAL),
        (
            {"license": {"CC BY 4.0": 10}, "license_url": {"https://creativecommons.org/licenses/by/4.0/": 4}},
            {"license": "cc-by-4.0"},
        ),
        ({"license": {"CC BY 4.0": 10}, "license_url": {"https://creativecommons.org/licenses/by/3.0/": 4}}, SEVERAL),
        ({"license": {"CC BY 4.0": 10}, "license_url": {"": 10}}, {"license": "cc-by-4.0"}),
        ({"license": {"My Terms!": 10}}, {"license": "other", "license_name": "my-terms"}),
        (
            {"license_url": {"https://creativecommons.org/licenses/by/3.0/us/": 10}},
            {
                "license": "other",
                "license_name": "licenses-by-3.0-us",
                "license_link": "https://creativecommons.org/licenses/by/3.0/us/",
            },
        ),
        ({"source": {"CC BY 4.0": 10}}, UNKNOWN),
    ],
)
def test_a_card_names_a_licence_only_if_all_samples_have_it(provenance, found):
    assert licence(provenance, 10) == found


def test_every_licence_and_task_is_one_that_the_hub_lists():
    assert set(NAMES.values()) <= set(LICENCES.split())
    assert {task for found in TASKS.values() for task in found} <= set(TASK_CATEGORIES.split())


def test_the_size_has_the_name_of_the_hub():
    sizes = {size_category(number) for number in (0, 999, 1_000, 999_999, 10**6, 10**9, 10**12)}
    known = json.loads(resources.files("datasets").joinpath("utils/resources/size_categories.json").read_text())
    assert {size_category(10**power) for power in range(15)} == set(known) - {"unknown"}
    assert sizes == {"n<1K", "1K<n<10K", "100K<n<1M", "1M<n<10M", "1B<n<10B", "n>1T"}


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ([{"language": {"keep": ["en"]}}], "en"),
        ([{"language": {"keep": ["en", "und"]}}], "en"),
        ([{"language": {"keep": ["en", "de"]}}], None),
        ([{"language": {"keep": []}}], None),
        ([{"text_length": {}}], None),
    ],
)
def test_a_language_is_named_only_if_a_step_keeps_no_other(steps, found):
    assert language_of({"steps": steps}) == found


def of_card(text: str) -> DatasetCardData:
    """Return the metadata of a card, as the client of the Hub reads it."""
    found = DatasetCard(text).data
    assert isinstance(found, DatasetCardData) and yaml.safe_load(text.split("---\n")[1]) == found.to_dict()
    return found


def test_the_client_of_the_hub_reads_the_metadata_of_a_dataset():
    recipe = {"source": {}, "steps": [{"language": {"keep": ["no"]}}], "shards": {"layout": "captions"}}
    manifest = {"kept": 5, "rows": 9, "dropped": [], "recipe": recipe, "versions": {}, "generations": {}, "files": {}}
    manifest["provenance"] = {"license": {"CC0": 5}}
    found = of_card(card(manifest, ["jpg", "png", "json", "txt"], "captions"))
    assert (found.license, found.language, found.size_categories) == ("cc0-1.0", ["no"], ["n<1K"])
    assert found.task_categories == ["image-to-text", "text-to-image"]


@pytest.mark.parametrize(
    ("to", "options", "made", "files", "tasks"),
    [
        ("parquet", {}, caption, "data/train-*.parquet", ["image-to-text", "text-to-image"]),
        ("hf", {}, caption, "data-*.arrow", ["image-to-text", "text-to-image"]),
        ("tars", {}, caption, "*.tar", ["image-to-text", "text-to-image"]),
        ("tars", {}, chat, "*.tar", ["image-text-to-text", "visual-question-answering"]),
        ("energon", {}, "document", "*.tar", ["image-text-to-text"]),
        ("img2dataset", {}, caption, "*.tar", ["image-to-text", "text-to-image"]),
        ("obelics", {}, "document", "data/train-*.parquet", ["image-text-to-text"]),
        ("messages", {"form": "parquet"}, chat, "data/train-*.parquet", ["image-text-to-text", "visual-question-answering"]),
    ],
)
def test_an_export_for_the_hub_has_a_card_and_loads_through_it(tmp_path, to, options, made, files, tasks):
    import datasets

    def one(number):
        return document(number, ["before", IMAGE, "after"]) if made == "document" else made(number)

    make_dataset(tmp_path / "out", map(one, range(5)), layout="captions" if made is caption else "documents", per_shard=3)
    export(tmp_path / "out", tmp_path / "to", to=to, options=options)
    text = (tmp_path / "to" / "README.md").read_text()
    found = of_card(text)
    assert found.task_categories == tasks and found.to_dict()["configs"][0]["data_files"][0]["path"] == files
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset(str(tmp_path / "to"), split="train", cache_dir=cache) if to != "hf" else None
    loaded = datasets.load_from_disk(str(tmp_path / "to")) if loaded is None else loaded
    assert len(loaded) == 5
    described = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
    assert set(loaded.column_names) <= described


@pytest.mark.parametrize(("made", "layout"), [(caption, "captions"), (chat, "documents")])
def test_the_card_of_an_export_to_mds_describes_its_columns_and_turns_the_viewer_off(tmp_path, made, layout):
    make_dataset(tmp_path / "out", map(made, range(5)), layout=layout)
    export(tmp_path / "out", tmp_path / "to", to="mds")
    text = (tmp_path / "to" / "README.md").read_text()
    columns = json.loads((tmp_path / "to" / "index.json").read_text())["shards"][0]["column_names"]
    assert [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")] == columns
    assert of_card(text).viewer is False and "configs" not in of_card(text).to_dict()


@pytest.mark.parametrize(("to", "options"), [("messages", {"form": "parts"}), ("folder", {}), ("llava", {})])
def test_an_export_with_a_file_for_each_image_has_no_card(tmp_path, to, options):
    make_dataset(tmp_path / "out", map(chat, range(3)), layout="documents")
    export(tmp_path / "out", tmp_path / "to", to=to, options=options)
    assert not (tmp_path / "to" / "README.md").exists()
