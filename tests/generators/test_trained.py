"""The generator `trained`: a worker starts a server with a checkpoint, asks it, and the server ends with the worker."""

import contextlib
import json
import os
import select
import shutil
import signal
import tarfile
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from string import ascii_lowercase

import pytest
import torch

from bench.inputs.tars import jpeg
from tests.train.runs import tiny_recipe, write_data
from tests.train.shards import drawing
from vlmdata import run
from vlmdata.errors import GeneratorStopped, RecipeError, WorkFailed
from vlmdata.generator import Answer, Prompt, Sampling
from vlmdata.generators.trained import Trained
from vlmdata_train.chat import Conversation
from vlmdata_train.convert.restore import restore
from vlmdata_train.data.collate import Ready, build_batch
from vlmdata_train.data.marks import IMAGE_MARK
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.loop.loop import run_training
from vlmdata_train.model.decoding import Decoding

pytestmark = pytest.mark.whole

RED, BLUE = jpeg(drawing("red", "circle")), jpeg(drawing("blue", "square"))
QUESTION = "What colour is it?"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """Train a model for conversations for a few steps."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_data(folder / "data", captions=0, conversations=16)
    return run_training(tiny_recipe(data, folder / "run", steps=4)).checkpoint


@pytest.fixture(scope="module")
def opened(checkpoint):
    found = Trained(checkpoint=str(checkpoint), batch=4, device="cpu").open(None)
    yield found
    found.close()


def answers(opened, prompts: list[Prompt], sampling: Sampling) -> list[Answer]:
    found: dict[int, Answer] = {}
    opened.answer(iter(prompts), sampling, found.__setitem__)
    return [found[number] for number in range(len(prompts))]


def test_answers_are_those_of_a_chat_with_the_same_picture_and_seed(opened, checkpoint, tmp_path):
    (tmp_path / "red.jpg").write_bytes(RED)
    prompts = [Prompt(QUESTION, (RED,), seed=5), Prompt(QUESTION, (BLUE,), seed=6), Prompt("Tell me more.", seed=7)] * 3
    found = answers(opened, prompts, Sampling(max_tokens=12, temperature=1.5))
    way = Decoding(temperature=1.5, seed=5)
    talk = Conversation.open(str(checkpoint), [str(tmp_path / "red.jpg")], device="cpu", max_tokens=12, decoding=way)
    assert found[0].text == talk.ask(QUESTION)
    assert [one.text for one in found[:3]] == [one.text for one in found[3:6]]
    assert all(one.failure is None and one.finish in ("stop", "length") for one in found)
    assert found[0].prompt_tokens > found[2].prompt_tokens > 0 and all(0 < one.tokens <= 12 for one in found)


def first_tokens(checkpoint: Path, image: bytes, text: str) -> dict[str, float]:
    """Return the probability of each first token of an answer by the token's text, the most probable first."""
    model, recipe = restore(checkpoint, "cpu")
    prompter = prompter_of(model, trusted=recipe.trusted_tokens)
    asked = prompter.question([{"role": "user", "content": f"{IMAGE_MARK}\n{text}"}], [image])
    batch = build_batch([Ready(asked, "", "")], model.plan, prompter.pad_id, packed_tokens=None, broken=Counter())
    with torch.no_grad():
        logits = model.logits(batch)[0, -1]
    logits[model.image_token_id], logits[len(model.tokenizer) :] = -torch.inf, -torch.inf  # no answer contains them
    shares = logits.softmax(-1).sort(descending=True)
    texts = [model.tokenizer.decode([token]) for token in shares.indices.tolist()]
    return dict(zip(texts, shares.values.tolist(), strict=True))


def test_probabilities_of_words_are_those_of_the_model(opened, checkpoint):
    shares = first_tokens(checkpoint, RED, QUESTION)
    letters = [text for text in list(shares)[:20] if text in set(ascii_lowercase)][:5]
    *_, rare = (text for text in shares if text in set(ascii_lowercase))
    choices = (*letters, f"{rare}-word")
    assert len(letters) > 1 and rare not in list(shares)[:20]
    asked = [Prompt(QUESTION, (RED,), seed=seed, choices=choices) for seed in range(9)]
    plain = [Prompt(QUESTION, (RED,), seed=number) for number in range(3)]
    found = answers(opened, [*asked, *plain], Sampling(max_tokens=3, temperature=1.0))
    for one in found[:9]:
        assert one.failure is None and one.text == letters[0] and one.tokens <= 1 and one.prompt_tokens > 0
        for letter, probability in zip(letters, one.probabilities, strict=False):
            others = sum(shares.get(text, 0) for text in (letter.upper(), f" {letter}"))  # which may be among the 20 or not
            assert shares[letter] - 1e-5 <= probability <= shares[letter] + others + 1e-5
        assert one.probabilities[-1] <= shares[rare] + shares[rare.upper()] + 1e-5
    assert all(one.probabilities is None for one in found[9:])


def test_the_facts_name_the_model_and_its_weights_and_no_address(opened, checkpoint):
    answers(opened, [Prompt(QUESTION, (RED,))], Sampling(max_tokens=2))
    facts = json.dumps(dict(opened.facts))
    assert f"run/{checkpoint.name}" in facts and "127.0.0.1" not in facts and str(checkpoint) not in facts


def test_a_prompt_that_cannot_be_answered_is_a_failure_of_its_own(opened):
    found = answers(opened, [Prompt("long " * 3000), Prompt(QUESTION, (RED,))], Sampling(max_tokens=2))
    assert found[0].failure == "http_400" and found[0].text is None
    assert found[1].failure is None


def test_a_server_that_dies_stops_the_generator_and_no_failure_is_stored(checkpoint):
    others = servers_of(checkpoint)
    opened = Trained(checkpoint=str(checkpoint), batch=4, device="cpu").open(None)
    (server,) = set(servers_of(checkpoint)) - set(others)
    found: dict[int, Answer] = {}

    def prompts():
        for number in range(9):
            if number == 3:
                os.kill(server, signal.SIGKILL)
            yield Prompt(QUESTION, (RED,), seed=number)

    try:
        with pytest.raises(GeneratorStopped, match=r"the server of .* ended with status -9; run the same command again"):
            opened.answer(prompts(), Sampling(max_tokens=2), found.__setitem__)
    finally:
        opened.close()
    assert all(one.failure is None for one in found.values())


def test_a_checkpoint_that_cannot_be_loaded_is_one_line(checkpoint, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "recipe.json").write_text("{}")
    with pytest.raises(RecipeError) as found:
        Trained(checkpoint=str(broken), device="cpu").open(None)
    assert str(broken) in str(found.value) and len(str(found.value).splitlines()) == 1


def test_check_names_the_newest_checkpoint_of_a_run(checkpoint, tmp_path):
    with pytest.raises(RecipeError, match=f"no recipe.json. Did you mean .*{checkpoint.name}"):
        Trained(checkpoint=str(checkpoint.parent.parent)).check()
    with pytest.raises(RecipeError, match="there is no such folder"):
        Trained(checkpoint=str(tmp_path / "nowhere")).check()
    Trained(checkpoint=str(checkpoint)).check()


def servers_of(checkpoint: Path) -> list[int]:
    """Return the processes that serve a checkpoint now."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"serve" in words and os.fsencode(checkpoint) in words:
            found.append(int(place.parent.name))
    return found


def are_gone(servers: Iterable[int]) -> bool:
    """Wait until these processes have ended, for at most half a minute. Return whether they have."""
    for server in servers:
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(server)
            is_over = bool(select.select([handle], [], [], 30)[0])
            os.close(handle)
            if not is_over:
                return False
    return True


@pytest.fixture
def recipe(checkpoint, tmp_path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(48):
        (folder / f"{number:02d}.jpg").write_bytes(jpeg(drawing(("red", "blue", "green")[number % 3], "circle", 48 + number)))
        (folder / f"{number:02d}.txt").write_text(f"picture {number}")
    own = shutil.copytree(checkpoint, tmp_path / "own" / "checkpoints" / checkpoint.name)  # so that its servers are known
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"source: {{type: files, path: {folder}}}\npart_rows: 12\nsteps:\n"
        "- recaption:\n    temperature: 1.0\n    max_tokens: 16\n    samples: 2\n"
        f"    generator: {{trained: {{checkpoint: {own}, device: cpu, batch: 4}}}}\n"
    )
    return file


def own_checkpoint(recipe: Path) -> Path:
    return next(recipe.parent.glob("own/checkpoints/*"))


def captions_in(out: Path) -> dict[str, list[str]]:
    found = {}
    for tar in sorted(out.glob("*.tar")):
        with tarfile.open(tar) as file:
            for member in file.getmembers():
                if member.name.endswith(".json"):
                    facts = json.load(file.extractfile(member))
                    found[facts["caption"]] = facts.get("alternatives") or []
    return found


def test_a_killed_server_ends_the_run_in_one_line_and_the_run_resumes(recipe, tmp_path):
    whole = run(recipe, tmp_path / "whole", local=True, workers=1)
    assert whole["generations"]["recaption"]["answers"] == 96 and are_gone(servers_of(own_checkpoint(recipe)))
    out = tmp_path / "out"
    ended = threading.Event()

    def kill_after_the_first_answer() -> None:
        while not ended.is_set():
            if any(journal.stat().st_size for journal in out.glob("work/answers/*/*/*.jsonl")):
                for server in servers_of(own_checkpoint(recipe)):
                    os.kill(server, signal.SIGKILL)
                return

    killer = threading.Thread(target=kill_after_the_first_answer)
    killer.start()
    try:
        with pytest.raises(WorkFailed, match="ended with status -9; run the same command again to resume"):
            run(recipe, out, local=True, workers=1)
    finally:
        ended.set()
        killer.join()
    again = run(recipe, out, local=True, workers=2)
    assert captions_in(out) == captions_in(tmp_path / "whole")
    assert again["generations"]["recaption"]["failed"] == {} and are_gone(servers_of(own_checkpoint(recipe)))


def test_the_server_of_a_killed_worker_ends_and_the_run_goes_on(recipe, tmp_path):
    out, ended, killed = tmp_path / "out", threading.Event(), []

    def kill_the_worker() -> None:
        while not ended.is_set() and not killed:
            if any(journal.stat().st_size for journal in out.glob("work/answers/*/*/*.jsonl")):
                for server in servers_of(own_checkpoint(recipe)):
                    worker = int((Path("/proc") / str(server) / "stat").read_text().rsplit(")", 1)[1].split()[1])
                    os.kill(worker, signal.SIGKILL)
                    killed.append(server)

    killer = threading.Thread(target=kill_the_worker)
    killer.start()
    try:
        manifest = run(recipe, out, local=True, workers=1)
    finally:
        ended.set()
        killer.join()
    assert killed and are_gone(killed)
    assert manifest["generations"]["recaption"]["answers"] == 96
