"""Answer prompts with the asynchronous engine of vLLM. This module imports vLLM.

AsyncLLM, and not the class LLM, because LLM prepares all images before the GPU starts (vllm#50111).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from typing import Any

import torch
import transformers
import vllm
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from vlmdata.errors import GeneratorStopped
from vlmdata.generator import Answer, Prompt, Sampling
from vlmdata.models.model_folder import model_identity
from vlmdata.models.prompt_inputs import decoded, inputs_of
from vlmdata.models.vllm_requests import answer_of, engine_prompt, failure_of, sampling_fields
from vlmdata.models.weights_identity import unusable_weights
from vlmdata.process.thread import Thread
from vlmdata.untrusted import Failed, errors_as, one_line

MOST_BROKEN = 8  # failures of the engine without an answer between them, before it counts as unusable


class VllmEngine:
    """An engine, whose event loop has its own thread. It is thread-safe."""

    def __init__(self, fields: Mapping[str, Any], concurrency: int):
        """Load the model. `fields` are those of AsyncEngineArgs. Raises RecipeError if loading fails."""
        self.name = model = fields["model"]
        self._concurrency = concurrency
        self._inputs, _ = inputs_of(model)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(self._loop.run_forever, name="vllm")
        self._thread.start()
        with errors_as(lambda error: unusable_weights(model, error), passes=(MemoryError, OSError)):
            arguments = vllm.AsyncEngineArgs(**fields)
            self._engine = asyncio.run_coroutine_threadsafe(_engine(arguments), self._loop).result()
        self._ids = itertools.count()
        self._broken = 0
        self.facts: Mapping[str, Any] = {
            "model": model,
            "weights": model_identity(model),
            "vllm": vllm.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "computed": f"{fields['dtype']} on {torch.cuda.get_device_name()}",
            "batch_invariant": os.environ.get("VLLM_BATCH_INVARIANT", "0") == "1",
        }

    def answer(self, prompts: Iterator[Prompt], sampling: Sampling, done: Callable[[int, Answer], None]) -> None:
        """Answer all prompts, as OpenGenerator says. `done` is called in the thread of the caller."""
        numbered = enumerate(prompts)
        running: dict[Future[Answer], int] = {}
        stopped: GeneratorStopped | None = None
        while True:
            while stopped is None and len(running) < self._concurrency and (one := next(numbered, None)) is not None:
                number, prompt = one
                future = self._sent(prompt, sampling)
                if isinstance(future, str):
                    done(number, Answer(failure=future))
                else:
                    running[future] = number
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number = running.pop(future)
                try:
                    answer = future.result()
                except EngineDeadError as error:
                    stopped = GeneratorStopped(f"vllm: the engine of {self.name} died: {one_line(error)}")
                    continue
                share = answer.seconds / (len(running) + 1)  # of the time in which the engine computed several answers
                done(number, replace(answer, seconds=share))
                self._broken = self._broken + 1 if answer.failure == "engine_error" else 0
                if self._broken >= MOST_BROKEN:
                    stopped = GeneratorStopped(f"vllm: the engine of {self.name} fails for each prompt. Read its log")
        if stopped is not None:
            raise stopped

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._engine.shutdown)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _sent(self, prompt: Prompt, sampling: Sampling) -> Future[Answer] | str:
        """Send a prompt to the engine. Return its future answer, or the failure of a prompt that cannot be sent."""
        if prompt.images and not self._inputs.sees_images:
            return "no_images"
        images = decoded(prompt.images)
        if images is None:
            return "bad_image"
        try:
            tokens = self._inputs.tokens(self._inputs.form.text(prompt))
        except Failed:
            return "bad_prompt"
        if not tokens:
            return "bad_prompt"
        fields = sampling_fields(prompt, sampling)
        params = vllm.SamplingParams(**fields, output_kind=RequestOutputKind.FINAL_ONLY)
        return asyncio.run_coroutine_threadsafe(self._answer(engine_prompt(tokens, images), params, prompt.choices), self._loop)

    async def _answer(self, prompt: dict[str, Any], params: Any, choices: tuple[str, ...]) -> Answer:
        start = time.perf_counter()
        try:
            with errors_as(Failed, passes=(MemoryError, EngineDeadError)):
                (output,) = [one async for one in self._engine.generate(prompt, params, str(next(self._ids)))]  # FINAL_ONLY
        except Failed as failed:
            error = failed.args[0]
            # the engine raises ValueError for a prompt that it refuses
            return Answer(failure=failure_of(str(error)) if isinstance(error, ValueError) else "engine_error")
        return answer_of(output, time.perf_counter() - start, choices)


async def _engine(arguments: Any) -> Any:
    """Return an engine that belongs to the running event loop."""
    return AsyncLLM.from_engine_args(arguments)
