"""A sample becomes tokens: which text the model sees, where the images stand, and which tokens have a loss.

While a prompt is text, every boundary we need later (an image, the ends of an answer) is one character that no text
may hold: Unicode noncharacters. So the language model's own chat template can be run on it once, whatever it does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from vlmdata_train.documents import Document, Picture
from vlmdata_train.loss import IGNORE

IMAGE_MARK, ANSWER_MARK, END_MARK = "\ufdd0", "\ufdd1", "\ufdd2"
_MARKS = re.compile("[\ufdd0-\ufdef]")


@dataclass(frozen=True)
class Prompt:
    """Tokens of one sample. `image_starts[i]` is where image i begins, `image_counts[i]` how many tokens it takes."""

    input_ids: list[int]
    labels: list[int]  # aligned with input_ids; IGNORE where there is no loss
    images: list[Picture]
    image_starts: list[int]
    image_counts: list[int]

    def answers(self) -> int:
        """Return how many tokens have a loss."""
        return sum(label != IGNORE for label in self.labels)


class Prompter:
    """Turns documents into prompts for one tokenizer. `tokens_of(picture)` tells how many tokens an image takes."""

    def __init__(self, tokenizer: Any, image_token_id: int, tokens_of: Callable[[Picture], int]) -> None:
        if not tokenizer.is_fast:
            raise ValueError(f"{tokenizer.name_or_path}: a fast tokenizer is needed: it knows where its tokens lie in a text")
        self.tokenizer = tokenizer
        self.image_token_id = image_token_id
        self.tokens_of = tokens_of
        special = sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, special))) if special else None
        self._specials = set(tokenizer.all_special_tokens)
        self.pad_id: int = tokenizer.pad_token_id
        self._bos = [tokenizer.bos_token_id] if _begins_with_bos(tokenizer) else []

    def plain(self, document: Document) -> Prompt:
        """Stage 1 of LLaVA, its prompt "plain": the image's tokens, then the caption, which has the loss, and the end."""
        images = IMAGE_MARK * sum(not isinstance(p, str) for p in document.positions)
        text = " ".join(self.clean(p).strip() for p in document.positions if isinstance(p, str))
        return self._encode(images + ANSWER_MARK + text + self._end() + END_MARK, _images(document), self._bos)

    def page(self, document: Document) -> Prompt:
        """An interleaved page: paragraphs and images in their order, parted by empty lines; every text has a loss."""
        parts = [self.clean(p).strip() if isinstance(p, str) else IMAGE_MARK for p in document.positions]
        text = ANSWER_MARK + "\n\n".join(parts) + self._end() + END_MARK
        return self._encode(text, _images(document), self._bos)

    def chat(self, document: Document) -> Prompt:
        """A conversation through the tokenizer's chat template; the loss is on what the assistant says and its end."""
        messages = self.messages(document)
        marked = [{**m, "content": ANSWER_MARK + m["content"] + END_MARK} if m["role"] == "assistant" else m for m in messages]
        rendered = self.render(marked, add_generation_prompt=False)
        without = rendered.replace(ANSWER_MARK, "").replace(END_MARK, "")
        if without != self.render(messages, add_generation_prompt=False):
            raise ValueError(f"the chat template of {self.tokenizer.name_or_path} rewrites answers; their place is unknown")
        return self._encode(self._with_ends(rendered), _images(document), [])

    def question(self, messages: Sequence[Mapping[str, str]], images: list[Picture]) -> Prompt:
        """The prompt that asks for the next answer: messages whose contents hold IMAGE_MARK where an image stands."""
        return self._encode(self.render(messages, add_generation_prompt=True), images, [])

    def beginning(self, images: list[Picture], text: str) -> Prompt:
        """Images and the beginning of a caption, for a model to go on with."""
        return self._encode(IMAGE_MARK * len(images) + self.clean(text), images, self._bos)

    def before_answer(self, document: Document) -> tuple[Prompt, str]:
        """Return the prompt up to the last answer, and that answer: what evaluation generates from and compares with."""
        if document.roles is None:
            text = " ".join(p.strip() for p in document.positions if isinstance(p, str))
            return self.beginning(_images(document), ""), text
        messages = self.messages(document)
        last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
        seen = sum(m["content"].count(IMAGE_MARK) for m in messages[:last])
        return self.question(messages[:last], _images(document)[:seen]), messages[last]["content"]

    def messages(self, document: Document) -> list[dict[str, str]]:
        """Join neighbouring positions of one role into one message; an image directly before text stands on its own line."""
        assert document.roles is not None
        messages: list[dict[str, str]] = []
        for position, role in zip(document.positions, document.roles, strict=True):
            text = self.clean(position).strip() if isinstance(position, str) else IMAGE_MARK
            if messages and messages[-1]["role"] == role:
                before = messages[-1]["content"]
                messages[-1]["content"] = before + ("" if before.endswith(IMAGE_MARK) and text == IMAGE_MARK else "\n") + text
            else:
                messages.append({"role": role, "content": text})
        return messages

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        """Run the chat template. ValueError: it refuses these messages, for the order of their roles as a rule."""
        shown = list(messages)
        try:
            return self.tokenizer.apply_chat_template(shown, tokenize=False, add_generation_prompt=add_generation_prompt)
        except TemplateError as error:
            raise ValueError(f"the chat template refuses it: {error}") from None

    def clean(self, text: str) -> str:
        """Take from a text what would act as markup: our marks, and strings that the tokenizer reads as special tokens."""
        text = _MARKS.sub("\ufffd", text)
        # A word joiner inside the token's name leaves it readable and keeps a page from closing the turn it stands in.
        return self._special.sub(lambda m: m[0][:1] + "\u2060" + m[0][1:], text) if self._special else text

    def _end(self) -> str:
        return self.tokenizer.eos_token or "\n"

    def _with_ends(self, rendered: str) -> str:
        """Move each END_MARK behind the special token that ends the turn, so that the model learns to stop."""
        first, *rest = rendered.split(END_MARK)
        moved = first
        for piece in rest:
            lead = len(piece) - len(piece.lstrip())
            end = next((s for s in self._specials if piece.startswith(s, lead)), None)
            cut = lead + len(end) if end is not None and end != self.tokenizer.bos_token else 0
            moved += piece[:cut] + END_MARK + piece[cut:]
        return moved

    def _encode(self, marked: str, images: list[Picture], begin: list[int]) -> Prompt:
        ids, labels = list(begin), [IGNORE] * len(begin)
        starts: list[int] = []
        counts = [self.tokens_of(image) for image in images]
        inside = False
        for i, piece in enumerate(marked.split(IMAGE_MARK)):
            if i > 0:
                starts.append(len(ids))
                ids += [self.image_token_id] * counts[i - 1]
                labels += [IGNORE] * counts[i - 1]
            text, has_loss, inside = _split_marks(piece, inside)
            encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            ids += encoded["input_ids"]
            labels += [
                token if any(has_loss[start:end]) else IGNORE
                for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
            ]
        if len(starts) != len(images):
            name = self.tokenizer.name_or_path
            raise ValueError(f"the chat template of {name} shows {len(starts)} of {len(images)} images")
        return Prompt(ids, labels, images, starts, counts)


def truncate(prompt: Prompt, max_tokens: int) -> Prompt:
    """Return the longest beginning within `max_tokens` that splits no image: one that would be cut ends it instead."""
    end = min(max_tokens, len(prompt.input_ids))
    kept = 0
    for start, count in zip(prompt.image_starts, prompt.image_counts, strict=True):
        if start + count > end:
            end = min(end, start)
            break
        kept += 1
    return Prompt(
        prompt.input_ids[:end],
        prompt.labels[:end],
        prompt.images[:kept],
        prompt.image_starts[:kept],
        prompt.image_counts[:kept],
    )


def _images(document: Document) -> list[Picture]:
    return [p for p in document.positions if not isinstance(p, str)]


def _split_marks(piece: str, inside: bool) -> tuple[str, list[bool], bool]:
    """Take the answer marks out of a text: the text, which of its characters have a loss, and the state at its end."""
    characters: list[str] = []
    has_loss: list[bool] = []
    for character in piece:
        if character in (ANSWER_MARK, END_MARK):
            inside = character == ANSWER_MARK
            continue
        characters.append(character)
        has_loss.append(inside)
    return "".join(characters), has_loss, inside


def _begins_with_bos(tokenizer: Any) -> bool:
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id
