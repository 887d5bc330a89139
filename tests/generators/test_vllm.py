"""What the generator vllm sends to the engine, and what it reads from its outputs. No engine runs here."""

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.generators.written_models import photo, write_model
from vlmdata.errors import RecipeError
from vlmdata.extras import MissingPackage, check_installed
from vlmdata.generator import Answer, Prompt, Sampling
from vlmdata.generators.vllm import Vllm
from vlmdata.models.prompt_inputs import decoded, inputs_of
from vlmdata.models.vllm_requests import answer_of, engine_prompt, failure_of, sampling_fields


def test_the_engine_gets_the_parameters_and_never_runs_code_of_the_model():
    assert Vllm(model="org/captioner", max_model_len=4096, dtype="bfloat16").engine_fields() == {
        "model": "org/captioner",
        "dtype": "bfloat16",
        "max_model_len": 4096,
        "gpu_memory_utilization": 0.9,
        "max_num_seqs": 256,
        "tensor_parallel_size": 1,
        "seed": 0,
        "trust_remote_code": False,
        "disable_log_stats": True,
    }
    assert "max_model_len" not in Vllm(model="org/captioner").engine_fields()


@pytest.mark.parametrize(
    ("name", "token"), [("LLaVA 1.5", "<image>"), ("Qwen2.5-VL", "<|image_pad|>"), ("Idefics3", "<image>")]
)
def test_a_request_has_one_image_token_for_each_image(name, token, tmp_path):
    inputs, _ = inputs_of(str(write_model(name, tmp_path)))
    prompt = Prompt(f"What differs? {token}", (photo(0), photo(1, 24, 20)), "Be short.")
    request = engine_prompt(inputs.tokens(inputs.form.text(prompt)), decoded(prompt.images))
    written = inputs.tokenizer.decode(request["prompt_token_ids"])
    assert request["prompt_token_ids"].count(inputs.tokenizer.convert_tokens_to_ids(token)) == 2
    assert re.search(rf"Be short\..*({re.escape(token)}.*){{2}}What differs\? < ?", written, re.DOTALL)
    assert [image.size for image in request["multi_modal_data"]["image"]] == [(40, 32), (24, 20)]


def test_a_request_without_images_holds_only_tokens(tmp_path):
    inputs, _ = inputs_of(str(write_model("Llama", tmp_path)))
    request = engine_prompt(inputs.tokens(inputs.form.text(Prompt("What?"))), [])
    assert request.keys() == {"prompt_token_ids"}
    assert inputs.tokenizer.decode(request["prompt_token_ids"]) == inputs.form.text(Prompt("What?"))


def test_each_request_has_its_own_seed():
    assert sampling_fields(Prompt("What?", seed=7), Sampling(64, 0.7, 0.9)) == {
        "n": 1,
        "max_tokens": 64,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 7,
        "skip_special_tokens": True,
    }


@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        ("stop", Answer("a cat", "stop", None, 3, 2, 1.5)),  # the last token is the one that ends the answer
        ("length", Answer("a cat", "length", None, 3, 3, 1.5)),
        ("abort", Answer(failure="aborted", prompt_tokens=3, seconds=1.5)),
        ("error", Answer(failure="aborted", prompt_tokens=3, seconds=1.5)),
    ],
)
def test_an_answer_is_read_from_an_output(finish, expected):
    one = SimpleNamespace(text="a cat", token_ids=[5, 6, 2], finish_reason=finish)
    assert answer_of(SimpleNamespace(outputs=[one], prompt_token_ids=[1, 2, 3]), 1.5) == expected


def test_a_prompt_with_choices_asks_for_one_token_and_its_alternatives():
    fields = sampling_fields(Prompt("Is it?", seed=7, choices=("yes", "no")), Sampling(64, 0.0, 0.9))
    assert fields == {
        "n": 1,
        "max_tokens": 1,
        "temperature": 1.0,
        "top_p": 1.0,
        "seed": 7,
        "skip_special_tokens": True,
        "logprobs": 20,
    }


def output(logprobs: object, finish: str = "length") -> SimpleNamespace:
    one = SimpleNamespace(text="Yes", token_ids=[5], finish_reason=finish, logprobs=logprobs)
    return SimpleNamespace(outputs=[one], prompt_token_ids=[1, 2, 3])


def logprob(share: float, rank: int, token: str | None) -> SimpleNamespace:
    return SimpleNamespace(logprob=math.log(share), rank=rank, decoded_token=token)


def test_probabilities_are_read_from_the_alternatives_of_the_first_token():
    found = {5: logprob(0.5, 1, "Yes"), 9: logprob(0.25, 2, " no"), 7: logprob(0.125, 3, " yes"), 2: logprob(0.1, 4, None)}
    for finish in ("length", "stop"):
        answer = answer_of(output([found], finish), 1.5, ("yes", "no"))
        assert answer.probabilities == pytest.approx((0.625, 0.25))
        assert replace(answer, probabilities=None) == Answer("yes", "stop", None, 3, 1, 1.5)


@pytest.mark.parametrize(
    ("logprobs", "finish", "failure"),
    [
        (None, "length", "no_probabilities"),
        ([], "length", "no_probabilities"),
        ([{5: SimpleNamespace(logprob=math.nan, rank=1, decoded_token="Yes")}], "length", "not_finite"),
        (None, "abort", "aborted"),
    ],
)
def test_an_output_without_probabilities_is_a_failure(logprobs, finish, failure):
    assert answer_of(output(logprobs, finish), 1.5, ("yes",)) == Answer(failure=failure, prompt_tokens=3, seconds=1.5)


def test_a_refused_prompt_has_a_reason():
    assert failure_of("The decoder prompt (length 5000) is longer than the maximum model length of 4096.") == "too_long"
    assert failure_of("At most 1 image(s) may be provided in one prompt.") == "bad_prompt"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"concurrency": 0}, "concurrency must be 1 or more, not 0"),
        ({"max_num_seqs": 0}, "max_num_seqs must be 1 or more, not 0"),
        ({"max_model_len": -1}, "max_model_len must be 0 or more, not -1"),
        ({"gpu_memory_utilization": 0.0}, r"gpu_memory_utilization must lie in \(0, 1\], not 0.0"),
        ({"gpu_memory_utilization": float("nan")}, r"gpu_memory_utilization must lie in \(0, 1\], not nan"),
        ({"model": "/nowhere"}, "model: there is no folder '/nowhere'"),
    ],
)
def test_wrong_parameters_are_found_before_work_starts(parameters, message):
    with pytest.raises(RecipeError, match=f"^{message}$"):
        Vllm(**{"model": "name/on-the-hub", **parameters}).check()


def test_a_missing_vllm_is_named_with_its_own_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "vllm" else "installed")
    with pytest.raises(MissingPackage, match=r"step recaption needs the package 'vllm', .*: pip install vllm$"):
        check_installed(Vllm.packages, "step recaption")
