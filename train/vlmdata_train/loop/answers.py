"""Generated answers to the last questions of held-out samples, beside the true ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch.distributed.fsdp import FSDPModule

from vlmdata.images.facts import ImageError
from vlmdata_train.data.collate import Ready, build_batch
from vlmdata_train.data.read_document import read_document
from vlmdata_train.data.reading import Reading, Sample, source_of
from vlmdata_train.distributed import Ranks, all_gather_objects
from vlmdata_train.loop.held_out import blanked
from vlmdata_train.loop.train_step import ModelWithLoss, to_device
from vlmdata_train.model.generate import generate
from vlmdata_train.model.model import VisionLanguageModel


@dataclass(frozen=True)
class GeneratedAnswer:
    """One held-out question and what the model said."""

    source: str
    key: str
    truth: str
    generated: str


Question = tuple[Ready, str]  # a prompt, and the true answer


def make_questions(reading: Reading, samples: Iterable[Sample]) -> Iterator[Question]:
    """Make of each sample the prompt before its last answer, or before its caption; what gives none is passed over."""
    for sample in samples:
        try:
            prompt, truth = reading.prompter.before_answer(read_document(sample))
        except (KeyError, ValueError, ImageError):
            continue
        yield Ready(prompt, source_of(sample), str(sample["__key__"])), truth


@torch.no_grad()
def generate_answers(
    model: VisionLanguageModel, reading: Reading, samples: Iterable[Sample], *, max_new_tokens: int, blank: bool = False,
    at_once: int = 32, add: Callable[[int], None] = lambda _: None,
) -> list[GeneratedAnswer]:  # fmt: skip
    """Ask the model for the last answer of samples, or for their captions. `blank` makes every image grey."""
    questions = list(make_questions(reading, samples))
    return _generate(model, reading, questions, max_new_tokens, bool, blank=blank, at_once=at_once, add=add)


@torch.no_grad()
def held_out_answers(
    model_with_loss: ModelWithLoss, reading: Reading, samples: Iterable[Sample], ranks: Ranks, *, max_new_tokens: int,
    add: Callable[[int], None] = lambda _: None,
) -> list[GeneratedAnswer]:  # fmt: skip
    """Ask for the answers of samples, each rank its share, and return all of them to all. Every rank must call it."""
    questions = list(make_questions(reading, samples))
    share = -(-len(questions) // ranks.world)
    own = questions[ranks.rank * share : (ranks.rank + 1) * share]
    if not isinstance(model_with_loss, FSDPModule):
        answers = _generate(
            model_with_loss.model, reading, own, max_new_tokens, bool, add=lambda count: add(count * ranks.world)
        )
        return [answer for part in all_gather_objects(answers, ranks) for answer in part]
    # Blocks are put together as they are met, on all ranks at once: all must take the same steps, with as many questions.
    model_with_loss.unshard()  # what is in no block: tower, embeddings, output layer
    filled = own + questions[:1] * (share - len(own))
    answers = _generate(
        model_with_loss.model, reading, filled, max_new_tokens, lambda done: all(all_gather_objects(done, ranks)),
        add=lambda count: add(count * ranks.world),
    )  # fmt: skip
    model_with_loss.reshard()
    return [answer for part in all_gather_objects(answers[: len(own)], ranks) for answer in part]


def _generate(
    model: VisionLanguageModel, reading: Reading, questions: list[Question], max_new_tokens: int,
    is_over: Callable[[bool], bool], *, blank: bool = False, at_once: int = 32, add: Callable[[int], None] = lambda _: None,
) -> list[GeneratedAnswer]:  # fmt: skip
    was_training = model.training
    model.eval()
    answers, stop_ids = [], reading.prompter.template.stop_ids
    for start in range(0, len(questions), at_once):
        some = questions[start : start + at_once]
        ready = [one for one, _ in some]
        batch = build_batch(ready, reading.plan, reading.prompter.pad_id, packed_tokens=None, broken=Counter())
        batch = to_device(blanked(batch) if blank else batch, next(model.parameters()).device)
        tokens = generate(model, batch, max_new_tokens=max_new_tokens, stop_ids=stop_ids, is_over=is_over)
        for (one, truth), row in zip(some, tokens, strict=True):
            answers.append(GeneratedAnswer(one.source, one.key, truth, reading.prompter.answer_text(row)))
        add(len(some))
    model.train(was_training)
    return answers
