"""Text of strangers made safe for a prompt: it cannot spell the tokens that a conversation is made of."""

from __future__ import annotations

import re
from typing import Any

from vlmdata_train.data.marks import MARKS
from vlmdata_train.data.templates import ChatTemplate
from vlmdata_train.data.turn_markup import any_of

_DEEPEST = 100


class Cleaner:
    """Cleans texts for one tokenizer. `trusted` are tokens that the data may write."""

    def __init__(self, tokenizer: Any, image_token: str, trusted: frozenset[str]) -> None:
        self.image_token, self.trusted = image_token, trusted
        self._normalizer = tokenizer.backend_tokenizer.normalizer
        # Tokens that are also looked for in normalized text
        self._late = {token.content for token in tokenizer.added_tokens_decoder.values() if token.normalized}
        self._late |= tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False).keys()
        self._patterns: tuple[ChatTemplate, tuple[re.Pattern[str], re.Pattern[str] | None]] | None = None

    def clean(self, text: str, template: ChatTemplate) -> str:
        """Take from a text what would act as markup: our marks, and what it spells of the template's control tokens.

        All else stays: added tokens that are ordinary text (line ends, blanks, tags, <think>), and those that are trusted.
        """
        # A word joiner inside the token's name leaves it readable and keeps a page from closing the turn it stands in.
        control, late = self._control_of(template)
        text = _broken(MARKS.sub("\ufffd", text), control, "\u2060")
        if late is not None and late.search(seen := self._normalizer.normalize_str(text)):
            # A normalizer may take the joiner away, and write other letters as the name's.
            return _broken(_broken(seen, late, " "), control, " ")
        return text

    def _control_of(self, template: ChatTemplate) -> tuple[re.Pattern[str], re.Pattern[str] | None]:
        """What a text must not spell, and what it must not spell once it is normalized; None: nothing is read then."""
        if self._patterns is None or self._patterns[0] is not template:
            names, late = (template.control | {self.image_token}) - self.trusted, None
            if self._normalizer is not None:
                late = any_of(self._normalizer.normalize_str(name).lstrip("▁") for name in names & self._late)
            self._patterns = template, (any_of(names), late)
        return self._patterns[1]

    def clean_json(self, value: Any, template: ChatTemplate, depth: int = 0) -> Any:
        """Clean every text of a JSON value. ValueError: it is nested too deep for templates to write it."""
        if depth > _DEEPEST:
            raise ValueError(f"JSON nested deeper than {_DEEPEST} levels")
        if isinstance(value, str):
            return self.clean(value, template)
        if isinstance(value, list):
            return [self.clean_json(one, template, depth + 1) for one in value]
        if isinstance(value, dict):
            return {self.clean(name, template): self.clean_json(one, template, depth + 1) for name, one in value.items()}
        return value


def _broken(text: str, pattern: re.Pattern[str], joint: str) -> str:
    while pattern.search(text):
        text = pattern.sub(lambda m: m[0][:1] + joint + m[0][1:] if len(m[0]) > 1 else "\ufffd", text)
    return text
