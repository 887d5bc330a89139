"""Read a sample for a run: its prompt, its length, and whether it is for training or held out.

The loader packs samples by their lengths. The same `Reading` measures all lengths first and makes the prompts later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import xxhash

from vlmdata.images.facts import ImageError
from vlmdata.loader.captions import Weights
from vlmdata.readers.strings import is_blank
from vlmdata.readers.tool_calls import Unfit
from vlmdata.step import RecipeError
from vlmdata_train.data.augmented import with_augmentation
from vlmdata_train.data.document import Document
from vlmdata_train.data.grounded_text import has_turns, with_written_boxes
from vlmdata_train.data.left_out import HELD_OUT, REASONS, UnusableSample, reason_code
from vlmdata_train.data.prompt import Prompt, truncate
from vlmdata_train.data.prompts import Prompter
from vlmdata_train.data.read_document import caption_origins, facts_of, is_document, read_document
from vlmdata_train.data.videos_of import with_chosen_frames
from vlmdata_train.model.image_plan import ImagePlan

Sample = Mapping[str, Any]
READING_VERSION = 7  # increase it with every change that gives a sample a different prompt


@dataclass(frozen=True)
class Reading:
    """Reads samples. A reading is small and picklable, because the loader's worker processes measure lengths with it."""

    prompter: Prompter
    plan: ImagePlan
    stage: str
    sample_tokens: int  # maximum tokens of a sample
    held_out: float = 0.0  # share of the samples, chosen by key, that only evaluation reads
    wants_held_out: bool = False  # read the held-out samples instead of the others
    captions: Weights | None = None  # weights of the origins of captions; None: all captions of a sample are equally likely
    augment: str | None = None  # column with stored augmentations, of which each epoch applies one; None: no augmentation

    def takes(self, key: str) -> bool:
        """Return whether a sample is on this reading's side of the held-out split."""
        return self.held_out == 0 or is_held_out(key, self.held_out) == self.wants_held_out

    def can_use(self, sample: Sample) -> bool:
        """Return whether this reading takes a sample and the sample has a prompt.

        A reading takes either the held-out samples or the others (see `takes`).
        """
        try:
            return self.takes(sample["__key__"]) and bool(self.prompt(sample).input_ids)
        except UnusableSample:
            return False

    def document(self, sample: Sample) -> Document:
        """Return a sample's document, with the frames of videos that the model reads, and with boxes in the model's form.

        Raises an error of `read_document` or `with_augmentation`, or ImageError if the size of an image with boxes is unknown.
        """
        augmented = with_augmentation(sample, self.augment)
        document = with_chosen_frames(read_document(augmented, self.captions), self.plan.video)
        return with_written_boxes(document, self.plan, self.prompter.written)

    def prompt(self, sample: Sample) -> Prompt:
        """Return a sample's prompt, cut to at most `sample_tokens` tokens. Raises UnusableSample if it has no prompt."""
        try:
            document = self.document(sample)
        except Unfit as error:
            raise UnusableSample(str(error) if str(error) in REASONS else "unreadable") from None
        except ImageError as error:
            raise UnusableSample(error.reason, str(error)) from None
        except RecipeError:  # the preprocessing cannot place boxes, or the data has no stored augmentations: the user's mistake
            raise
        except (KeyError, TypeError, ValueError) as error:  # for example, the JSON has an unexpected shape
            raise UnusableSample("unreadable", f"{type(error).__name__}: {error}") from None
        if document.unseen_turns and not has_turns(document):
            raise UnusableSample("boxes_out_of_view")
        if not any(_says_something(position) for position in document.positions):
            raise UnusableSample("no_text")
        _check_answers(document)
        try:
            whole = self._choose(document)
        except ImageError as error:
            raise UnusableSample(error.reason, str(error)) from None
        except RecipeError:  # the tokenizer has no chat template, or no usable one: the user's mistake
            raise
        except (KeyError, TypeError, ValueError) as error:
            is_chat = document.roles is not None and self.stage == "instruct"
            raise UnusableSample("chat_template" if is_chat else "unreadable", str(error)) from None
        prompt = replace(truncate(whole, self.sample_tokens), unseen_turns=document.unseen_turns)
        if prompt.answer_tokens() == 0:
            raise UnusableSample("no_answer_left" if whole.answer_tokens() else "no_loss")
        return prompt

    def __call__(self, sample: Sample) -> int | list[tuple[int, str | None]]:
        """Return the length of a sample's prompt in tokens, or a list of lengths with origins, one for each caption.

        The lengths do not depend on `captions`: the loader draws one of them as `prompt` draws a caption. This needs the sizes
        of images, but not their bytes. For a sample without a prompt, return the code of the reason instead of the length. The
        code is FIRST_REASON_CODE or more.
        """
        if not self.takes(sample["__key__"]):
            return reason_code(HELD_OUT)
        try:
            facts = facts_of(sample)
            names = _image_members(sample, facts)
            found = zip(names, map(tuple, sample["__images__"]), strict=True)
            sizes = {name: size for name, size in found if name in sample["__image_names__"]}
            sizes |= sample.get("__unsized__", {})  # encoded images of unknown size; decoding their headers gives the reason
            origins = caption_origins(facts, sample)
        except (KeyError, TypeError, ValueError):
            return reason_code("unreadable")
        plain = replace(self, captions=None)  # so that the number n draws the caption n
        lengths = [plain._length({**sample, **sizes, "__seed__": number}) for number in range(len(origins))]
        return lengths[0] if len(lengths) == 1 else list(zip(lengths, origins, strict=True))

    def _length(self, sample: Sample) -> int:
        """Return the length of a sample's prompt, or the code of the reason if the sample has no prompt."""
        try:
            return len(self.prompt(sample).input_ids)
        except UnusableSample as error:
            return reason_code(error.reason)

    def cache_key(self) -> str:
        """Return a cache key that depends on everything that determines the lengths."""
        tokenizer = self.prompter.tokenizer
        facts = [
            READING_VERSION, tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, repr(self.plan), self.stage,
            self.sample_tokens, self.held_out, self.wants_held_out, sorted(self.prompter.trusted), self.prompter.last_only,
            sorted(self.prompter.box_tokens),
            list(REASONS),
        ]  # fmt: skip
        return "prompts " + xxhash.xxh3_64_hexdigest(json.dumps(facts).encode())

    def _choose(self, document: Document) -> Prompt:
        """Return the prompt that fits the kind of document: a conversation, a page, or images with a caption."""
        if document.roles is not None and self.stage == "instruct":
            return self.prompter.chat(document)
        if document.roles is not None:  # LLaVA's stage 1 uses only the images and the assistant's text
            turns = document.turns or [None] * len(document.positions)
            items = zip(document.positions, document.roles, turns, strict=True)
            kept = [
                p for p, role, turn in items if not isinstance(p, str) or (role == "assistant" and not (turn or {}).get("kind"))
            ]
            return self.prompter.plain(Document(kept, None))
        texts = [number for number, position in enumerate(document.positions) if isinstance(position, str)]
        is_caption = len(document.positions) <= 2 or texts == [len(document.positions) - 1]  # of one or more images
        return self.prompter.plain(document) if is_caption else self.prompter.page(document)


def _says_something(position: Any) -> bool:
    """Return whether a position of a document is a text that is not blank."""
    return isinstance(position, str) and not is_blank(position)


def _check_answers(document: Document) -> None:
    """Raise UnusableSample for a conversation that has no answer, or only blank answers."""
    if document.roles is None:
        return
    pairs = zip(document.positions, document.roles, strict=True)
    answers = [p for p, role in pairs if isinstance(p, str) and role == "assistant"]
    if not any(map(_says_something, answers)):
        raise UnusableSample("empty_answer" if answers else "no_answer")


def _image_members(sample: Sample, facts: Mapping[str, Any]) -> Iterable[str]:
    """Return the names of a sample's image members, in the same order as the image sizes in `__images__`.

    For a document, this is the order in which the images occur in it.
    """
    if not is_document(facts, sample):
        return sample["__image_names__"]
    return [image["file"].removeprefix(sample["__key__"] + ".") for image in facts["metadata"] if image]


def is_held_out(key: str, fraction: float) -> bool:
    """Return whether a sample is held out. The result depends only on the sample's key and the fraction."""
    return xxhash.xxh3_64_intdigest(key.encode()) / 2**64 < fraction


def source_of(sample: Sample) -> str:
    """Return the name of a sample's dataset for the logs.

    The name is that of the folder that holds the sample's tar, or "data" if the tar's address has no folder.
    """
    return str(sample.get("__url__", "")).rpartition("/")[0].rpartition("/")[2] or "data"
