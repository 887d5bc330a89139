"""The arguments of `stream` have PyTorch's names and types for a checker, and each mistake is reported in one line."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

from tests.loader.tars import caption_set, keys_of
from vlmdata import Decode, Error, Packing, stream
from vlmdata.arguments import check_protocol
from vlmdata.loader.index.missing_tars import TAR_FIX
from vlmdata.loader.samples import Samples
from vlmdata.loader.stream import Blend, Options, ReadOptions

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return caption_set(tmp_path_factory.mktemp("tars"), [5, 5])


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, not 0"),
        ({"batch_size": -1}, "batch_size must be an integer of at least 1, not -1"),
        ({"batch_size": True}, "batch_size must be an integer of at least 1, not True"),
        ({"epochs": 0}, "epochs must be an integer of at least 1, not 0"),  # it would never end
        ({"epochs": 1.5}, "epochs must be an integer of at least 1, not 1.5"),
        ({"seed": "0"}, "seed must be an integer, not '0'"),
        ({"seed": False}, "seed must be an integer, not False"),
        ({"reading": None}, "reading must be a ReadOptions, not None"),
        ({"reading": {"threads": 2}}, "reading must be a ReadOptions, not {'threads': 2}"),
        ({"drop_last": "no"}, "drop_last must be True or False, not 'no'"),
        ({"torch": "cuda"}, "torch must be True or False, not 'cuda'"),
        ({"decode": "pil"}, "decode must be a function, not 'pil'"),
        ({"collate_fn": [], "batch_size": 2}, "collate_fn must be a function, not []"),
        ({"collate_fn": list}, "collate_fn needs batch_size, because it turns a list of samples into a batch"),
        ({"packing": 4096}, "packing must be a Packing, not 4096"),
        ({"rank": "0", "world_size": 2}, "rank must be an integer of at least 0, not '0'"),
        ({"rank": 2, "world_size": 2}, "rank must be at least 0 and less than world_size (2), not 2"),
        ({"rank": 0}, "give both rank and world_size, or neither"),
        ({"world_size": 2}, "give both rank and world_size, or neither"),
        ({"path": 5}, "path must be a path or a list of paths, not 5"),
        ({"path": None}, "path must be a path or a list of paths, not None"),
        ({"path": ["a", 5]}, "path must be a path or a list of paths, not ['a', 5]"),
        ({"path": []}, "no path is given"),
        ({"path": {}}, "weights must be a mapping {path: weight}, not {}"),
        ({"path": {"a": "much"}}, "the weight of a must be a number, 0 or more, not 'much'"),
        ({"path": {"a": -1}}, "the weight of a must be a number, 0 or more, not -1"),
        ({"path": {"a": float("nan")}}, "the weight of a must be a number, 0 or more, not nan"),
        ({"path": {5: 1}}, "a path of weights must be a path or an address, not 5"),
        ({"path": {"absent"}}, "path must be a path or a list of paths, not {'absent'}"),  # it has no order to repeat
        ({"path": "absent"}, f"absent does not exist. {TAR_FIX}"),
        ({"path": "foo://bucket/set"}, "foo://bucket/set: Protocol not known: foo"),
        ({"path": ["foo://bucket/0.tar"]}, "foo://bucket/0.tar: Protocol not known: foo"),
    ],
)
def test_a_wrong_argument_is_reported_in_one_line(tars: Path, tmp_path: Path, argument: dict[str, Any], says: str) -> None:
    with pytest.raises(Error) as caught:
        stream(**{"path": tars, "reading": ReadOptions(cache=tmp_path), "torch": False, **argument})
    assert isinstance(caught.value, ValueError) and str(caught.value) == says


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Blend({"a": 1}, by="epoch"), "by must be one of samples, epochs, tokens, not 'epoch'"),  # type: ignore[arg-type]
        (lambda: Blend(["a"]), "weights must be a mapping {path: weight}, not ['a']"),  # type: ignore[arg-type]
        (lambda: Blend({"a": 1}, later=[5]), "later must be a mapping {position: {path: weight}}, not [5]"),  # type: ignore[arg-type]
        (lambda: Blend({"a": 1}, later={1.5: {"a": 1}}), "a position of later must be an integer of at least 0, not 1.5"),  # type: ignore
        (lambda: Blend({"a": 1}, later={5: {"b": 1}}), "`later` has weights for ['b'], but the blend has only ['a']"),
        (lambda: ReadOptions(threads=-1), "threads must be an integer of at least 0, not -1"),
        (lambda: ReadOptions(threads=None), "threads must be an integer of at least 0, not None"),  # type: ignore[arg-type]
        (lambda: ReadOptions(on_error="ignore"), "on_error must be one of raise, skip, not 'ignore'"),  # type: ignore[arg-type]
        (lambda: ReadOptions(on_error=["skip"]), "on_error must be one of raise, skip, not ['skip']"),  # type: ignore[arg-type]
        (lambda: ReadOptions(cache=10**9), "cache must be a path or an address, not 1000000000"),  # type: ignore[arg-type]
        (lambda: ReadOptions(cache_bytes=2.5), "cache_bytes must be an integer of at least 0, not 2.5"),  # type: ignore[arg-type]
        (lambda: Packing(0, len, "any"), "tokens must be an integer of at least 1, not 0"),
        (lambda: Packing(8, "len", "any"), "measure must be a function, not 'len'"),  # type: ignore[arg-type]
        (lambda: Packing(8, len, 5), "name must be a string, not 5"),  # type: ignore[arg-type]
        (lambda: Packing(8, len, "any", "cut"), "overlong must be one of alone, drop, not 'cut'"),  # type: ignore[arg-type]
        (lambda: Packing(8, len, "any", workers=0), "workers must be an integer of at least 1, not 0"),
        (lambda: Decode("336"), "size must be an integer of at least 1, not '336'"),  # type: ignore[arg-type]
        (lambda: Decode(8, "crop"), "mode must be one of no, border, keep_ratio, keep_ratio_largest, center_crop, not 'crop'"),  # type: ignore
        (lambda: Decode(8, filter="cubic"), "filter must be one of bilinear, area, not 'cubic'"),  # type: ignore[arg-type]
        (lambda: Decode(8, augment=True), "augment must be a function, not True"),  # type: ignore[arg-type]
        (lambda: Decode(8, max_pixels=0), "max_pixels must be an integer of at least 1, not 0"),
    ],
)
def test_a_wrong_group_of_options_is_reported_in_one_line(make: Any, says: str) -> None:
    with pytest.raises(Error) as caught:
        make()
    assert str(caught.value) == says


def test_chained_addresses_and_paths_are_accepted() -> None:
    check_protocol("zip://0.tar::/folder/set.zip", "simplecache::file:///folder/0.tar", Path("0.tar"), "memory://set")
    with pytest.raises(Error, match="Protocol not known: foo"):
        check_protocol("zip://0.tar::foo://folder/set.zip")


@pytest.mark.parametrize("length", [0, "5", 2.5, [], [4, 0], None])
def test_an_invalid_length_is_reported_with_its_sample(tars: Path, tmp_path: Path, length: Any) -> None:
    packing = Packing(64, lambda sample: length, f"{length!r}", workers=1)
    with pytest.raises(
        Error, match=re.escape(f"sample '0-0' of {tars} has the length {length!r}. `measure` must return an integer")
    ):
        stream(tars, packing=packing, reading=ReadOptions(cache=tmp_path), torch=False)


def test_a_length_may_be_a_numpy_integer(tars: Path, tmp_path: Path) -> None:
    packing = Packing(64, lambda sample: np.int64(len(sample["txt"])), "numpy", workers=1)
    assert sum(map(len, stream(tars, packing=packing, reading=ReadOptions(cache=tmp_path), torch=False))) == 10


OLD = ["batch", "collate", "tail", "world", "pack", "by", "later", "shuffle", "threads", "on_error", "cache", "cache_bytes"]


@pytest.mark.parametrize("old", [*OLD, "workers"])
def test_an_unknown_argument_raises_a_type_error(tars: Path, old: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{old}'"):
        stream(tars, **{old: 1})


def test_the_loader_accepts_only_the_argument_names_of_pytorch(tars: Path, tmp_path: Path) -> None:
    samples = stream(tars, batch_size=2, reading=ReadOptions(cache=tmp_path))
    for wrong, says in (
        ({"num_workers": -1}, "num_workers must be an integer of at least 0, not -1"),
        ({"prefetch_factor": 0}, "prefetch_factor must be an integer of at least 1, not 0"),
        ({"pin_memory": 1}, "pin_memory must be True or False, not 1"),
        ({"device": "gpu"}, "device must be a device of torch, such as 'cuda', not 'gpu'"),
    ):
        with pytest.raises(Error) as caught:
            samples.loader(**wrong)  # type: ignore[arg-type]
        assert str(caught.value) == says
    with pytest.raises(TypeError, match="workers"):
        samples.loader(workers=2)  # type: ignore[call-arg]
    plain = stream(tars, reading=ReadOptions(cache=tmp_path), torch=False)
    assert sorted(keys_of(samples.loader(num_workers=0))) == sorted(keys_of(plain))


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (5, "state must be a mapping that state_dict() returned, not 5"),
        ({}, "this is not the state of a stream: it has no keys, but must have 'position', 'index' and 'order'"),
        ({"position": "4", "index": "a", "order": "b"}, "position must be an integer of at least 0, not '4'"),
    ],
)
def test_an_invalid_state_is_refused(tars: Path, tmp_path: Path, state: Any, says: str) -> None:
    samples = stream(tars, reading=ReadOptions(cache=tmp_path), torch=False)
    with pytest.raises(Error) as caught:
        samples.load_state_dict(state)
    assert str(caught.value) == says
    with pytest.raises(Error, match="epoch must be an integer of at least 0, not -1"):
        samples.set_epoch(-1)


def test_type_hints_list_every_option() -> None:
    taken = get_type_hints(stream)
    seen = get_type_hints(Options)
    assert seen == {name: kind for name, kind in taken.items() if name not in ("path", "torch", "return")}
    assert set(inspect.signature(stream).parameters) == {"path", "torch", *seen}
    assert len(inspect.signature(stream).parameters) <= 12


def test_a_stream_without_torch_yields_the_same_samples(tars: Path, tmp_path: Path) -> None:
    plain = stream(tars, reading=ReadOptions(cache=tmp_path), torch=False)
    assert type(plain) is Samples and keys_of(plain) == keys_of(stream(tars, reading=ReadOptions(cache=tmp_path)))


CHECKED = """
from pathlib import Path
from typing import Any, assert_type

import vlmdata
from vlmdata import Packing, stream
from vlmdata.loader.samples import Samples
from vlmdata.loader.stream import Blend, ReadOptions
from vlmdata.loader.torch_stream import Loader, Stream


def with_torch(flag: bool) -> None:
    assert_type(stream("a"), Stream)
    assert_type(vlmdata.stream(Path("a"), batch_size=2, drop_last=True, torch=True), Stream)
    assert_type(stream({"a": 0.5, "b": 1}, seed=None, reading=ReadOptions(cache="c", cache_bytes=5), torch=False), Samples)
    assert_type(stream(Blend({Path("a"): 1}, by="epochs"), packing=Packing(8, len, "any"), torch=flag), Samples)
    assert_type(stream(["a", "b"]).loader(num_workers=2), Loader)
    stream("a", batch=2)  # wrong: old name
    ReadOptions(on_error="stop")  # wrong: no such choice
    stream("a", torch=False).loader()  # wrong: only with torch


assert_type(vlmdata.__version__, str)
assert_type(vlmdata.forget("a", url="b"), dict[str, Any])
assert_type(vlmdata.check("a"), list[str])
assert_type(vlmdata.build_index("a"), Path)
assert_type(vlmdata.export("a", "b"), int)
"""


@pytest.mark.whole
def test_mypy_sees_what_stream_returns(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    file = tmp_path / "checked.py"
    file.write_text(CHECKED)
    wrong = [number for number, line in enumerate(CHECKED.splitlines(), 1) if "# wrong" in line]
    command = [sys.executable, "-m", "mypy", "--ignore-missing-imports", "--follow-imports=silent", "--no-error-summary"]
    command += ["--cache-dir", str(tmp_path / "cache"), "--config-file", os.devnull, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "MYPYPATH": str(ROOT)})
    reported = sorted({int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line})
    assert reported == wrong, done.stdout + done.stderr
