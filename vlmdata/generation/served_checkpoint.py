"""An open generator that starts `vlmdata train serve` with a checkpoint, and asks this server.

The server is a process of its own, because vlmdata does not import its trainer. It ends when its standard input closes, so it
never outlives its worker, even if the worker is killed.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vlmdata.errors import GeneratorStopped, RecipeError
from vlmdata.generation.budget import Budget, Cost
from vlmdata.generation.endpoint import Endpoint, EndpointOptions
from vlmdata.generator import Answer, Prompt, Sampling
from vlmdata.models.weights_identity import identity
from vlmdata.process.thread import Thread

READY = re.compile(r"serving .+ at (http://127\.0\.0\.1:\d+/v1)\n")
LOST = ("connection", "cut", "timeout")  # failures that the end of the server causes
DYING_S = 5.0  # time in which a process ends after its connections have closed
END_S = 10.0  # time in which a server may end by itself
MOST_WORDS = 300  # characters of the server's last line in an error


class ServedCheckpoint:
    """An OpenGenerator that asks a server which it starts. `checkpoint` is a folder.

    Raises RecipeError if the server does not start, with the server's own last line.
    """

    def __init__(self, checkpoint: str, *, batch: int, device: str, start_s: float, timeout_s: float):
        self.checkpoint = checkpoint
        self._weights = identity(checkpoint)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        command = [sys.executable, "-m", "vlmdata_train", "serve", checkpoint, "--until-stdin-closes"]
        self._process = subprocess.Popen(
            [*command, "--batch", str(batch), "--device", device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        with contextlib.ExitStack() as undo:
            undo.callback(self._end)
            url = self._address(start_s)
            undo.pop_all()
        options = EndpointOptions(
            url=url,
            model="",
            key="",
            key_from="",
            concurrency=2 * batch,  # while one batch is answered, the next one waits
            timeout_s=timeout_s,
            retries=1,
            stop_after_failures=batch,
            extra_body={},
            max_tokens_name="max_tokens",
            ca_file="",
        )
        self._endpoint = Endpoint(options, Budget(Cost(0, 0.0), lambda prompt_tokens, tokens: None, _NoRecord()))

    @property
    def facts(self) -> Mapping[str, Any]:
        """The model's name and the hash of its weights. The address of the server is left out, as it differs in each run."""
        served = self._endpoint.facts.get("served_models", [])
        return {"weights": self._weights, **({"model": ", ".join(served)} if served else {})}

    def answer(self, prompts: Iterator[Prompt], sampling: Sampling, done: Callable[[int, Answer], None]) -> None:
        def keep(number: int, answer: Answer) -> None:
            if answer.failure not in LOST or not self._is_dead():
                done(number, answer)

        stopped: GeneratorStopped | None = None
        try:
            self._endpoint.answer(prompts, sampling, keep)
        except GeneratorStopped as error:
            stopped = error
        if self._process.poll() is not None:
            raise GeneratorStopped(
                f"trained: the server of {self.checkpoint} ended with status {self._process.returncode}{self._last_line()}; "
                "run the same command again to resume"
            )
        if stopped is not None:
            raise stopped

    def close(self) -> None:
        """End the server and the connections."""
        self._endpoint.close()
        self._end()

    def _address(self, start_s: float) -> str:
        """Return the server's address, which it prints when it is ready."""
        late = threading.Event()

        def watch() -> None:
            try:
                self._process.wait(start_s)
            except subprocess.TimeoutExpired:
                if not ready.is_set():
                    late.set()
                    self._process.kill()

        ready = threading.Event()
        assert self._process.stdout is not None
        Thread(watch, name="start of the server").start()
        line = self._process.stdout.readline()
        ready.set()
        found = READY.fullmatch(line)
        if found:
            return found[1]
        self._process.wait(END_S)
        if late.is_set():
            raise RecipeError(f"trained: {self.checkpoint} was not loaded within {start_s:g} s. Raise `start_s`")
        raise RecipeError(f"trained: {self.checkpoint} cannot be served{self._last_line()}")

    def _is_dead(self) -> bool:
        """Return whether the server has ended. Its connections close a moment before that."""
        try:
            self._process.wait(DYING_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _last_line(self) -> str:
        """Return the last line that the server wrote about an error, as ': LINE', or an empty string."""
        self._errors.seek(0)
        lines = [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return f": {lines[-1][:MOST_WORDS].rstrip('.')}" if lines else ""

    def _end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()


class _NoRecord:
    """A RunRecord for a model that has no budget."""

    def read(self) -> dict[str, float]:
        return {}

    def write(self, values: Mapping[str, float]) -> None:
        pass
