"""No command of the trainer shows its user a deprecation warning or a progress bar of a library."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from tests.train.runs import MODEL, write_data
from vlmdata_train.model.quiet import quiet
from vlmdata_train.model.tokens import byte_tokenizer

# Runs several commands in one process, because each process must first import torch.
RUN = """
import json, sys
from vlmdata_train.__main__ import main
for words in json.loads(sys.argv[1]):
    assert main(words) == 0, words
"""
LLAMA = MODEL["language"]["hf_causal"]["config"]
SHAPE = {name: value for name, value in LLAMA.items() if name != "model_type"}


def commands(folder: Path) -> list[list[str]]:
    """Write recipes and return the commands of a model's life: both stages, LoRA, a published language model, an export."""
    captions, chats = write_data(folder / "captions"), write_data(folder / "chats", captions=0, conversations=20)
    phi = AutoModelForCausalLM.from_config(AutoConfig.for_model("phi", **SHAPE, vocab_size=256, bos_token_id=1, eos_token_id=2))
    phi.save_pretrained(folder / "phi")
    byte_tokenizer().save_pretrained(folder / "phi")
    Image.new("RGB", (40, 30), "red").save(folder / "photo.png")
    tree = {
        "model": {**MODEL, "preprocessing": "pad"}, "data": chats, "steps": 2, "lr": 1e-2,
        "batches": {"tokens": 192, "sample_tokens": 96}, "held_out": {"fraction": 0.3, "every": 2, "answers": 2},
    }  # fmt: skip
    gemma = {"model_type": "gemma2", "head_dim": 16, "sliding_window": 8, **SHAPE}
    recipes = {
        "align": {"data": captions, "tokenizer": {"vocabulary": 300}},
        "lora": {"parts": {"language": {"lora": {"rank": 2, "alpha": 4}}}},
        "published": {"model": {**MODEL, "language": {"hf_causal": {"name": str(folder / "phi")}}}},
        "gemma": {"model": {**MODEL, "language": {"hf_causal": {"config": gemma}}}, "speed": {"precision": "bf16"}},
    }
    for name, changes in recipes.items():
        (folder / f"{name}.yaml").write_text(json.dumps({**tree, "out": str(folder / name), **changes}))
    last = str(folder / "lora/checkpoints/step_00000002")
    return [
        *(["align" if name == "align" else "instruct", str(folder / f"{name}.yaml")] for name in recipes),
        ["evaluate", last, chats, "--samples", "2", "--answer-tokens", "3"],
        ["chat", last, str(folder / "photo.png"), "--ask", "What is it?", "--max-tokens", "3"],
        ["export", last, str(folder / "llava")],
    ]


@pytest.mark.whole
@pytest.mark.slow
def test_no_command_shows_a_library_warning_or_progress_bar(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "default", "-c", RUN, json.dumps(commands(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    printed = [line for line in done.stderr.splitlines() if re.search(r"warning|deprecat|\[transformers\]|shards", line, re.I)]
    assert printed == []


def test_silenced_warnings_are_shown_again_afterwards() -> None:
    logger, before = logging.get_logger("transformers.test"), logging.get_verbosity()
    with pytest.raises(ValueError, match="it breaks"), quiet():
        assert not logger.isEnabledFor(logging.WARNING) and not logging.is_progress_bar_enabled()
        raise ValueError("it breaks")
    assert logging.get_verbosity() == before and logging.is_progress_bar_enabled()
