"""Ask any endpoint that speaks the protocol of OpenAI for chat completions."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from vlmdata.errors import RecipeError
from vlmdata.generation.budget import Budget, Cost
from vlmdata.generation.chat import OPTIONAL, OWN
from vlmdata.generation.endpoint import Endpoint, EndpointOptions
from vlmdata.generator import Generator, RunRecord
from vlmdata.parameters import Doc

PATH = "/chat/completions"
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")  # keys of providers hold lower-case letters, so a key written here is refused
MOST_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class OpenAI(Generator):
    """Asks an endpoint that speaks the protocol of OpenAI: a provider, or a server such as vLLM, SGLang or Ollama."""

    id: ClassVar[str] = "vlmdata.generators.openai"
    example: ClassVar[str] = (
        "{openai: {model: Qwen/Qwen3-VL-8B-Instruct, url: 'https://api.example.org/v1', key_from: EXAMPLE_KEY}}"
    )
    needs: ClassVar[tuple[str, ...]] = ("endpoint",)

    model: Annotated[str, Doc("The name of the model, as the endpoint knows it.")]
    url: Annotated[str, Doc("The address of the endpoint without /chat/completions, such as https://api.example.org/v1.")]
    key_from: Annotated[
        str, Doc("The name of the environment variable that holds the key. Each worker needs it. Empty: no key is sent.")
    ] = ""
    concurrency: Annotated[int, Doc("Most requests at the same time.", unit="1 to 1024", source="vlmdata's choice")] = 16
    timeout_s: Annotated[
        float,
        Doc("Most time for one request, from the connection to the last byte.", unit="seconds", source="vlmdata's choice"),
    ] = 300.0
    retries: Annotated[
        int,
        Doc(
            "How often a prompt is asked again after 408, 425, 429, 5xx (not 501, 505 and 511), a failed connection, a "
            "timeout, or a broken answer. The delay doubles from 1 to 60 seconds.",
            source="vlmdata's choice",
        ),
    ] = 6
    budget_tokens: Annotated[
        int, Doc("Most tokens of prompts and answers in one run of the command. 0: no limit.", unit="tokens")
    ] = 0
    budget_money: Annotated[
        float, Doc("Most money that one run of the command spends, in the currency of the prices. 0: no limit.", unit="money")
    ] = 0.0
    price_prompt: Annotated[float, Doc("Price of the tokens of prompts.", unit="money per million tokens")] = 0.0
    price_answer: Annotated[float, Doc("Price of the tokens of answers.", unit="money per million tokens")] = 0.0
    stop_after_failures: Annotated[
        int,
        Doc(
            "After this number of failed prompts in a row, the run stops. These failures are not stored.",
            source="vlmdata's choice",
        ),
    ] = 20
    extra_body: Annotated[
        dict[str, Any],
        Doc(
            "More fields of the request, such as {reasoning_effort: low}. null leaves out temperature, top_p or seed, for "
            "endpoints that refuse them."
        ),
    ] = field(default_factory=dict)
    max_tokens_name: Annotated[
        Literal["max_tokens", "max_completion_tokens"],
        Doc("The field of the request for the most tokens of an answer. OpenAI's own models need max_completion_tokens."),
    ] = "max_tokens"
    ca_file: Annotated[str, Doc("PEM file with the certificate authorities to trust. Empty: certifi's.")] = ""

    def check(self) -> None:
        _check_url(self.url)
        if not self.model.strip():
            raise RecipeError("model is empty. Write the name that the endpoint gives the model")
        self._check_numbers()
        _check_extra(self.extra_body)
        if self.ca_file and not os.path.isfile(self.ca_file):
            raise RecipeError(f"ca_file: there is no file {self.ca_file}")
        if self.key_from:
            self._key()

    def identity(self) -> str:
        return json.dumps([self._base(), self.model, self.extra_body], sort_keys=True)

    def open(self, record: RunRecord) -> Endpoint:
        key = self._key() if self.key_from else ""
        options = EndpointOptions(
            url=self._base(),
            model=self.model,
            key=key,
            key_from=self.key_from,
            concurrency=self.concurrency,
            timeout_s=self.timeout_s,
            retries=self.retries,
            stop_after_failures=self.stop_after_failures,
            extra_body=self.extra_body,
            max_tokens_name=self.max_tokens_name,
            ca_file=self.ca_file,
        )
        return Endpoint(options, Budget(Cost(self.budget_tokens, self.budget_money), self.money, record))

    def money(self, prompt_tokens: int, tokens: int) -> float | None:
        if not (self.price_prompt or self.price_answer):
            return None
        return (prompt_tokens * self.price_prompt + tokens * self.price_answer) / 1e6

    def _base(self) -> str:
        return self.url.rstrip("/")

    def _key(self) -> str:
        """Return the key. The errors never hold it, nor a name that may be a key."""
        if not VARIABLE.fullmatch(self.key_from):
            raise RecipeError(
                "key_from must be the name of an environment variable in capital letters, such as OPENAI_API_KEY, and never "
                "the key itself"
            )
        key = os.environ.get(self.key_from, "").strip()
        if not key:
            raise RecipeError(
                f"key_from: the environment variable {self.key_from} is not set. Set it to the key of the endpoint before the "
                "command starts. On a cluster, set it also for the workers, such as before `ray start`"
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise RecipeError(f"key_from: the value of {self.key_from} is no key: it has blanks or characters outside of ASCII")
        return key

    def _check_numbers(self) -> None:
        bounds = (
            ("concurrency", 1, MOST_AT_ONCE),
            ("retries", 0, 100),
            ("stop_after_failures", 1, 1e9),
            ("timeout_s", 0.1, 86_400),
        )
        for name, least, most in bounds:
            if not least <= getattr(self, name) <= most:
                raise RecipeError(f"{name} must lie in [{least:g}, {most:g}], not {getattr(self, name)}")
        for name in ("budget_tokens", "budget_money", "price_prompt", "price_answer"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise RecipeError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if self.budget_money and not (self.price_prompt or self.price_answer):
            raise RecipeError("budget_money needs prices. Set price_prompt and price_answer, in money per million tokens")


def _check_url(url: str) -> None:
    if "@" in (url.partition("://")[2] or url).partition("/")[0]:  # before any error that holds the address
        raise RecipeError("url must not hold a user or a password. Name the environment variable with the key in key_from")
    if "?" in url or "#" in url:
        raise RecipeError("url must end with its path, without ? and #. Name the environment variable with the key in key_from")
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_right = False
    if not is_right or not url.isprintable() or " " in url or not url.isascii():
        raise RecipeError(f"url must be an http or https address, such as https://api.example.org/v1, not {url[:200]!r}")
    if parts.path.rstrip("/").endswith(PATH):
        raise RecipeError(f"url must end before {PATH}, which vlmdata adds")


def _check_extra(extra: dict[str, Any]) -> None:
    for name in extra:
        if not isinstance(name, str) or name in OWN:
            raise RecipeError(
                f"extra_body must not set {name!r}, which vlmdata sets. Use the parameters of the step and of openai"
            )
        if name in OPTIONAL and extra[name] is not None:
            raise RecipeError(f"extra_body.{name} may only be null, which leaves it out. Set it as a parameter of the step")
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RecipeError(f"extra_body must hold plain JSON values: {error}") from None
