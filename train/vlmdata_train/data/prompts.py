"""Make the prompt of a sample: its tokens, the places of its images, and which tokens have a loss.

The tokenizer's chat template writes a conversation as one text, and this text is tokenized as a whole. So the ids are the same
as when the model is served. `templates.py` finds the answers in the text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmdata.grounding.write import Piece
from vlmdata.readers.strings import is_blank
from vlmdata.sizes import counted
from vlmdata.step import RecipeError
from vlmdata_train.data.cleaning import Cleaner
from vlmdata_train.data.document import Document, Media, Video, WrittenText
from vlmdata_train.data.expansion import Expansion, Span, expand, has_several, marks
from vlmdata_train.data.marks import IMAGE_MARK, MEDIA, VIDEO_MARK
from vlmdata_train.data.media_text import MediaText
from vlmdata_train.data.prompt import PlacedImage, Prompt
from vlmdata_train.data.render import Message
from vlmdata_train.data.templates import ChatTemplate
from vlmdata_train.data.tool_calls import read_call
from vlmdata_train.model.batch import IGNORE

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_EMPTY_THOUGHT = re.compile(r"<think>\s*</think>")
_ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function"))  # the roles of OpenAI's API


class Prompter:
    """Turns documents into prompts for one tokenizer.

    `trusted` are control tokens that the data may contain. `box_tokens` are those with which boxes are written. With
    `last_only`, only the last answer of a conversation has a loss.
    Raises RecipeError if `trusted` has an unknown token, or a token that no text may contain.
    """

    def __init__(
        self, tokenizer: Any, media: MediaText, *, trusted: Collection[str] = (), last_only: bool = False,
        box_tokens: Collection[str] = (),
    ) -> None:  # fmt: skip
        if not tokenizer.is_fast:
            raise ValueError(
                f"the tokenizer {tokenizer.name_or_path} must be a fast tokenizer, because only fast tokenizers report"
                " where tokens are in a text"
            )
        self.tokenizer, self.media, self.image_token_id = tokenizer, media, media.image_token_id
        self.image_token, self.video_token = tokens = media.tokens(tokenizer)
        self._image_mark, self._video_mark = marks(tokens, media.placeholder)  # in the output of the chat template
        self.trusted, self.last_only = frozenset(trusted), last_only
        self.pad_id: int = tokenizer.pad_token_id
        self._begin = written_before(tokenizer, self.image_token)
        own_bos = "".join(tokenizer.convert_ids_to_tokens(self._begin)) or tokenizer.bos_token or ""
        self._bos = media.bos_token or own_bos  # after images
        self._media_ids = np.array([media.image_token_id, -1 if media.video_token_id is None else media.video_token_id])
        self._names = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}
        self._name_ids = np.array(sorted(self._names))
        self._template = self._read_template()
        own = {*tokens, self._image_mark, *media.literals}
        self._cleaner = Cleaner(tokenizer, own, self.trusted)
        self.box_tokens = frozenset(box_tokens)
        self._answer_cleaner = Cleaner(tokenizer, own, self.trusted | self.box_tokens)
        self._words_cleaner = Cleaner(tokenizer, {*own, *self.box_tokens}, self.trusted)
        for name in sorted(self.trusted):
            _check_trusted(name, self.template, self.image_token)

    @property
    def template(self) -> ChatTemplate:
        """The tokenizer's current chat template."""
        if self._template.source != self.tokenizer.chat_template:
            self._template = self._read_template()
        return self._template

    def _read_template(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer, self._image_mark, self.media.video_token(self.tokenizer))

    def plain(self, document: Document) -> Prompt:
        """Return the "plain" prompt of LLaVA's stage 1: image tokens, then the caption and the end token, which have a loss."""
        images = "".join(map(self._written, _media(document)))
        caption = " ".join(self.clean(p).strip() for p in document.positions if isinstance(p, str)) + self._end()
        return self._encode(images + caption, [(len(images), len(images) + len(caption))], _media(document))

    def page(self, document: Document) -> Prompt:
        """Return the prompt of an interleaved page: its paragraphs and images, in order. Every text has a loss.

        Empty lines separate paragraphs from each other and from images. Nothing separates consecutive images.
        """
        said = [self.clean(p) if isinstance(p, str) else _mark_of(p) for p in document.positions]
        media = iter(_media(document))
        text = MEDIA.sub(lambda _: self._written(next(media)), "".join(_joined(said, "\n\n"))) + self._end()
        return self._encode(text, [(0, len(text))], _media(document))

    def chat(self, document: Document) -> Prompt:
        """Return the prompt of a conversation, as the chat template writes it.

        Each answer and the end of its turn have a loss, except if the answer is empty or its message has `train: False`.
        """
        messages = self.messages(document)
        said = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        candidates = said[-1:] if self.last_only else said
        trained = [number for number in candidates if messages[number].get("train", True)]
        wanted = [number for number in trained if _says_something(messages[number])]
        text, answers = self.template.find_answers(messages, wanted, self._tools(document))
        prompt = self._encode(text, answers, _media(document), self._first_question(messages))
        return replace(prompt, blank_answers=len(trained) - len(wanted))

    def question(self, messages: Sequence[Message], media: Sequence[Media], *, tools: list[Any] | None = None) -> Prompt:
        """Return the prompt of a conversation up to the answer that the model will generate.

        Each IMAGE_MARK or VIDEO_MARK in the contents of the messages is the place of an image or a video.
        """
        text = self.template.render(messages, tools=tools, add_generation_prompt=True)
        return self._encode(text, [], media, self._first_question(messages))

    def beginning(self, media: Sequence[Media], text: str) -> Prompt:
        """Return a prompt that consists of images and the beginning of a caption. The model continues the caption."""
        return self._encode("".join(map(self._written, media)) + self.clean(text), [], media)

    def before_answer(self, document: Document) -> tuple[Prompt, str]:
        """Return the prompt up to the last answer or the caption, and the text of that answer or caption, for evaluation."""
        if document.roles is None:
            text = " ".join(p.strip() for p in document.positions if isinstance(p, str))
            return self.beginning(_media(document), ""), text
        messages = self.messages(document)
        last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
        seen = sum(len(MEDIA.findall(m["content"])) for m in messages[:last])
        prompt = self.question(messages[:last], _media(document)[:seen], tools=self._tools(document))
        return prompt, messages[last]["content"]

    def messages(self, document: Document) -> list[dict[str, Any]]:
        """Return the messages of a conversation. Raises ValueError for an unknown role.

        Consecutive texts and images of one role form one message. A turn with `begins` always starts a new message. An
        image and the text next to it are on separate lines.
        """
        assert document.roles is not None
        messages: list[dict[str, Any]] = []
        turns = document.turns or [None] * len(document.positions)
        for position, role, turn in zip(document.positions, document.roles, turns, strict=True):
            if role not in _ROLES:
                # unsafe, because a template may write the role inside a control token
                raise ValueError(f"the role {role!r} is unknown")
            facts: Mapping[str, object] = turn or {}
            if not messages or messages[-1]["role"] != role or facts.get("begins"):
                named = {name: self._clean_json(facts[name]) for name in ("train", "name", "tool_call_id") if name in facts}
                messages.append({"role": role, "content": "", **named})
            self._add(messages[-1], position, (turn or {}).get("kind"))
        for message in messages:
            message["content"] = "".join(_joined(message.pop("said", []), "\n"))
        return messages

    def _add(self, message: dict[str, Any], position: str | Media, kind: str | None) -> None:
        """Add an image, a video, reasoning, a tool call or other text to a message. `kind` is None for other text."""
        if not isinstance(position, str):
            message.setdefault("said", []).append(_mark_of(position))
        elif kind == "reasoning":
            before = [message["reasoning_content"]] if "reasoning_content" in message else []
            message["reasoning_content"] = "\n".join([*before, self.clean(position)])
        elif kind == "tool_call":
            message.setdefault("tool_calls", []).append(self._clean_json(read_call(position)))
        else:
            message.setdefault("said", []).append(self.clean(position))

    def answer_text(self, ids: list[int]) -> str:
        """Return the text of generated tokens. Untrusted control tokens and outer white space are removed."""
        return self.untrimmed_text(ids).strip()

    def untrimmed_text(self, ids: list[int]) -> str:
        """Return the text of generated tokens. Untrusted control tokens are removed."""
        names = self.template.control - self.trusted - self.box_tokens
        kept = [number for number in ids if self.tokenizer.convert_ids_to_tokens(number) not in names]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False))

    def clean(self, text: str) -> str:
        """Return the text without marks and control tokens; see `Cleaner.clean`. A `WrittenText` is returned unchanged."""
        return text if isinstance(text, WrittenText) else self._cleaner.clean(text, self.template)

    def clean_answer(self, text: str) -> str:
        """Return an answer of the model without marks and control tokens, except those of boxes."""
        return self._answer_cleaner.clean(text, self.template)

    def written(self, pieces: Iterable[Piece]) -> WrittenText:
        """Return pieces of a grounded text as one text. Only their markup keeps its control tokens."""
        texts = (p.text if p.is_markup else self._words_cleaner.clean(p.text, self.template) for p in pieces)
        return WrittenText("".join(texts))

    def _clean_json(self, value: Any) -> Any:
        return self._cleaner.clean_json(value, self.template)

    def _tools(self, document: Document) -> list[Any] | None:
        return self._clean_json(document.tools) if document.tools else None

    def _end(self) -> str:
        """Return the end-of-sequence token, or a line end if the tokenizer has none."""
        return self.tokenizer.eos_token or "\n"

    def _written(self, item: Media) -> str:
        """Return the text for an image or a video outside of a conversation: its token, with the template's tokens."""
        if isinstance(item, Video):
            return self.template.image_text.replace(self._image_mark, self._video_mark)
        return self.template.image_text

    def _first_question(self, messages: Sequence[Message]) -> str:
        """Return the texts of the user before the first answer, for an abstractor that reads the question.

        Later questions are left out, because an image would otherwise show what follows an answer.
        """
        first = next((number for number, message in enumerate(messages) if message["role"] == "assistant"), len(messages))
        asked = [MEDIA.sub("", message["content"]).strip() for message in messages[:first] if message["role"] == "user"]
        return "\n".join(asked)

    def _encode(self, text: str, answers: Sequence[Span], media: Sequence[Media], question: str = "") -> Prompt:
        """Return the prompt of a text. The text is tokenized as a whole, with the literal tokens of its images.

        `answers` are the ranges of characters (start, end) that have a loss. The tokens of images have no loss. Raises
        ValueError if the text does not have one image token for each image or video.
        """
        tokens = (self.image_token, self.video_token)
        expansion = expand(text, tokens, media, self.media.write, placeholder=self.media.placeholder)
        name = self.tokenizer.name_or_path
        if expansion is None:
            found = sum(map(text.count, {self._image_mark, self._video_mark}))
            raise ValueError(
                f"the chat template of {name} writes {counted(found, 'image token')} for {counted(len(media), 'image')}"
            )
        after_images, cut = self.media.bos_after_images, 0
        if after_images and self._bos and not expansion.text.startswith(self._bos, expansion.lead):
            cut = expansion.lead + len(self._bos)
            expansion = expansion.inserted(expansion.lead, self._bos)
        ids, starts, ends = self._tokenize(expansion.text, cut)
        begin = [] if after_images or ids[: len(self._begin)].tolist() == self._begin else self._begin
        runs = [run.tokens for image in expansion.runs for run in image]
        places = np.flatnonzero(np.isin(ids, self._media_ids))
        if len(places) != len(runs):
            raise ValueError(f"the tokenizer {name} finds {counted(len(places), 'image token')} in a text with {len(runs)}")
        labels = np.where(self._learned(expansion, ids, starts, ends, answers), ids, IGNORE)
        repeats = np.ones(len(ids), dtype=np.int64)
        repeats[places] = runs
        index = len(begin) + np.concatenate([[0], np.cumsum(repeats)])  # of each token after the repetition
        return Prompt(
            [*begin, *np.repeat(ids, repeats).tolist()], [IGNORE] * len(begin) + np.repeat(labels, repeats).tolist(),
            _placed(expansion, media, index, starts, places), self.media.question(question),
        )  # fmt: skip

    def _tokenize(self, text: str, cut: int) -> tuple[Ints, Ints, Ints]:
        """Return the ids of a text, and the first character and the end of each token, (T,) each.

        The text after `cut` is tokenized separately, because a tokenizer may put a blank before the first word of a text.
        InstructBLIP and Fuyu have this blank after a BOS that follows an image.
        """
        ids, offsets = [], []
        for start, piece in ((0, text[:cut]), (cut, text[cut:])):
            encoded = self.tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            ids.append(np.array(encoded["input_ids"] if piece else [], dtype=np.int64))
            offsets.append(np.array(encoded["offset_mapping"] if piece else [], dtype=np.int64).reshape(-1, 2) + start)
        return np.concatenate(ids), *_with_blanks(np.concatenate(offsets))

    def _learned(self, expansion: Expansion, ids: Ints, starts: Ints, ends: Ints, answers: Sequence[Span]) -> Bools:
        """Return which tokens have a loss, bool (T,): all tokens with a character in an answer, except those of images.

        `starts` and `ends` are the ranges of the tokens in the text.
        """
        text = expansion.text
        has_loss = np.zeros(len(text) + 1, dtype=np.int64)
        for start, end in expansion.moved(answers):
            has_loss[start:end] = 1
        for start, end in expansion.spans:
            has_loss[start:end] = 0
        before = np.concatenate([[0], np.cumsum(has_loss)])
        starts, ends = starts.copy(), ends.copy()
        for i in np.flatnonzero(np.isin(ids, self._name_ids)).tolist():
            at = text.find(self._names[int(ids[i])], starts[i], ends[i])
            if at >= 0:  # the range of an added token may include white space around it
                starts[i], ends[i] = at, at + 1
        return (before[ends] > before[starts]) & ~np.isin(ids, self._media_ids)


def _with_blanks(offsets: Ints) -> tuple[Ints, Ints]:
    """Return the starts and ends of tokens, (T,) each, from their ranges (T, 2), without empty ranges.

    A token with an empty range is white space that some tokenizers exclude from ranges, or a blank that the tokenizer added. An
    added blank belongs to the text after it.
    """
    starts, ends = offsets.T
    last = np.concatenate([[0], ends[:-1]])
    is_left_out = (starts == ends) & (last < starts)
    return np.where(is_left_out, last, starts), np.where(is_left_out, starts, np.maximum(ends, starts + 1))


def _placed(expansion: Expansion, media: Sequence[Media], index: Ints, starts: Ints, places: Ints) -> list[PlacedImage]:
    """Return the images and videos of a prompt with the ranges of their tokens.

    `starts` holds the first character of each token of the expanded text, and `index` the index of each such token in the
    prompt. `places` are the image tokens of the text, one for each run.
    """
    placed, seen, several = [], 0, has_several(media)
    for item, (start, end), runs in zip(media, expansion.spans, expansion.runs, strict=True):
        own = places[seen : seen + len(runs)]
        seen += len(runs)
        first, last = np.searchsorted(starts, (start, end))
        # a tokenizer may count white space before a special token as part of the token
        first, last = min([first, *own]), max([last, *(own + 1)])
        placed.append(PlacedImage(item, int(index[first]), int(index[last]), runs, several))
    return placed


def _mark_of(item: Media) -> str:
    """Return the mark of an image or of a video."""
    return VIDEO_MARK if isinstance(item, Video) else IMAGE_MARK


def _media(document: Document) -> list[Media]:
    """Return the images and videos of a document, in order."""
    return [p for p in document.positions if not isinstance(p, str)]


def _joined(said: list[str], between: str) -> Iterator[str]:
    """Yield the texts and images in order, with `between` as the separator. Two successive images have no separator."""
    for number, piece in enumerate(said):
        if number > 0 and not (MEDIA.fullmatch(said[number - 1]) and MEDIA.fullmatch(piece)):
            yield between
        yield piece


def _says_something(message: Message) -> bool:
    """Return whether a message has a tool call, or text other than blanks, images and empty thoughts."""
    said = [message["content"], message.get("reasoning_content", "")]
    return bool(message.get("tool_calls")) or not all(is_blank(MEDIA.sub("", _EMPTY_THOUGHT.sub("", text))) for text in said)


def written_before(tokenizer: Any, text: str) -> list[int]:
    """Return the ids that the tokenizer adds before any text: a BOS, or nothing.

    The function tests this with `text`, which must be one token of the vocabulary.
    """
    bare, whole = tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer(text)["input_ids"]
    start = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
    return whole[:start]


def _check_trusted(name: str, template: ChatTemplate, image_token: str) -> None:
    """Raise RecipeError if a recipe cannot trust the token `name`, that is, allow it in texts.

    The vocabulary must have the token. Tokens that open or end turns or texts, the padding token and the image token cannot be
    trusted.
    """
    tokenizer = template.tokenizer
    if name not in tokenizer.get_vocab():
        raise RecipeError(f"trusted_tokens: the tokenizer {tokenizer.name_or_path} has no token '{name}'")
    ends = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, image_token}
    if name in template.turn_markers | ends:
        raise RecipeError(
            f"trusted_tokens: '{name}' opens or ends turns or texts, or marks an image, so no text may contain it"
        )
