"""Clean untrusted text, so that it cannot contain the control tokens of a conversation."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from vlmdata_train.data.marks import MARKS
from vlmdata_train.data.templates import ChatTemplate
from vlmdata_train.data.turn_markup import any_of

_DEEPEST = 100


class Cleaner:
    """Cleans texts for one tokenizer.

    `media` are the tokens of images and videos, and around them. `trusted` holds the control tokens that texts may contain.
    """

    def __init__(self, tokenizer: Any, media: Collection[str], trusted: frozenset[str]) -> None:
        self.media, self.trusted = frozenset(media), trusted
        self._normalizer = tokenizer.backend_tokenizer.normalizer
        # Tokens that the tokenizer also finds in normalized text
        self._found_normalized = {token.content for token in tokenizer.added_tokens_decoder.values() if token.normalized}
        self._found_normalized |= tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False).keys()
        self._patterns: tuple[ChatTemplate, tuple[re.Pattern[str], re.Pattern[str] | None]] | None = None

    def clean(self, text: str, template: ChatTemplate) -> str:
        """Return the text with the names of untrusted control tokens broken up, and with reserved characters replaced.

        A character is inserted into each name, so that the tokenizer does not read the name as a token. Trusted tokens are
        those that the user allows in texts. Added tokens that are ordinary text also stay, such as line ends, blanks, tags and
        <think>. The reserved characters are the noncharacters that `marks.py` uses as marks. They become U+FFFD.
        """
        # A word joiner inside a token's name keeps the name readable, but the text can no longer close its turn.
        control, normalized_control = self._control_of(template)
        text = _broken(MARKS.sub("\ufffd", text), control, "\u2060")
        if normalized_control is not None and normalized_control.search(seen := self._normalizer.normalize_str(text)):
            # A normalizer may remove the joiner, or may turn other letters into the letters of a name.
            return _broken(_broken(seen, normalized_control, " "), control, " ")
        return text

    def _control_of(self, template: ChatTemplate) -> tuple[re.Pattern[str], re.Pattern[str] | None]:
        """Return two patterns: for the names of untrusted control tokens in a text, and for these names in a normalized text.

        A normalized text is a text after the tokenizer's normalizer. If there is no normalizer, the second pattern is None. The
        second pattern has only the tokens that the tokenizer also finds in normalized text.
        """
        if self._patterns is None or self._patterns[0] is not template:
            names, normalized = (template.control | self.media) - self.trusted, None
            if self._normalizer is not None:
                found = names & self._found_normalized
                normalized = any_of(self._normalizer.normalize_str(name).lstrip("▁") for name in found)
            self._patterns = template, (any_of(names), normalized)
        return self._patterns[1]

    def clean_json(self, value: Any, template: ChatTemplate, depth: int = 0) -> Any:
        """Return a JSON value with every string in it cleaned.

        Raises ValueError if the value is nested deeper than 100 levels, because a chat template could not write it.
        """
        if depth > _DEEPEST:
            raise ValueError(f"the JSON must not be nested deeper than {_DEEPEST} levels")
        if isinstance(value, str):
            return self.clean(value, template)
        if isinstance(value, list):
            return [self.clean_json(item, template, depth + 1) for item in value]
        if isinstance(value, dict):
            return {self.clean(name, template): self.clean_json(item, template, depth + 1) for name, item in value.items()}
        return value


def _broken(text: str, pattern: re.Pattern[str], joint: str) -> str:
    """Return the text, changed so that `pattern` no longer matches.

    In each match, `joint` is inserted after the first character. A match of one character becomes U+FFFD. This is repeated
    until nothing matches.
    """
    while pattern.search(text):
        text = pattern.sub(lambda m: m[0][:1] + joint + m[0][1:] if len(m[0]) > 1 else "\ufffd", text)
    return text
