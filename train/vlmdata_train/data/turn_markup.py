"""What a chat template writes around messages: before a question, before an answer, behind it, and for an image.

All of it is found by rendering small conversations and looking at what stands around their words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property

from vlmdata_train.data.render import ANSWER, CALL_ID, MORE, WORD, Renderer, answer, user

# Turn markers that are ordinary text for the tokenizer: Llama 2's and Mistral's [INST], ChatML's names that were never added.
_TEXT_MARKERS = re.compile(r"<\|[^\s<>]*\|>|\[/?[A-Z_]{3,}\]|<</?[A-Z]+>>")


class TurnMarkup:
    """The markup of one tokenizer's chat template. Without a template only the special tokens are known."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer, tokenizer = renderer, renderer.tokenizer
        tokens = {token.content: token for token in tokenizer.added_tokens_decoder.values()}
        self.special = {name for name, token in tokens.items() if token.special} | set(tokenizer.all_special_tokens)
        self.added = any_of(name for name in tokens.keys() | self.special if name.strip())  # matches any added token
        self._next = re.compile(rf"\s*({self.added.pattern})")

    @cached_property
    def image_text(self) -> str:
        """What the template writes for an image: its token, and the tokens that some models have around it.

        Without white space, and without words as "Picture 1:".
        """
        image_token = self.renderer.image_token
        if self.renderer.form not in ("parts", "both"):
            return image_token
        with_image = self.renderer.run_as_is([user([{"type": "image"}, {"type": "text", "text": WORD}])])
        header = self.renderer.run_as_is([user([{"type": "text", "text": WORD}])]).partition(WORD)[0]
        written = with_image[len(header) :].partition(WORD)[0] if with_image.startswith(header) else ""
        tokens = list(self.added.finditer(written))
        return written[tokens[0].start() : tokens[-1].end()] if image_token in written else image_token

    @cached_property
    def header(self) -> str:
        """What stands before a first question."""
        return self.renderer.probe(user(WORD)).partition(WORD)[0]

    @cached_property
    def between(self) -> str:
        """What stands between a question and its answer, without a thought that the answer may begin with."""
        answered = self.renderer.probe(user(WORD), answer(ANSWER))
        return answered.partition(WORD)[2].partition(ANSWER)[0].partition("<think>")[0]

    @cached_property
    def _opening(self) -> str:
        """What opens an assistant's turn, as far as the template can be asked for it alone."""
        without = self.renderer.probe(user(WORD))
        opened = self.renderer.probe(user(WORD), add_generation_prompt=True)
        alone = opened.removeprefix(without) if opened.startswith(without) else ""
        return alone.partition("<think>")[0] or self.between

    @cached_property
    def _tail(self) -> str:
        """What follows an assistant's words where nothing is said after them."""
        return self.renderer.probe(user(WORD), answer(ANSWER)).partition(ANSWER)[2]

    @cached_property
    def _headers(self) -> list[str]:
        """What stands before a first question, before and after instructions, and before what a tool says."""
        led = self.renderer.probe({"role": "system", "content": MORE}, user(WORD)).partition(WORD)[0]
        alone = [self.renderer.probe({"role": role, "content": WORD}).partition(WORD)[0] for role in ("system", "tool")]
        return [self.header, led, *alone]

    @cached_property
    def openers(self) -> frozenset[str]:
        """The tokens that open turns. A word or a number is none, though it was added and stands in a header."""
        written = self.added.findall("\n".join([*self._headers, self.between, self._opening]))
        return frozenset(name for name in written if not name.isalnum()) - self.enders - {"<tool_response>"}

    @cached_property
    def openings(self) -> list[list[str]]:
        """What may stand before an answer whose first words are a thought or a call, the surer ones first.

        First what the template opens answers with. Then the last token after a question, or after what a tool has said.
        """
        called = {**answer(""), "tool_calls": [{"id": CALL_ID, "name": ANSWER, "arguments": {}}]}
        result = {"role": "tool", "content": MORE, "tool_call_id": CALL_ID}
        after_tool = self.renderer.probe(user(WORD), called, result, add_generation_prompt=True).partition(MORE)[2]
        last_tokens = [self._from_last_token(self.between), self._from_last_token(after_tool)]
        return [_also_stripped([self._opening]), _also_stripped(last_tokens)]

    def _from_last_token(self, text: str) -> str:
        """Return a text from its last added token on; all of it where it has none."""
        tokens = [found.start() for found in self.added.finditer(text)]
        return text[tokens[-1] :] if tokens else text

    @cached_property
    def endings(self) -> list[str]:
        """What ends an assistant's turn: what follows its words inside of a conversation and at its end alike.

        Where no token does, the one that stands at either of the two places.
        """
        next_question = self.renderer.probe(user(WORD), answer(ANSWER), user(MORE)).partition(ANSWER)[2].partition(MORE)[0]
        shared = self._shared_ending(next_question)
        token_ends = [found.end() for found in self.added.finditer(shared)]
        if token_ends:
            return [shared[: token_ends[-1]]]
        tokens = self._single_ending_tokens(next_question)
        return [*tokens, shared] if shared else tokens

    def _shared_ending(self, next_question: str) -> str:
        """Return the beginning that the tail shares with what stands before a next question, cut before a token it splits.

        Where nothing stands before a next question, the tail as far as its first token.
        """
        if next_question:
            shared = _shared(self._tail, next_question)
        else:
            first = self._next.match(self._tail)
            shared = first[0] if first else self._tail
        for found in [*self.added.finditer(self._tail), *self.added.finditer(next_question)]:
            if found.start() < len(shared) < found.end():
                shared = shared[: found.start()]
        return shared

    def _single_ending_tokens(self, next_question: str) -> list[str]:
        """Return the first token of the tail, and the one that parts turns: it stands before questions and answers alike.

        A token that the first question has before it too parts no turns.
        """
        first, parting = self._next.match(self._tail), self._next.match(next_question)
        tokens = [first[1]] if first else []
        begin = self.header.removeprefix(self.renderer.tokenizer.bos_token or "").lstrip()
        if parting and self.between.lstrip().startswith(parting[1]) and not begin.startswith(parting[1]):
            tokens.append(parting[1])
        return tokens

    @cached_property
    def ending(self) -> re.Pattern[str]:
        """A pattern for any of `endings` and for the end-of-sequence token; for nothing where there are none."""
        texts = [*self.endings, self.renderer.tokenizer.eos_token or ""]
        marked = [r"\s*" + re.escape(text.strip()) for text in texts if self.added.search(text)]
        worded = [re.escape(text.rstrip() or text) for text in texts if text and not self.added.search(text)]
        return re.compile("|".join([*marked, *worded]) or r"(?!)")

    @cached_property
    def enders(self) -> frozenset[str]:
        """The tokens that end an assistant's turn; none where the template ends it with plain text or nothing."""
        return frozenset(name for ending in self.endings for name in self.added.findall(ending))

    @cached_property
    def control(self) -> frozenset[str]:
        """The tokens that a text must not spell: special ones, and those that the template itself opens and ends turns with."""
        words = _TEXT_MARKERS.findall(" ".join([*self._headers, self.between, self._opening, self._tail]))
        return frozenset({*self.special, *self.openers, *self.enders, *words})

    @cached_property
    def stop_ids(self) -> list[int]:
        """The ids at which an answer has ended: the end-of-sequence token and the one that ends the assistant's turn."""
        tokenizer = self.renderer.tokenizer
        vocabulary = tokenizer.get_vocab()
        last = [name for ending in self.endings for name in self.added.findall(ending)[-1:]]
        ids = {vocabulary[name] for name in last if name in vocabulary}
        return sorted(ids | ({tokenizer.eos_token_id} - {None}))


def any_of(names: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern for any of these names, a longer one before its beginning; for nothing where there are none."""
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _shared(one: str, other: str) -> str:
    """Return the beginning that two texts share."""
    return one[: next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))]


def _also_stripped(texts: list[str]) -> list[str]:
    """Return each text and the same without white space at its end; blank ones are left out."""
    variants: list[str] = []
    for text in texts:
        variants += [text, text.rstrip()]
    return [text for text in variants if text.strip()]
