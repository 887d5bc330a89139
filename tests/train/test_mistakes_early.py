"""A mistake in a command is reported before torch is imported, because that import takes seconds."""

import json
import subprocess
import sys

import pytest

from tests.train.runs import MODEL, write_data

PROGRAM = """
import sys
from vlmdata_train.__main__ import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
print(status, "torch" in sys.modules, "transformers" in sys.modules)
"""
DATA = ["--set", "data={data}"]
MISTAKES = [
    (["align", "tinny"], "there is no training recipe 'tinny'. Did you mean 'tiny'?"),
    (["align", "nowhere/r.yaml"], "there is no training recipe 'nowhere/r.yaml'"),
    (["align", "tiny", *DATA, "--set", "lrr=1"], "Recipe has no parameter 'lrr'. Did you mean 'lr'?"),
    (["align", "tiny", *DATA, "--set", "batches.token=1"], "Batches has no parameter 'token'. Did you mean 'tokens'?"),
    (["align", "tiny", *DATA, "--set", "batch.tokens=1"], "Recipe has no parameter 'batch'. Did you mean 'batches'?"),
    (["align", "tiny", *DATA, "--set", "model.encodr=open_clip"], "has no parameter 'encodr'. Did you mean 'encoder'?"),
    (
        ["align", "tiny", *DATA, "--set", "model.encoder=open_clop"],
        "encoder: there is no 'open_clop'. Did you mean 'open_clip'?",
    ),
    (["align", "tiny", *DATA, "--set", "model.fusion={{token: {{}}}}"], "fusion: there is no 'token'. Did you mean 'tokens'?"),
    (["align", "tiny", *DATA, "--set", "model.language=3"], "language must be one name with its parameters"),
    (
        ["align", "tiny", *DATA, "--set", "parts.encoder.rules=[{{weights: norms}}]"],
        "parts, encoder, rules, 1: Rule: a rule must set `frozen`, `lr` or `weight_decay`",
    ),
    (["align", "tiny", *DATA, "--set", "lr=-1"], "lr must be 0 or more, not -1"),
    (["align", "tiny", *DATA, "--set", "steps=null", "--set", "epochs=0"], "epochs must be more than 0, not 0"),
    (["align", "tiny", *DATA, "--set", "steps=null", "--set", "epochs=.inf"], "epochs must be more than 0, not inf"),
    (["align", "tiny", *DATA, "--set", "held_out.fraction=1.5"], "fraction must be 0 or more and less than 1, not 1.5"),
    (["align", "tiny", "--set", "data"], "--set data: write a setting as name=value"),
    (["align", "tiny"], "data: OUT does not exist"),
    (["align", "tiny", "--set", "data={data}/nowhere"], "data: {data}/nowhere does not exist"),
    (["align", "tiny", "--set", "data={data}/*.tra"], "data: there are no tars in {data}/*.tra"),
    (["align", "tiny", "--set", "data={{a: 0.5, {data}: 0.5}}"], "data: a does not exist"),
    (["align", "tiny", *DATA, "--set", "held_out.path=nowhere"], "held_out.path: nowhere does not exist"),
    (["align", "tiny", *DATA, "--set", "out={data}/00000.tar/run"], "out: {data}/00000.tar is a file, but the run needs"),
    (["align", "tiny", *DATA, "--set", "start=/nowhere"], "start: /nowhere is not a checkpoint, and transformers"),
    (
        ["align", "tiny", *DATA, "--set", "start={run}"],
        "start: {run} is the folder of a run, not a checkpoint. Did you mean '{run}/checkpoints/step_00000003'?",
    ),
    (
        ["align", "tiny", *DATA, "--set", "model=null", "--set", "start={data}"],
        "start: {data} is not a checkpoint, and transformers finds no model",
    ),
    (["evaluate", "{run}/nowhere", "{data}"], "{run}/nowhere is not a checkpoint, because it does not exist"),
    (["evaluate", "{run}", "{data}"], "has no recipe.json. Did you mean '{run}/checkpoints/step_0"),
    (["evaluate", "{run}/checkpoints/step_00000003", "{data}/nowhere"], "data: {data}/nowhere does not exist"),
    (["evaluate", "{run}/checkpoints/step_00000003", "{data}", "--samples", "0"], "--samples must be 1 or more, not 0"),
    (
        ["evaluate", "{run}/checkpoints/step_00000003", "{data}", "--samples", str(2**63)],
        "--samples must be 1 or more and",
    ),
    (["chat", "{data}"], "{data} is not a checkpoint, because it has no recipe.json"),
    (["chat", "{run}/checkpoints/step_00000003", "--max-tokens", "0"], "--max-tokens must be 1 or more, not 0"),
    (
        ["chat", "{run}/checkpoints/step_00000003", "--temperature", "nan"],
        "--temperature must be 0, or from 0.001 to 1000, not",
    ),
    (["chat", "{run}/checkpoints/step_00000003", "--fps", "1e-320"], "--fps must be from 0.00001 to 100000, not 1e-320"),
    (["chat", "{run}/checkpoints/step_00000003", "no.jpg"], "cannot read no.jpg as an image: there is no such file"),
    (["chat", "{run}/checkpoints/step_00000003", "--top-p", "2"], "--top-p must be more than 0 and at most 1, not 2"),
    (["export", "{run}/checkpoints/step_00000003", "{data}"], "{data} is not empty. Choose another folder"),
    (["export", "{data}", "{data}/new"], "{data} is not a checkpoint, because it has no recipe.json"),
    (["evalute", "{run}", "{data}"], "No such verb 'evalute'. Did you mean 'evaluate'?"),
    (["align", "tiny", "--sett", "a=b"], "No such option '--sett'. Did you mean '--set'?"),
]


@pytest.mark.parametrize(
    ("words", "message"), MISTAKES, ids=lambda value: " ".join(value)[-60:] if isinstance(value, list) else ""
)
def test_a_mistake_is_reported_before_torch_is_imported(words, message, tmp_path):
    data, run = write_data(tmp_path / "data", captions=2, tars=1), tmp_path / "run"
    checkpoint = run / "checkpoints/step_00000003"
    checkpoint.mkdir(parents=True)
    (checkpoint / "recipe.json").write_text(
        json.dumps({"stage": "align", "model": MODEL, "data": data, "out": "o", "steps": 1})
    )
    given = [word.format(data=data, run=run) for word in words]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *given], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.split() == ["2", "False", "False"], done.stderr
    assert message.format(data=data, run=run) in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) < 4
