"""A published tokenizer is loaded without running code of its folder, and without asking whether to run it."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from vlmdata_train.model.tokens import byte_tokenizer, load_tokenizer

CODE = {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}


def test_a_tokenizer_beside_the_code_of_a_model_is_loaded_without_a_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    facts = {"model_type": "internvl_chat", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    assert len(load_tokenizer(str(tmp_path))) == len(byte_tokenizer())
    assert capsys.readouterr().out == ""


def test_a_tokenizer_that_consists_of_code_is_refused_and_the_code_is_not_run(tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    facts = {**json.loads(file.read_text()), "tokenizer_class": "OwnTokenizer"}
    file.write_text(json.dumps({**facts, "auto_map": CODE}))
    (tmp_path / "tokenization_own.py").write_text(f"open({str(tmp_path / 'made')!r}, 'w')")
    with pytest.raises(ValueError, match=r"is Python code in its folder, which is never run\. .* remove `auto_map` from"):
        load_tokenizer(str(tmp_path))
    assert not (tmp_path / "made").exists()
    file.write_text(json.dumps(facts))  # as the message says
    assert len(load_tokenizer(str(tmp_path))) == len(byte_tokenizer())


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="SentencePiece is installed")
def test_a_tokenizer_of_sentencepiece_names_the_package_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    with pytest.raises(ValueError, match=r"is a SentencePiece file\. pip install sentencepiece protobuf"):
        load_tokenizer(str(tmp_path))
