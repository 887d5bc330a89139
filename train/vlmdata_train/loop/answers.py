"""Generate answers to the last questions of samples, and return them with the true answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch.distributed.fsdp import FSDPModule

from vlmdata.images.facts import ImageError
from vlmdata_train.data.collate import Ready, build_batch, size_of
from vlmdata_train.data.document import Video
from vlmdata_train.data.reading import Reading, Sample, source_of
from vlmdata_train.distributed import Ranks, all_gather_objects
from vlmdata_train.loop.box_score import overlap
from vlmdata_train.loop.held_out import blanked
from vlmdata_train.loop.train_step import ModelWithLoss, to_device
from vlmdata_train.model.generate import generate
from vlmdata_train.model.model import VisionLanguageModel


@dataclass(frozen=True)
class GeneratedAnswer:
    """The true and the generated answer to one question."""

    source: str  # name of the sample's dataset
    key: str
    truth: str
    generated: str
    overlap: float | None = None  # least IoU of the answer's boxes; None: the true answer has no box


Question = tuple[Ready, str]  # the prompt before an answer, and the true answer


def make_questions(reading: Reading, samples: Iterable[Sample]) -> Iterator[Question]:
    """Yield each sample's prompt up to its last answer or its caption, and the text of that answer or caption.

    Samples that cannot be read are skipped.
    """
    for sample in samples:
        try:
            prompt, truth = reading.prompter.before_answer(reading.document(sample))
        except (KeyError, ValueError, ImageError):
            continue
        yield Ready(prompt, source_of(sample), str(sample["__key__"])), truth


@torch.no_grad()
def generate_answers(
    model: VisionLanguageModel, reading: Reading, samples: Iterable[Sample], *, max_new_tokens: int, blank: bool = False,
    at_once: int = 32, add: Callable[[int], None] = lambda _: None,
) -> list[GeneratedAnswer]:  # fmt: skip
    """Generate the last answer, or the caption, of each sample. `blank` makes every image grey.

    A batch has `at_once` samples. `add` receives the number of samples done since its last call.
    """
    questions = list(make_questions(reading, samples))
    return _generate(model, reading, questions, max_new_tokens, bool, blank=blank, at_once=at_once, add=add)


@torch.no_grad()
def held_out_answers(
    model_with_loss: ModelWithLoss, reading: Reading, samples: Iterable[Sample], ranks: Ranks, *, max_new_tokens: int,
    add: Callable[[int], None] = lambda _: None,
) -> list[GeneratedAnswer]:  # fmt: skip
    """Return the generated answers to all samples, on every rank. Every rank must call this function.

    Each rank generates its share. `add` receives the number of samples done on all ranks since its last call.
    """
    questions = list(make_questions(reading, samples))
    share = -(-len(questions) // ranks.world)
    own = questions[ranks.rank * share : (ranks.rank + 1) * share]
    if not isinstance(model_with_loss, FSDPModule):
        answers = _generate(
            model_with_loss.model, reading, own, max_new_tokens, bool, add=lambda count: add(count * ranks.world)
        )
        return [answer for share_of_rank in all_gather_objects(answers, ranks) for answer in share_of_rank]
    # FSDP gathers each block on all ranks at once, so all ranks must take the same steps on the same number of questions.
    model_with_loss.unshard()  # gathers the weights that are not in blocks: encoder, embeddings, output layer
    padded = own + questions[:1] * (share - len(own))
    answers = _generate(
        model_with_loss.model, reading, padded, max_new_tokens, lambda done: all(all_gather_objects(done, ranks)),
        add=lambda count: add(count * ranks.world),
    )  # fmt: skip
    model_with_loss.reshard()
    return [answer for share_of_rank in all_gather_objects(answers[: len(own)], ranks) for answer in share_of_rank]


def _generate(
    model: VisionLanguageModel, reading: Reading, questions: list[Question], max_new_tokens: int,
    is_over: Callable[[bool], bool], *, blank: bool = False, at_once: int = 32, add: Callable[[int], None] = lambda _: None,
) -> list[GeneratedAnswer]:  # fmt: skip
    """Generate the answers, `at_once` questions at a time.

    After each token, `is_over` receives whether all answers have ended, and returns whether to stop.
    """
    was_training = model.training
    model.eval()
    answers, stop_ids = [], reading.prompter.template.stop_ids
    for start in range(0, len(questions), at_once):
        group = questions[start : start + at_once]
        ready = [prompt for prompt, _ in group]
        batch = build_batch(ready, reading.plan, reading.prompter.pad_id, packed_tokens=None, broken=Counter())
        batch = to_device(blanked(batch) if blank else batch, next(model.parameters()).device)
        tokens = generate(model, batch, max_new_tokens=max_new_tokens, stop_ids=stop_ids, is_over=is_over)
        for (prompt, truth), row in zip(group, tokens, strict=True):
            answer = reading.prompter.answer_text(row)
            answers.append(GeneratedAnswer(prompt.source, prompt.key, truth, answer, _overlap(reading, prompt, truth, answer)))
        add(len(group))
    model.train(was_training)
    return answers


def _overlap(reading: Reading, prompt: Ready, truth: str, answer: str) -> float | None:
    """Return how well the boxes of an answer agree; see `overlap`. Forms in pixels are read for the first image."""
    if not prompt.prompt.images:
        return None
    image = prompt.prompt.images[0]
    if isinstance(image.picture, Video):
        return None
    frame = reading.plan.frame(*size_of(image.picture), several=image.several)
    return overlap(truth, answer, reading.plan.grounding, frame.width, frame.height)
