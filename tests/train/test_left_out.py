"""Samples without anything to learn are counted by reason before the first step, and schedules do not count them as steps."""

import json
import math
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.inputs.tars import document_sample, jpeg, write_tar
from tests.train.runs import tiny_recipe, write_data
from tests.train.shards import caption_samples, drawing
from tests.train.test_data_feed import feed, model
from tests.train.test_loop_log import records
from vlmdata.loader.index.build_index import build_index
from vlmdata.loader.lengths import Lengths
from vlmdata.readers import dialogue, image_members, tool_calls
from vlmdata.step import RecipeError
from vlmdata_train.data.left_out import REASONS as REASON_WORDS
from vlmdata_train.data.left_out import LeftOutCounts, count_left_out, reason_code
from vlmdata_train.data.open_feed import some_samples
from vlmdata_train.data.reading import is_held_out
from vlmdata_train.distributed import Ranks
from vlmdata_train.loop.loop import run_training
from vlmdata_train.loop.run_progress import samples_of_steps
from vlmdata_train.model.tokens import CHAT_TEMPLATE

pytestmark = pytest.mark.whole

PHOTO = jpeg(drawing("red", "square", 32))
NOISE = jpeg(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8))
HALF = NOISE[: len(NOISE) // 2]  # images whose size is readable
PACKED = {"tokens": 192, "sample_tokens": 96}
SINGLE = {"pack": False, "samples": 4, "sample_tokens": 96}


def chat(key, question, answer):
    return document_sample(key, [PHOTO, question, answer], ["user", "user", "assistant"])


def chats(count):
    """Return conversations of which three of five are too long before their answer begins."""
    return [chat(f"{n:05d}", "What is this?" if n % 5 < 2 else "x" * 200, f"thing {n}") for n in range(count)]


ODD = [
    chat("blank", "What?", " \n"),
    chat("long", "x" * 200, "a thing"),
    document_sample("asked", [PHOTO, "What?"], ["user", "user"]),
    document_sample("order", ["hi", PHOTO, "A cat."], ["user", "user", "assistant"]),
    {"__key__": "silent", "jpg": PHOTO},
    {"__key__": "page", "jpg": b"<html>", "txt": b"a page"},
    {"__key__": "empty", "jpg": b"", "txt": b"nothing"},
    {"__key__": "json", "jpg": PHOTO, "json": b"{texts"},
    document_sample("gone", [PHOTO, "What?", "A cat."], ["user", "user", "assistant"]) | {"0.jpg": b""},
    {"__key__": "two", "jpg": PHOTO, "txt": b"a cat", "json": b'{"alternatives": [""]}'},  # one of the two can be used
    {"__key__": "none", "jpg": PHOTO, "txt": b" ", "json": b'{"alternatives": [""]}'},
]
REASONS = {"no_answer_left": 1, "empty_answer": 1, "no_answer": 1, "no_text": 2, "not_an_image": 1, "empty": 2, "unreadable": 1}


@pytest.mark.parametrize("batches", [PACKED, SINGLE], ids=["packed", "single"])
def test_each_reason_is_counted_and_its_first_sample_is_named(tmp_path, batches):
    write_tar(tmp_path / "0.tar", [*caption_samples(9), *ODD])
    made = feed(str(tmp_path), batches=batches)
    found = count_left_out(made.plan)
    assert (found.samples, found.used, found.reasons) == (20, 11, REASONS)
    record = found.record(made.plan, made.reading.prompt)
    first = {reason: place.split()[1] for reason, place in record["first"].items()}
    assert first == {
        "no_answer_left": "long", "empty_answer": "blank", "no_answer": "asked", "no_text": "silent", "not_an_image": "page",
        "empty": "empty", "unreadable": "json",
    }  # fmt: skip
    assert not made.skipped and all("tar" in place.split()[0] for place in record["first"].values())
    assert record["details"]["unreadable"].startswith("JSONDecodeError: ")


# What the JSON of others' tars may hold, and the reason for which the sample is left out.
OTHERS = {
    "no_assistant_turn": [{"role": "user", "content": "Q"}],
    "more_placeholders_than_images": [{"role": "user", "content": "<image><image>Q"}, {"role": "assistant", "content": "A"}],
    "unknown_role": [{"role": "user", "content": "Q"}, {"role": "judge", "content": "A"}],
    "empty_answer": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": " \u200b"}],
    "no_loss": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "weight": 0}],
}


def test_conversations_of_others_have_the_reasons_that_sources_give(tmp_path):
    talks = {reason: json.dumps({"messages": turns}).encode() for reason, turns in OTHERS.items()}
    samples = [{"__key__": reason, "jpg": PHOTO, "json": talk} for reason, talk in talks.items()]
    write_tar(tmp_path / "0.tar", [*caption_samples(3), *samples])
    made = feed(str(tmp_path))
    found = count_left_out(made.plan)
    assert found.reasons == dict.fromkeys(OTHERS, 1)
    assert {reason: place.split()[1] for reason, place in found.record(made.plan, made.reading.prompt)["first"].items()} == {
        reason: reason for reason in OTHERS
    }


def test_every_status_of_an_unusable_conversation_is_a_reason():
    sources = "".join(Path(str(module.__file__)).read_text() for module in (dialogue, tool_calls, image_members))
    words = set(re.findall(r'Unfit\("(\w+)"\)', sources))
    assert len(words) > 10 and words <= REASON_WORDS.keys()


def test_a_refusal_of_a_chat_template_is_reported_with_the_first_sample(tmp_path, capsys, monkeypatch):
    write_tar(tmp_path / "data/0.tar", [*[chat(f"{n}", "What?", "A cat.") for n in range(6)], ODD[3]])
    strict = "{% if 'hi' in messages[0]['content'] %}{{ raise_exception('\x1b[31mroles must alternate') }}{% endif %}"
    run_training(tiny_recipe(str(tmp_path / "data"), tmp_path / "run", steps=1, chat_template=strict + CHAT_TEMPLATE))
    output = capsys.readouterr().err
    assert "chat_template: the chat template refuses the conversation; the first is" in output
    assert r"order (the chat template refuses the messages: \x1b[31mroles must alternate)" in output
    (record,) = [record for record in records(tmp_path / "run") if record["kind"] == "left_out"]
    assert record["details"]["chat_template"].endswith("roles must alternate")


def test_blank_answers_of_samples_that_are_used_are_counted(tmp_path, capsys):
    parts = [PHOTO, "A?", " ", "B?", "A cat.", "C?", ""]
    roles = ["user", "user", "assistant", "user", "assistant", "user", "assistant"]
    write_tar(
        tmp_path / "data/0.tar", [document_sample("talk", parts, roles), *[chat(f"{n}", "What?", "A cat.") for n in range(3)]]
    )
    run_training(tiny_recipe(str(tmp_path / "data"), tmp_path / "run", steps=None, epochs=2))
    assert "4 answers were empty or blank and had no loss" in capsys.readouterr().err  # two samples in two epochs
    assert [r["blank_answers"] for r in records(tmp_path / "run") if r["kind"] == "train"][-1] == 4


def test_a_sample_is_left_out_only_if_all_its_alternatives_are():
    no_text, held_out = reason_code("no_text"), reason_code("held_out")
    values = np.array([7, no_text, no_text, no_text, reason_code("empty"), no_text, held_out, 5], np.int32)
    found = LeftOutCounts()
    found.add(3, Lengths(values, np.array([0, 2, 4, 5, 6, 7, 8]), ""))
    assert (found.samples, found.used) == (5, 2)
    assert found.reasons == {"no_text": 2, "empty": 1} and found.first == {"no_text": (3, 1), "empty": (3, 2)}


def test_a_refusal_of_a_chat_template_is_counted_as_a_reason(tmp_path, monkeypatch):
    refuses = "{% if 'What?' in messages[0]['content'] %}{{ raise_exception('roles must alternate') }}{% endif %}"
    monkeypatch.setattr(model().tokenizer, "chat_template", refuses + CHAT_TEMPLATE)
    write_tar(tmp_path / "0.tar", [*caption_samples(3), chat("a", "What?", "A cat.")])
    assert count_left_out(feed(str(tmp_path)).plan).reasons == {"chat_template": 1}
    write_tar(tmp_path / "0.tar", [chat("a", "What?", "A cat.")])
    with pytest.raises(
        RecipeError, match=r"\(chat_template 1\). The first is a of .*0.tar: the chat template refuses the messages: roles"
    ):
        feed(str(tmp_path))


@pytest.mark.parametrize("batches", [PACKED, SINGLE], ids=["packed", "single"])
def test_a_truncated_tar_is_counted_as_a_reason_until_it_is_restored(tmp_path, batches):
    data = write_data(tmp_path / "data", captions=20, tars=2)
    build_index(data)
    tar = tmp_path / "data/00001.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    made = feed(data, batches=batches)
    cut = count_left_out(made.plan)
    assert len({key for batch, _ in made for key in batch.keys}) == cut.used
    assert set(cut.reasons) == {"damaged"} and 10 <= cut.used < 20
    tar.write_bytes(whole)
    assert count_left_out(feed(data, batches=batches).plan).used == 20


def test_the_log_and_the_terminal_report_left_out_samples_also_after_a_resume(tmp_path, capsys):
    write_tar(tmp_path / "data/0.tar", [*chats(50), {"__key__": "\x1b[31m\u202ered", "jpg": PHOTO}])
    printed = []
    for steps in (2, 4):
        run_training(tiny_recipe(str(tmp_path / "data"), tmp_path / "out", steps=steps))
        printed.append(capsys.readouterr().err)
    first, second = (r for r in records(tmp_path / "out") if r["kind"] == "left_out")
    assert (first["of"], first["samples"], first["used"]) == ("data", 51, 20)
    assert first["reasons"] == {"no_answer_left": 30, "no_text": 1}
    assert first["first"]["no_answer_left"] == f"{tmp_path}/data/0.tar 00002"
    assert {**first, "time": 0, "step": 0} == {**second, "time": 0, "step": 0}
    for text in printed:
        assert "left out: 31 of 51 samples of" in text and "\x1b" not in text and "\u202e" not in text
        assert "30  no_answer_left: the first `batches.sample_tokens` tokens of the sample contain no token" in text
    assert ["first sample, with [[ ]]" in text for text in printed] == [True, False]


def test_held_out_samples_have_a_record_separate_from_left_out_ones(tmp_path):
    write_tar(tmp_path / "data/0.tar", chats(100))
    run_training(tiny_recipe(str(tmp_path / "data"), tmp_path / "out", steps=1, held_out={"fraction": 0.3}))
    data, held = (r for r in records(tmp_path / "out") if r["kind"] == "left_out")
    assert (data["of"], held["of"]) == ("data", "held_out") and data["samples"] + held["samples"] == 100
    assert data["used"] + held["used"] == 40 and 10 < held["samples"] < 50


def test_images_that_fail_to_decode_are_reported_per_step_and_at_the_end(tmp_path, capsys):
    write_tar(tmp_path / "data/0.tar", [*caption_samples(20), *CUT[:5]])
    run_training(tiny_recipe(str(tmp_path / "data"), tmp_path / "out", steps=None, epochs=2))
    logged = records(tmp_path / "out")
    assert logged[-1]["kind"] == "skipped" and logged[-1]["reasons"] == {"truncated": 10} and logged[-1]["samples"] == 10
    assert [r for r in logged if r["kind"] == "train"][-1]["skipped"] == {"truncated": 10}
    # they are counted as read, although they have no loss
    assert [r for r in logged if r["kind"] == "train"][-1]["samples"] == 50
    assert "samples skipped while reading: truncated 10" in capsys.readouterr().err


# -- the schedule


def rates(out):
    """Return the learning rate at each step."""
    return [r["lr"]["language"] for r in records(out) if r["kind"] == "train"]


LINEAR = {"schedule": "linear", "warmup": 0.0}
CUT = [{"__key__": f"cut{n}", "jpg": HALF, "txt": b"half a picture"} for n in range(30)]  # these break when they are decoded


@pytest.mark.parametrize("batches", [PACKED, SINGLE, PACKED | {"accumulate": 3}, SINGLE | {"accumulate": 3}],
                         ids=["packed", "single", "packed-3", "single-3"])  # fmt: skip
@pytest.mark.parametrize(
    ("epochs", "held_out"), [(1, {}), (0.5, {}), (1.5, {}), (2, {"fraction": 0.3})], ids=["1", "half", "1.5", "held"]
)
def test_the_learning_rate_falls_to_zero_within_the_last_step(tmp_path, batches, epochs, held_out):
    write_tar(tmp_path / "data/0.tar", [*chats(100), *CUT])
    recipe = tiny_recipe(
        str(tmp_path / "data"), tmp_path / "out", steps=None, epochs=epochs, batches=batches, held_out=held_out,
        optimizer=LINEAR, logs={"every": 1, "tensorboard": False}, checkpoints={"every": 0},
    )  # fmt: skip
    result = run_training(recipe)
    seen = [0, *(r["samples"] for r in records(tmp_path / "out") if r["kind"] == "train")]
    found = rates(tmp_path / "out")
    steepest = max(after - before for before, after in pairwise(seen)) / seen[-1]
    assert len(found) == result.steps >= 2 and found[0] == 1e-2 and found == sorted(found, reverse=True)
    assert 0 < found[-1] <= 1e-2 * steepest * 1.01


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batches", [PACKED, SINGLE], ids=["packed", "single"])
def test_the_samples_of_whole_steps_are_counted_for_all_ranks(tmp_path, batches, world):
    write_tar(tmp_path / "0.tar", chats(120))
    feeds = [feed(str(tmp_path), rank, world, epochs=2, batches=batches) for rank in range(world)]
    taken = [[batch.taken for batch, _ in one] for one in feeds]
    for accumulate in (1, 2, 3, 5, 99):
        steps = min(len(own) for own in taken) // accumulate
        wanted = sum(sum(own[: steps * accumulate]) for own in taken)
        assert samples_of_steps(feeds[0].plan, 2, feeds[0].units, world, accumulate) == wanted


def test_a_run_resumed_in_the_middle_has_the_same_rates(tmp_path):
    write_tar(tmp_path / "data/0.tar", [*chats(100), *CUT])

    def run(out):
        logs = {"every": 1, "tensorboard": False}
        checkpoints = {"every": 4, "keep": 99}
        changes = {"steps": None, "epochs": 1.5, "optimizer": LINEAR, "logs": logs, "checkpoints": checkpoints}
        return run_training(tiny_recipe(str(tmp_path / "data"), out, **changes))

    whole = run(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole/checkpoints/step_00000004", tmp_path / "again/checkpoints/step_00000004")
    tree = json.loads((tmp_path / "again/checkpoints/step_00000004/recipe.json").read_text())
    (tmp_path / "again/checkpoints/step_00000004/recipe.json").write_text(json.dumps({**tree, "out": str(tmp_path / "again")}))
    assert run(tmp_path / "again").steps == whole.steps
    assert rates(tmp_path / "again") == rates(tmp_path / "whole")[4:]


def test_a_blank_alternative_is_never_drawn_so_each_epoch_has_all_samples(tmp_path):
    some = json.dumps({"alternatives": ["", " "]}).encode()
    samples = [{"__key__": f"{n}", "jpg": PHOTO, "txt": b"a red square", "json": some} for n in range(60)]
    write_tar(tmp_path / "data/0.tar", samples)
    for batches in (PACKED, SINGLE):
        made = feed(str(tmp_path / "data"), epochs=2, batches=batches)
        assert count_left_out(made.plan).used == 60
        assert [made.plan.samples(0), made.plan.samples(1)] == [60, 60]
        assert sum(batch.taken for batch, _ in made) == 120


# -- data without a usable sample


def refused(tmp_path, samples, **changes):
    write_tar(tmp_path / "data/0.tar", samples)
    with pytest.raises(RecipeError) as caught:
        run_training(tiny_recipe(str(tmp_path / "data"), tmp_path / "out", **changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("batches", [PACKED, SINGLE], ids=["packed", "single"])
def test_data_without_texts_are_reported_with_the_members_of_their_samples(tmp_path, batches):
    message = refused(tmp_path, [{"__key__": f"{n:04d}", "jpg": PHOTO, "cls": b"7"} for n in range(30)], batches=batches)
    assert message.startswith("data: none of the 30 ") and "(no_text 30)" in message
    assert "Raise `batches.sample_tokens`" not in message
    assert f"0000 of {tmp_path}/data/0.tar, has the members cls, jpg. A sample must have an image with its caption" in message


def test_data_that_are_too_long_are_reported_with_the_setting_to_raise(tmp_path):
    message = refused(tmp_path, [chat(f"{n}", "x" * 200, "a thing") for n in range(4)])
    assert "(no_answer_left 4)" in message and "at most 96 tokens, and an image of 32 x 32 takes 4 of them. Raise" in message


def test_a_held_out_dataset_and_one_of_a_mixture_are_named(tmp_path):
    write_tar(tmp_path / "none/0.tar", [{"__key__": "a", "jpg": PHOTO}])
    none = str(tmp_path / "none")
    said = refused(tmp_path, caption_samples(9), held_out={"path": none})
    assert said.startswith(f"held_out.path: none of the 1 sample of {none} can")
    mixed = {str(tmp_path / "data"): 0.5, none: 0.5}
    with pytest.raises(RecipeError, match=rf"data: none of the 1 sample of {none} can be used \(no_text 1\)"):
        run_training(tiny_recipe(mixed, tmp_path / "out2"))  # type: ignore[arg-type]


def test_an_epoch_has_a_step_for_each_full_or_partial_batch(tmp_path):
    write_tar(tmp_path / "data/0.tar", chats(100))
    run = run_training(tiny_recipe(str(tmp_path / "data"), tmp_path / "out", steps=None, epochs=1, batches=SINGLE))
    assert run.steps == math.ceil(40 / 4)


def test_the_first_rank_of_each_machine_measures(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    cpu = torch.device("cpu")
    assert Ranks(0, 1, cpu).is_first_here and Ranks(0, 4, cpu).is_first_here and not Ranks(2, 4, cpu).is_first_here
    for local, rank in (("0", 0), ("1", 1), ("0", 2), ("1", 3)):  # two machines with two ranks each
        monkeypatch.setenv("LOCAL_RANK", local)
        assert Ranks(rank, 4, cpu).is_first_here == (local == "0")


def test_evaluation_uses_only_usable_samples(tmp_path):
    write_tar(tmp_path / "0.tar", [*chats(20), *ODD])
    made = feed(str(tmp_path))
    asked = {sample["__key__"] for sample in some_samples(made.reading, str(tmp_path), 99)}
    assert asked <= {f"{n:05d}" for n in range(20) if n % 5 < 2} | {"two", "order"} and len(asked) >= 9


def test_a_held_out_share_without_usable_samples_is_reported_with_its_size(tmp_path):
    keys = [f"{number:03d}" for number in range(40)]
    held = [key for key in keys if is_held_out(key, 0.2)]
    samples = [{"__key__": key, "jpg": PHOTO, "txt": b" " if key in held else b"a square"} for key in keys]
    message = refused(tmp_path, samples, held_out={"fraction": 0.2})
    assert message.startswith(f"held_out.fraction: none of the {len(held)} held-out samples of {tmp_path}/data can be used")
    assert message.endswith(f"(no_text {len(held)}). Raise the fraction.")
