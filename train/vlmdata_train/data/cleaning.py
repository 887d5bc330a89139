"""Cleaning of untrusted text, so that it cannot spell a conversation's control tokens."""

from __future__ import annotations

import re
from typing import Any

from vlmdata_train.data.marks import MARKS
from vlmdata_train.data.templates import ChatTemplate
from vlmdata_train.data.turn_markup import any_of

_DEEPEST = 100


class Cleaner:
    """Cleans texts for one tokenizer. `trusted` are control tokens that the data may contain."""

    def __init__(self, tokenizer: Any, image_token: str, trusted: frozenset[str]) -> None:
        self.image_token, self.trusted = image_token, trusted
        self._normalizer = tokenizer.backend_tokenizer.normalizer
        # Tokens that the tokenizer also finds in normalized text
        self._found_normalized = {token.content for token in tokenizer.added_tokens_decoder.values() if token.normalized}
        self._found_normalized |= tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False).keys()
        self._patterns: tuple[ChatTemplate, tuple[re.Pattern[str], re.Pattern[str] | None]] | None = None

    def clean(self, text: str, template: ChatTemplate) -> str:
        """Return the text without what would act as markup: our marks, and the names of the template's control tokens.

        Trusted tokens stay, and so do added tokens that are ordinary text (line ends, blanks, tags, <think>).
        """
        # A word joiner inside a token's name keeps it readable, and the text cannot close its turn.
        control, normalized_control = self._control_of(template)
        text = _broken(MARKS.sub("\ufffd", text), control, "\u2060")
        if normalized_control is not None and normalized_control.search(seen := self._normalizer.normalize_str(text)):
            # A normalizer may remove the joiner, or turn other letters into those of the name.
            return _broken(_broken(seen, normalized_control, " "), control, " ")
        return text

    def _control_of(self, template: ChatTemplate) -> tuple[re.Pattern[str], re.Pattern[str] | None]:
        """Return patterns of the names that a text must not contain: as it is, and normalized (None without a normalizer)."""
        if self._patterns is None or self._patterns[0] is not template:
            names, normalized = (template.control | {self.image_token}) - self.trusted, None
            if self._normalizer is not None:
                found = names & self._found_normalized
                normalized = any_of(self._normalizer.normalize_str(name).lstrip("▁") for name in found)
            self._patterns = template, (any_of(names), normalized)
        return self._patterns[1]

    def clean_json(self, value: Any, template: ChatTemplate, depth: int = 0) -> Any:
        """Clean every text of a JSON value. Raises ValueError if it is nested too deep for templates to write."""
        if depth > _DEEPEST:
            raise ValueError(f"JSON nested deeper than {_DEEPEST} levels")
        if isinstance(value, str):
            return self.clean(value, template)
        if isinstance(value, list):
            return [self.clean_json(item, template, depth + 1) for item in value]
        if isinstance(value, dict):
            return {self.clean(name, template): self.clean_json(item, template, depth + 1) for name, item in value.items()}
        return value


def _broken(text: str, pattern: re.Pattern[str], joint: str) -> str:
    while pattern.search(text):
        text = pattern.sub(lambda m: m[0][:1] + joint + m[0][1:] if len(m[0]) > 1 else "\ufffd", text)
    return text
