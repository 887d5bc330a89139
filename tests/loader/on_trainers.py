"""A program that a test runs: it runs training programs, each on its own ranks, and records what they train on.

python -m tests.loader.on_trainers JOBS.json

The ranks are forked from this process, which has imported the libraries, so that a rank starts in milliseconds. They find each
other as under torchrun. A rank writes each step as a line {"keys": [...], "loss": ...} of RECORD/RANK.jsonl, and the weights at
the end into RECORD/weights.pt.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import runpy
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

VOCABULARY = 300  # tables with more rows hold words, not the places of an image
DEADLINE_S = 600


def record(folder: Path, model: str, die_at: int | None = None) -> None:
    """Record the steps of this process from now on. In its step `die_at` it dies without a word, and its workers with it."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    steps: list[list[str]] = []

    def keys(module: nn.Module, inputs: tuple) -> None:
        if isinstance(module, nn.Embedding) and module.num_embeddings > VOCABULARY and torch.is_grad_enabled():
            texts = tokenizer.batch_decode(inputs[0], skip_special_tokens=True)
            steps.append([key for text in texts for key in re.findall(r"\d-\d+", text)])

    def loss(module: nn.Module, inputs: tuple, output: Any) -> None:
        if type(module).__name__.endswith("ForConditionalGeneration") and torch.is_grad_enabled():
            if len(steps) == die_at:
                os.killpg(0, signal.SIGKILL)
            rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
            with (folder / f"{rank}.jsonl").open("a") as lines:
                lines.write(json.dumps({"keys": steps[-1], "loss": output.loss.item()}) + "\n")

    nn.modules.module.register_module_forward_pre_hook(keys)
    nn.modules.module.register_module_forward_hook(loss)


def train(program: Path, arguments: list[str], folder: Path, die_at: int | None) -> None:
    """Run a program in this process, and write the weights that it trained."""
    record(folder, arguments[1], die_at)
    sys.argv = [str(program), *arguments]
    names = runpy.run_path(str(program), run_name="__main__")
    trained = names["trainer"] if "trainer" in names else names["model"]
    trained = getattr(trained, "lightning_module", getattr(trained, "model", trained))
    if os.environ["RANK"] == "0":
        torch.save({name.removeprefix("module."): one for name, one in trained.state_dict().items()}, folder / "weights.pt")


def run_ranks(job: dict[str, Any]) -> list[int]:
    """Return the exit codes of the ranks of one job. The ranks that live at the deadline are killed."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    started = []
    Path(job["record"]).mkdir(parents=True)
    for rank in range(job["ranks"]):
        child = os.fork()
        if not child:
            os.setsid()
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": job["ranks"], "LOCAL_WORLD_SIZE": job["ranks"]}
            names |= {"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
            names |= {"TORCHELASTIC_USE_AGENT_STORE": True, "GLOO_SOCKET_IFNAME": "lo", "ACCELERATE_USE_CPU": True}
            os.environ |= {name: str(value) for name, value in names.items()}
            code = 1
            try:
                train(Path(job["program"]), job["arguments"], Path(job["record"]), job["die_at"])
                code = 0
            except BaseException:  # a fork must not return into the loop of its parent
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        started.append(child)
    end = time.monotonic() + DEADLINE_S
    codes: dict[int, int] = {}
    while len(codes) < len(started):
        for child in set(started) - set(codes):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                codes[child] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                os.killpg(child, signal.SIGKILL)
        time.sleep(0.02)
    return [codes[child] for child in started]


if __name__ == "__main__":
    torch.set_num_threads(1)
    plan = json.loads(Path(sys.argv[1]).read_text())
    for module in plan["preload"]:
        importlib.import_module(module)
    AutoProcessor.from_pretrained(plan["model"])  # imports what the ranks would import
    AutoModelForImageTextToText.from_pretrained(plan["model"])
    for job in plan["jobs"]:
        run = Path(job["arguments"][2])
        if "copy" in job:
            shutil.copytree(job["copy"], run)
        run.mkdir(parents=True, exist_ok=True)
        begin = time.monotonic()
        job["codes"] = run_ranks(job)
        print(job["name"], job["codes"], f"{time.monotonic() - begin:.1f} s", file=sys.stderr)
    Path(sys.argv[1]).write_text(json.dumps(plan))
