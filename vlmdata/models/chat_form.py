"""Write a prompt in the form that a model of transformers was trained with: by its chat template, or as plain text."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from vlmdata.errors import RecipeError
from vlmdata.generator import Prompt
from vlmdata.untrusted import Failed, errors_as, one_line

PROBE = Prompt("a long question", (), "a short system text")


class ChatForm:
    """Writes prompts for one model. `writer` is its processor or, for a model without images, its tokenizer.

    A chat template may take a message's content as a list of parts or as a text, and may have no place for a system text. The
    first way that works for an example is used. Without such a place, the system text stands before the user's text.
    """

    def __init__(self, writer: Any, tokenizer: Any, image_token: str | None, model: str):
        self._image_token = image_token
        self._special = special_tokens(tokenizer, image_token)
        if getattr(writer, "chat_template", None):
            self._template: Callable[..., str] | None = writer.apply_chat_template
        else:  # an old folder of a model with images may have the template only in its tokenizer
            self._template = tokenizer.apply_chat_template if getattr(tokenizer, "chat_template", None) else None
        self.is_plain = self._template is None  # the prompt is the plain text, with the tokens that the tokenizer adds
        self._parts = self._system = False
        if self._template is not None:
            self._parts, self._system = self._way(writer is not tokenizer, model)

    def text(self, prompt: Prompt) -> str:
        """Return the text of a prompt, up to the place where the answer begins. Special tokens in the prompt's texts are split.

        Raises Failed if the template cannot write it.
        """
        with errors_as(Failed, passes=(MemoryError,)):
            return self._written(prompt, self._parts, self._system)

    def _written(self, prompt: Prompt, parts: bool, system: bool) -> str:
        said, asked = (split_special(text, self._special) for text in (prompt.system, prompt.text))
        if said and not system:
            said, asked = "", f"{said}\n{asked}"
        images = (self._image_token or "") * len(prompt.images)
        if self._template is None:
            return f"{images}\n{asked}" if images else asked
        content: Any = f"{images}\n{asked}" if images else asked
        if parts:
            content = [*({"type": "image"} for _ in prompt.images), {"type": "text", "text": asked}]
        messages = [{"role": "user", "content": content}]
        if said:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": said}] if parts else said})
        return self._template(messages, tokenize=False, add_generation_prompt=True)

    def _way(self, parts_first: bool, model: str) -> tuple[bool, bool]:
        """Return whether the template takes parts, and whether it has a place for a system text."""
        problem = "it does not write the text of a message"
        for parts, system in [(parts_first, True), (parts_first, False), (not parts_first, True), (not parts_first, False)]:
            try:
                with errors_as(Failed, passes=(MemoryError,)):
                    text = self._written(PROBE, parts, system)
            except Failed as failed:
                problem = one_line(failed.args[0])[:200]
                continue
            if PROBE.text in text and PROBE.system in text and "'type'" not in text:
                return parts, system
        raise RecipeError(f"model: the chat template of {model} cannot be used: {problem}")


def special_tokens(tokenizer: Any, image_token: str | None) -> list[str]:
    """Return the tokens that must not be written by a prompt's own text, longest first."""
    known = {str(token) for token in tokenizer.all_special_tokens}
    known |= {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    known |= {image_token} if image_token else set()
    return sorted((token for token in known if len(token) > 1), key=lambda token: (-len(token), token))


def split_special(text: str, special: Collection[str]) -> str:
    """Return the text with a space after the first character of each special token, so that it is read as plain text.

    Text in prompts comes from data. A caption that holds `<image>` or the end of a turn must not change the prompt's form.
    """
    for token in special:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text
