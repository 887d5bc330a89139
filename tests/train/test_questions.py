"""Abstractors that read the question get the text before the first answer, and never another sample's text or images."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.inputs.tars import document_sample, jpeg
from tests.train.shards import drawing
from tests.train.tiny import TINY, tiny_model
from vlmdata_train.chat import Conversation
from vlmdata_train.data.collate import Ready, build_batch
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.data.read_document import read_document
from vlmdata_train.data.reading import Reading
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.model import VisionLanguageModel

Q_FORMER = {"queries": 3, "width": 8, "layers": 2, "heads": 2, "mlp_width": 12, "dropout": 0.0}
PARTS: dict[str, dict[str, Any]] = {
    "Q-Former": {"instruct_q_former": {**Q_FORMER, "tokenizer": "bytes"}}, "words": {"context_tokens": {}},
    "Q-Former's context": {"context_tokens": {"side": 2, "q_former": Q_FORMER}},
    "prompt": {"prompt_projection": {"heads": 2, "head_width": 4}},
    "images": {"prompt_projection": {"heads": 2, "head_width": 4, "reads": "images"}},
    "both": {"prompt_projection": {"heads": 2, "head_width": 4, "reads": "both"}},
}  # fmt: skip
TOLD = {name: part for name, part in PARTS.items() if name != "images"}  # those that read the question
RED, BLUE, GREEN = (jpeg(drawing(colour, "circle", 32)) for colour in ("red", "blue", "green"))
FIRST: list[Any] = ["What colour is it?", RED, BLUE, "It is red."]
SECOND: list[Any] = ["How many shapes are there in this drawing?", GREEN, RED, BLUE, "One."]


def built(part: dict[str, Any]) -> VisionLanguageModel:
    """Build a tiny model with large weights in the abstractor, so that questions and other images clearly matter."""
    model = tiny_model(replace(TINY, abstractor=part))
    with torch.no_grad():
        for weight in model.abstractor.parameters():
            weight.mul_(4)
    return model


def chat(positions: list[str | bytes], *more: str) -> dict[str, Any]:
    """Return a sample of a shard: what the user says and shows, the answer, and further questions and answers."""
    turns = [*positions, *more]
    roles = ["user"] * (len(positions) - 1) + ["assistant", "user"] * (1 + len(more) // 2)
    return document_sample("a", turns, roles[: len(turns)])


def batch_of(
    model: VisionLanguageModel, samples: list[dict[str, Any]], *, packed: bool = False, stage: Any = "instruct"
) -> Batch:
    """Return the batch of samples, as the loader builds it."""
    reading = Reading(prompter_of(model), model.plan, stage, 4096)
    ready = [Ready(reading.prompt(one), "source", f"key {number}") for number, one in enumerate(samples)]
    length = sum(len(one.prompt.input_ids) for one in ready) if packed else None
    return build_batch(ready, model.plan, 0, packed_tokens=length, broken=Counter())


@torch.no_grad()
def features(model: VisionLanguageModel, one: dict[str, Any]) -> Tensor:
    """Return the features of a sample's images."""
    return model.encode_images(batch_of(model, [one]))[0]


@torch.no_grad()
def logits_of_first(model: VisionLanguageModel, samples: list[dict[str, Any]]) -> Tensor:
    """Return the logits of the first of several packed samples."""
    batch = batch_of(model, samples, packed=True)
    return model.logits(batch)[0][batch.segment_ids[0] == 1]


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_packed_samples_equal_separate_ones(part: dict[str, Any]) -> None:
    model = built(part)
    samples = [chat(FIRST), chat(SECOND), chat(["No image here?", "No."])]
    with torch.no_grad():
        packed = model.logits(batch_of(model, samples, packed=True))[0]
        separate = torch.cat([model.logits(batch_of(model, [one]))[0] for one in samples])
    assert (packed - separate).abs().max() < 1e-5 * separate.abs().max()


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_another_question_or_image_of_another_sample_changes_nothing(part: dict[str, Any]) -> None:
    model = built(part)
    before = logits_of_first(model, [chat(FIRST), chat(SECOND)])
    for other in (["Why?", *SECOND[1:]], [SECOND[0], RED, *SECOND[2:]], [SECOND[0], *SECOND[2:]]):
        assert (logits_of_first(model, [chat(FIRST), chat(other)]) - before).abs().max() < 1e-6 * before.abs().max()


@pytest.mark.parametrize("part", TOLD.values(), ids=TOLD)
def test_another_question_changes_the_features_and_another_answer_does_not(part: dict[str, Any]) -> None:
    model = built(part)
    before = features(model, chat(FIRST, "And the shape?", "A circle."))
    assert torch.equal(features(model, chat([*FIRST[:3], "Blue!"], "Is it so?", "No.")), before)
    assert torch.equal(features(model, chat(FIRST)), before)
    assert (features(model, chat(["Where is it?", *FIRST[1:]])) - before).abs().max() > 1e-3


@pytest.mark.parametrize("part", TOLD.values(), ids=TOLD)
def test_generation_reads_the_same_question_as_training(part: dict[str, Any]) -> None:
    prompter = prompter_of(built(part))
    document = read_document(chat(FIRST, "And the shape?", "A circle."))
    asked, media = prompter.messages(document)[:1], [one for one in document.positions if not isinstance(one, str)]
    trained = prompter.chat(document).question
    assert trained == prompter.media.question(FIRST[0]) != []
    assert prompter.before_answer(document)[0].question == prompter.question(asked, media).question == trained


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_conversation_reads_the_first_question_in_each_turn(part: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(part)
    seen: list[Tensor] = []
    original = VisionLanguageModel.encode_images

    def noted(self: VisionLanguageModel, batch: Batch) -> Any:
        seen.append(batch.questions[0])
        return original(self, batch)

    monkeypatch.setattr(VisionLanguageModel, "encode_images", noted)
    conversation = Conversation(model, [RED, BLUE], max_tokens=2)
    for text in ("What colour is it?", "And the shape?"):
        conversation.ask(text)
    wanted = prompter_of(model).chat(read_document(chat(["What colour is it?", RED, BLUE, "Red."]))).question
    assert [ids.tolist() for ids in seen] == [wanted, wanted]


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("stage", ["align", "instruct", "no image"])
def test_every_weight_gets_a_gradient_also_without_questions_or_images(part: dict[str, Any], stage: str) -> None:
    model = built(part).train()
    samples = [chat(["Why?", "So."])] if stage == "no image" else [chat(FIRST), chat(SECOND)]
    batch = batch_of(model, samples, packed=True, stage="align" if stage == "align" else "instruct")
    model.logits(batch).square().sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in model.parameters())


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_the_align_stage_has_an_empty_question(part: dict[str, Any]) -> None:
    model = built(part)
    batch = batch_of(model, [chat(FIRST), chat(SECOND)], packed=True, stage="align")
    empty = prompter_of(model).media.question("")
    assert batch.questions.tolist() == [empty, empty]
    with torch.no_grad():
        assert torch.isfinite(model.logits(batch)).all()


@pytest.mark.parametrize("part", TOLD.values(), ids=TOLD)
def test_a_long_question_is_cut(part: dict[str, Any]) -> None:
    ((name, entry),) = part.items()
    model = built({name: {**entry, "max_question": 5}})
    batch = batch_of(model, [chat(FIRST)])
    assert batch.questions.shape == (1, 5)
    same, other = chat([FIRST[0][:5] + " now?", *FIRST[1:]]), chat(["Where?", *FIRST[1:]])
    assert torch.equal(features(model, same), features(model, chat(FIRST)))
    assert not torch.equal(features(model, other), features(model, chat(FIRST)))


def test_tiles_of_an_image_are_arranged_as_for_other_abstractors() -> None:
    recipe = replace(TINY, preprocessing={"anyres": {"tiles": ((1, 2), (2, 1))}})
    with torch.no_grad():
        plain = tiny_model(recipe)
        model: Any = tiny_model(replace(recipe, abstractor={"prompt_projection": {"heads": 2, "head_width": 4}}))
        model.abstractor.read_gate.zero_()
        model.load_state_dict(
            {name.replace("abstractor", "abstractor.mlp"): w for name, w in plain.state_dict().items()}, strict=False
        )
        one, other = (m.encode_images(batch_of(m, [chat(FIRST)])) for m in (plain, model))
    torch.testing.assert_close(one[0], other[0])
    assert one[1] == other[1] and one[1][0] > 16
