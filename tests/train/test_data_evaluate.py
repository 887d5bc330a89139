"""Evaluation computes the held-out loss and generated answers, compares answers as VQA does, and greys images on request."""

import itertools
import json

import pytest
import torch

from bench.inputs.tars import document_sample, jpeg
from tests.train.runs import made_model, tiny_recipe, write_data
from tests.train.shards import conversation_samples, drawing
from vlmdata_train.__main__ import main
from vlmdata_train.data import open_feed
from vlmdata_train.distributed import Ranks
from vlmdata_train.loop import setup
from vlmdata_train.loop.answers import GeneratedAnswer, generate_answers
from vlmdata_train.loop.held_out import blanked, held_out_loss
from vlmdata_train.loop.loop import run_training
from vlmdata_train.loop.score import Score, normalise, score, table
from vlmdata_train.loop.train_step import ModelWithLoss

pytestmark = pytest.mark.whole

CPU = Ranks(0, 1, torch.device("cpu"))


def test_answers_are_compared_as_vqa_compares_them():
    for one, other in (("A red circle.", "red circle"), ("Two", "2"), ("the DOG!", "dog"), ("3.5 m", "3.5  m")):
        assert normalise(one) == normalise(other)
    assert normalise("3.5") != normalise("35") and normalise("red") != normalise("read")


def test_scores_are_reported_beside_those_of_the_commonest_answer():
    given = [("yes", "Yes."), ("yes", "no"), ("no", "no"), ("yes", "perhaps")]
    answers = [GeneratedAnswer("vqa", str(i), truth, answer) for i, (truth, answer) in enumerate(given)]
    assert score(answers) == {"vqa": Score(4, 0.5, 0.75)}
    assert table(score(answers), {"vqa": 1.25}).splitlines()[1].split() == ["vqa", "4", "1.2500", "50.0%", "75.0%"]


def loaded(tmp_path, **changes):
    recipe = tiny_recipe(write_data(tmp_path / "data", captions=20, conversations=10), tmp_path / "o", **changes)
    setup.seed_everything(0, CPU)
    model = made_model(recipe, recipe.model, CPU)
    return recipe, model, open_feed.feed_of(recipe, model, recipe.data, CPU)


def test_the_held_out_loss_averages_all_answer_tokens_whatever_the_batches(tmp_path):
    losses = []
    for batches in ({"tokens": 192}, {"tokens": 1024}, {"pack": False, "samples": 3}):
        _, model, feed = loaded(tmp_path, batches={"sample_tokens": 96, **batches})
        losses.append(held_out_loss(ModelWithLoss(model, chunk=64, autocast=False), feed, 30, CPU))
    assert all(each.samples == 30 for each in losses)
    assert max(each.loss for each in losses) - min(each.loss for each in losses) < 1e-5
    _, model, feed = loaded(tmp_path)
    batches = [batch for batch, _ in feed]
    plain = 0.0
    count = 0
    for batch in batches:
        logits = model.logits(batch)[:, :-1].flatten(0, 1)
        plain += torch.nn.functional.cross_entropy(logits, batch.labels[:, 1:].flatten(), reduction="sum").item()
        count += int((batch.labels != -100).sum())
    assert abs(plain / count - losses[0].loss) < 1e-5


def test_generated_answers_belong_to_their_questions_and_blanked_images_are_grey(tmp_path):
    recipe, model, feed = loaded(tmp_path)
    asked = open_feed.some_samples(feed.reading, recipe.data, 30)
    answers = generate_answers(model, feed.reading, asked, max_new_tokens=4, at_once=7)
    truths = {a.key: a.truth for a in answers}
    assert len(answers) == 30 and truths["c00001"] == "a circle" and truths["000000"] == "a red square on white paper"
    batch, _ = next(iter(feed))
    grey = blanked(batch)
    assert (grey.pixels == 128).all() and (batch.pixels != 128).any() and torch.equal(grey.input_ids, batch.input_ids)


def test_a_held_out_sample_without_an_answer_is_skipped(tmp_path):
    _, model, feed = loaded(tmp_path)
    photo = jpeg(drawing("red", "circle"))
    silent = document_sample("silent", [photo, "Only a question?"], ["user", "user"])
    broken = {"__key__": "broken", "json": b"{texts"}
    good = conversation_samples(1)[0]
    answers = generate_answers(model, feed.reading, [silent, broken, good], max_new_tokens=2)
    assert [a.key for a in answers] == ["c00000"]


def test_a_run_reports_held_out_loss_and_exact_answers_at_intervals(tmp_path, capsys):
    data = write_data(tmp_path / "chats", captions=0, conversations=40)
    held = {"fraction": 0.3, "every": 2, "samples": 8, "answers": 4, "answer_tokens": 3}
    run_training(tiny_recipe(data, tmp_path / "out", steps=4, held_out=held, checkpoints={"every": 4}))
    logged = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    evaluated = [r for r in logged if r["kind"] == "held_out"]
    assert [r["step"] for r in evaluated] == [2, 4] and all(set(r["exact_of"]) == {"chats"} for r in evaluated)
    lines = capsys.readouterr().err.splitlines()
    tables = [line.split() for before, line in itertools.pairwise(lines) if before.startswith("source ")]
    assert [(row[0], row[1]) for row in tables] == [("chats", "4")] * 2
    assert [row[2] for row in tables] == [f"{r['loss_of']['chats']:.4f}" for r in evaluated]


def test_the_command_line_evaluates_a_checkpoint_and_chats_with_it(tmp_path, capsys):
    data = write_data(tmp_path / "data", captions=16, conversations=16)
    result = run_training(tiny_recipe(data, tmp_path / "out", steps=2))
    capsys.readouterr()
    assert main(["evaluate", str(result.checkpoint), data, "--samples", "8", "--answer-tokens", "3"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "with images:" and "images blanked:" in out and out[2].split()[:2] == ["data", "8"]
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(jpeg(drawing("red", "circle")))
    assert main(["chat", str(result.checkpoint), str(photo), "--ask", "What colour is it?", "--max-tokens", "4"]) == 0
    assert main(["chat", str(result.checkpoint), str(tmp_path / "none.jpg"), "--ask", "?"]) == 2
    assert "none.jpg as an image" in capsys.readouterr().err


def test_a_conversation_remembers_its_turns(tmp_path, monkeypatch):
    import io

    from vlmdata_train.chat import Conversation, talk

    _, model, _ = loaded(tmp_path)
    conversation = Conversation(model.eval(), [], max_tokens=3)
    monkeypatch.setattr("sys.stdin", io.StringIO("One?\nTwo?\n\nnever read\n"))
    talk(conversation)
    assert [m["role"] for m in conversation.messages] == ["user", "assistant"] * 2
    assert [m["content"] for m in conversation.messages[::2]] == ["One?", "Two?"]
