"""Whole runs with a judge: scores reach samples, ledger and later steps, and a changed limit asks nothing again."""

import json
import re
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.generators.openai_server import OpenAIServer
from tests.generators.scenes import draw_scenes
from tests.generators.truth import Truth
from tests.steps.test_claims import sentences
from vlmdata import run

AXES = {"truth": "Is the answer true of the picture?"}
SCENES = draw_scenes(4)


def facts_of(out):
    """Return the JSON of each sample in the tars, by its key."""
    found = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            read = [json.load(tar.extractfile(one)) for one in tar if one.name.endswith(".json")]
        found |= {one["key"]: one for one in read}
    return found


def recipe_of(folder, source, steps):
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"source": source, "shards": {"layout": "documents"}, "part_rows": 3, "steps": steps}))
    return path


def conversations(folder):
    """Write conversations with two turns about each picture: the first answer is false, the second one is true."""
    records = []
    for number, scene in enumerate(SCENES):
        (folder / f"{number}.png").write_bytes(scene.image)
        count = len(scene.things)
        said = ["<image>\nHow many objects are there?", f"{count + 1}.", "Are you sure?", f"There are {count} objects."]
        turns = [{"from": ["human", "gpt"][n % 2], "value": text} for n, text in enumerate(said)]
        records.append({"id": str(number), "image": f"{number}.png", "conversations": turns})
    (folder / "list.json").write_text(json.dumps(records))
    return {"type": "llava_json", "path": f"{folder}/list.json"}


@pytest.mark.whole
def test_false_turns_leave_samples_with_their_scores_and_a_limit_asks_nothing_again(tmp_path):
    out = tmp_path / "out"
    with OpenAIServer(Truth(SCENES).answer) as server:
        step = {"generator": {"openai": {"model": "tester", "url": server.url}}, "axes": AXES}
        recipe = recipe_of(tmp_path, conversations(tmp_path), ["resize", {"judge": step}])
        manifest = run(recipe, out, local=True, workers=2)
        assert manifest["kept"] == 4 and server.requests == 8
        entry = manifest["generations"]["judge"]
        assert (entry["answers"], entry["accepted"], entry["rejected"]) == (8, 8, {})
        assert [one["scores"] for one in facts_of(out).values()] == [
            {"judge.truth": [None, None, pytest.approx(1.4), None, pytest.approx(4.6)], "judge.truth.alternatives": None}
        ] * 4
        manifest = run(recipe, out, local=True, overrides={"judge.min": {"truth": 3}})
        assert manifest["kept"] == 4 and server.requests == 8
        assert manifest["generations"]["judge"]["rejected"] == {"min_truth": 4}
        for one in facts_of(out).values():
            assert (one["roles"], one["texts"][:2], one.get("turns")) == (
                ["user", "user", "assistant"],
                [None, "Are you sure?"],
                None,
            )
            assert one["scores"]["judge.truth"] == [None, None, pytest.approx(4.6)]
        ledger = pq.read_table(next((out / "ledger").glob("*.parquet"))).to_pylist()
        assert [text["reason"] for text in ledger[0]["texts"] if text] == ["min_truth", "min_truth", None, None]
        manifest = run(recipe, out, local=True, overrides={"judge.min": {"truth": 5}})
        assert manifest["kept"] == 0 and server.requests == 8
        assert [(one["step"], one["reason"], one["rows"]) for one in manifest["dropped"]] == [("judge", "min_truth", 4)]
        run(recipe, out, local=True, overrides={"judge.axes": {"truth": "Is it true?"}})
        assert server.requests == 16


@pytest.mark.whole
def test_scores_of_captions_are_read_by_later_steps(tmp_path):
    out = tmp_path / "out"
    for number, scene in enumerate(SCENES):
        (tmp_path / f"{number}.png").write_bytes(scene.image)
        (tmp_path / f"{number}.txt").write_text(f"There are {len(scene.things) + number % 2} objects.")
    with OpenAIServer(Truth(SCENES).answer) as server:
        generator = {"openai": {"model": "tester", "url": server.url}}
        steps = [
            "resize",
            {"judge": {"generator": generator, "axes": AXES}},
            {"vqa_score": {"generator": generator}},
            {"top_fraction": {"score": "vqa_score", "fraction": 0.25}},
            {"min_scores": {"scores": {"vqa_score": 0.5}}},
        ]
        recipe = recipe_of(tmp_path, {"type": "files", "path": str(tmp_path)}, steps)
        manifest = run(recipe, out, local=True)
        assert (manifest["kept"], server.requests) == (2, 8)
        assert run(recipe, out, local=True, overrides={"top_fraction.fraction": 1})["kept"] == 2
        assert server.requests == 8
    for one in facts_of(out).values():
        assert one["scores"]["vqa_score"] == [pytest.approx(0.9), None]
        assert "asked" not in str(sorted(one["scores"]))


@pytest.mark.whole
def test_sampled_captions_become_preference_pairs_and_only_false_claims_are_rejected(tmp_path):
    """A captioner that errs in 60% of its answers, a model that lists sentences, and one that knows what is true."""
    scenes, out = draw_scenes(20, seed=4), tmp_path / "out"
    captioner, truth = Truth(scenes, error_rate=0.6, varies=True), Truth(scenes)
    for number, scene in enumerate(scenes):
        (tmp_path / f"{number:02d}.png").write_bytes(scene.image)
    with OpenAIServer(captioner.answer) as writer, OpenAIServer(sentences) as divider, OpenAIServer(truth.answer) as judge:
        urls = [{"generator": {"openai": {"model": "tester", "url": one.url}}} for one in (writer, divider, judge)]
        steps = [
            {"resize": {"mode": "no"}},
            {"recaption": {**urls[0], "samples": 6, "temperature": 0.7}},
            {"claims": {**urls[1], "origins": ["recaption"]}},
            {"check_claims": {**urls[2], "origins": ["recaption"]}},
            "preference_pairs",
        ]
        recipe = recipe_of(tmp_path, {"type": "files", "path": str(tmp_path)}, steps)
        manifest = run(recipe, out, local=True)
        requests = [one.requests for one in (writer, divider, judge)]
        assert manifest["kept"] + sum(one["rows"] for one in manifest["dropped"]) == 20 and manifest["kept"] > 10
        run(recipe, out, local=True, overrides={"preference_pairs.min_gap": 2, "check_claims.min_mass": 0.4})
        assert requests == [one.requests for one in (writer, divider, judge)]
        run(recipe, out, local=True)
    wrong = {(one.key, one.text) for one in captioner.wrong()}
    by_caption = {one.text: one.key for one in captioner.said()}
    for one in facts_of(out).values():
        for pair in one["preferences"]:
            chosen, rejected = (pair[name][0]["content"][0]["text"] for name in ("chosen", "rejected"))
            assert (by_caption[chosen], chosen) not in wrong and (by_caption[rejected], rejected) in wrong
            assert (pair["chosen_score"], pair["images"]) == (0, 1) and pair["rejected_score"] <= -1
    code = re.search(r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs/judging.md").read_text(), re.S)[1]
    names: dict = {}
    exec(code.replace('"OUT"', repr(str(out))), names)  # the page's way to give the pairs to trl
    assert len(names["pairs"]) == sum(len(one["preferences"]) for one in facts_of(out).values())
    assert {(len(one["images"]), one["images"][0].size) for one in names["pairs"]} == {(1, (96, 96))}
