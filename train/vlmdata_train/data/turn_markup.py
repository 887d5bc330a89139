"""Find the text that a chat template writes around messages: before a question, around an answer, and for an image.

The module renders small conversations of known words, and reads the text around these words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property

from vlmdata_train.data.render import ANSWER, CALL_ID, MORE, WORD, Renderer, answer, user

# Turn markers that may be ordinary text for the tokenizer: [INST] of Llama 2 and Mistral, the names of ChatML, and <0x04> of
# Fuyu, which is a piece of its vocabulary.
_TEXT_MARKERS = re.compile(r"<\|[^\s<>]*\|>|\[/?[A-Z_]{3,}\]|<</?[A-Z]+>>|<0x[0-9A-F]{2}>")


class TurnMarkup:
    """The markup of a tokenizer's chat template. Without a template only the special tokens are known."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer, tokenizer = renderer, renderer.tokenizer
        tokens = {token.content: token for token in tokenizer.added_tokens_decoder.values()}
        self.special = {name for name, token in tokens.items() if token.special} | set(tokenizer.all_special_tokens)
        self.added = any_of(name for name in tokens.keys() | self.special if name.strip())  # matches any added token
        self._next = re.compile(rf"\s*({self.added.pattern})")

    @cached_property
    def image_text(self) -> str:
        """The tokens that the template writes for an image: the image token, and in some models tokens around it.

        Outer white space and words such as "Picture 1:" are removed.
        """
        image_token = self.renderer.image_token
        if self.renderer.form not in ("parts", "both"):
            return image_token
        with_image = self.renderer.run_as_is([user([{"type": "image"}, {"type": "text", "text": WORD}])])
        header = self.renderer.run_as_is([user([{"type": "text", "text": WORD}])]).partition(WORD)[0]
        written = with_image[len(header) :].partition(WORD)[0] if with_image.startswith(header) else ""
        places = [found.span() for found in [*self.added.finditer(written), *re.finditer(re.escape(image_token), written)]]
        starts, ends = zip(*places, strict=True) if places else ((0,), (0,))
        return written[min(starts) : max(ends)] if image_token in written else image_token

    @cached_property
    def header(self) -> str:
        """The text that the template writes before the first question."""
        return self.renderer.probe(user(WORD)).partition(WORD)[0]

    @cached_property
    def between(self) -> str:
        """The text that the template writes between a question and its answer, up to the answer or the tag <think>."""
        answered = self.renderer.probe(user(WORD), answer(ANSWER))
        return answered.partition(WORD)[2].partition(ANSWER)[0].partition("<think>")[0]

    @cached_property
    def _opening(self) -> str:
        """The text that opens an assistant's turn: the generation prompt if the template has one, otherwise `between`."""
        without = self.renderer.probe(user(WORD))
        opened = self.renderer.probe(user(WORD), add_generation_prompt=True)
        alone = opened.removeprefix(without) if opened.startswith(without) else ""
        return alone.partition("<think>")[0] or self.between

    @cached_property
    def _tail(self) -> str:
        """The text that the template writes after the last answer."""
        return self.renderer.probe(user(WORD), answer(ANSWER)).partition(ANSWER)[2]

    @cached_property
    def _headers(self) -> list[str]:
        """The text that the template writes before the words of the last message, for each of four conversations.

        The conversations are: a question, a system message with a question, a system message alone, and a tool message alone.
        """
        after_system = self.renderer.probe({"role": "system", "content": MORE}, user(WORD)).partition(WORD)[0]
        alone = [self.renderer.probe({"role": role, "content": WORD}).partition(WORD)[0] for role in ("system", "tool")]
        return [self.header, after_system, *alone]

    @cached_property
    def openers(self) -> frozenset[str]:
        """The tokens that open turns: the added tokens that the template writes before messages.

        Words, numbers and the tokens that end turns are left out.
        """
        written = self.added.findall("\n".join([*self._headers, self.between, self._opening]))
        return frozenset(name for name in written if not name.isalnum()) - self.enders - {"<tool_response>"}

    @cached_property
    def openings(self) -> list[list[str]]:
        """Two lists of texts that may precede an answer with a thought or a tool call. The first list is more reliable.

        The first list holds the text that opens the assistant's turn. The second list holds the ends of two other texts: the
        text between a question and its answer, and the text between a tool message and its answer. Each end begins at the last
        added token. Both lists also hold their texts without trailing white space.
        """
        called = {**answer(""), "tool_calls": [{"id": CALL_ID, "name": ANSWER, "arguments": {}}]}
        result = {"role": "tool", "content": MORE, "tool_call_id": CALL_ID}
        after_tool = self.renderer.probe(user(WORD), called, result, add_generation_prompt=True).partition(MORE)[2]
        last_tokens = [self._from_last_token(self.between), self._from_last_token(after_tool)]
        return [_also_stripped([self._opening]), _also_stripped(last_tokens)]

    def _from_last_token(self, text: str) -> str:
        """Return the end of a text, from its last added token, or the whole text if it has no added token."""
        tokens = [found.start() for found in self.added.finditer(text)]
        return text[tokens[-1] :] if tokens else text

    @cached_property
    def endings(self) -> list[str]:
        """The texts that end an assistant's turn.

        Usually this is one text with an added token, which follows every answer in a conversation. If the text after every
        answer has no added token, two added tokens come before it in the list, as far as they exist: one that follows only the
        last answer, and one that follows only earlier answers. If no text follows every answer, the list has only these tokens.
        """
        next_question = self.renderer.probe(user(WORD), answer(ANSWER), user(MORE)).partition(ANSWER)[2].partition(MORE)[0]
        shared = self._shared_ending(next_question)
        token_ends = [found.end() for found in self.added.finditer(shared)]
        if token_ends:
            return [shared[: token_ends[-1]]]
        tokens = self._single_ending_tokens(next_question)
        return [*tokens, shared] if shared else tokens

    def _shared_ending(self, next_question: str) -> str:
        """Return the common prefix of `next_question` and `_tail`, which is the text after the last answer.

        `next_question` is the text between an earlier answer and the question after it. The prefix is cut before a token that
        it would split. If `next_question` is empty, return the token at the beginning of `_tail`, or all of `_tail` if it
        begins with other text.
        """
        if next_question:
            shared = _common_prefix(self._tail, next_question)
        else:
            first = self._next.match(self._tail)
            shared = first[0] if first else self._tail
        for found in [*self.added.finditer(self._tail), *self.added.finditer(next_question)]:
            if found.start() < len(shared) < found.end():
                shared = shared[: found.start()]
        return shared

    def _single_ending_tokens(self, next_question: str) -> list[str]:
        """Return the first token after the last answer, and the token that separates turns, if these tokens exist.

        A token separates turns if every turn except the first begins with it. So the text before an answer and the text before
        a later question begin with this token, but the text before the first question does not.
        """
        first, separator = self._next.match(self._tail), self._next.match(next_question)
        tokens = [first[1]] if first else []
        begin = self.header.removeprefix(self.renderer.tokenizer.bos_token or "").lstrip()
        if separator and self.between.lstrip().startswith(separator[1]) and not begin.startswith(separator[1]):
            tokens.append(separator[1])
        return tokens

    @cached_property
    def ending(self) -> re.Pattern[str]:
        """A pattern that matches any of `endings` and the end-of-sequence token, or nothing if there are no such texts."""
        texts = [*self.endings, self.renderer.tokenizer.eos_token or ""]
        marked = [r"\s*" + re.escape(text.strip()) for text in texts if self.added.search(text)]
        worded = [re.escape(text.rstrip() or text) for text in texts if text and not self.added.search(text)]
        return re.compile("|".join([*marked, *worded]) or r"(?!)")

    @cached_property
    def enders(self) -> frozenset[str]:
        """The tokens that end an assistant's turn. There are none if the template ends the turn with plain text or nothing."""
        return frozenset(name for ending in self.endings for name in self.added.findall(ending))

    @cached_property
    def control(self) -> frozenset[str]:
        """The tokens that a text must not contain: special tokens, and the tokens that open or end turns."""
        words = _TEXT_MARKERS.findall(" ".join([*self._headers, self.between, self._opening, self._tail]))
        return frozenset({*self.special, *self.openers, *self.enders, *words})

    @cached_property
    def stop_ids(self) -> list[int]:
        """The ids of the tokens that end an answer: the end-of-sequence token, and the last token of the assistant's turn."""
        tokenizer = self.renderer.tokenizer
        vocabulary = tokenizer.get_vocab()
        last = [name for ending in self.endings for name in self.added.findall(ending)[-1:]]
        ids = {vocabulary[name] for name in last if name in vocabulary}
        return sorted(ids | ({tokenizer.eos_token_id} - {None}))


def any_of(names: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that matches any of these names, longer names first. Without names the pattern matches nothing."""
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _common_prefix(one: str, other: str) -> str:
    """Return the common prefix of two texts."""
    return one[: next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))]


def _also_stripped(texts: list[str]) -> list[str]:
    """Return each text, and each text without its trailing white space. Blank results are left out."""
    variants: list[str] = []
    for text in texts:
        variants += [text, text.rstrip()]
    return [text for text in variants if text.strip()]
