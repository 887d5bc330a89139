"""Descriptions, weights and scores of small heads. A mistake is one line that says what to change."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import save_file

from vlmdata.errors import RecipeError
from vlmdata.models.classifier_head import head_identity, load_head
from vlmdata.models.head_description import as_description

TREE: dict[str, Any] = {
    "input": {"width": 3, "normalise": "none"},
    "layers": [{"width": 2, "weight": "w", "bias": "b"}],
    "outputs": {"cat": 1, "dog": 0},
    "weights": {"file": "head.safetensors"},
}
TENSORS = {"w": np.array([[1, 0, 0], [0, 2, 0]], np.float32), "b": np.array([0, 1], np.float32)}


def written(folder: Path, tensors: dict[str, np.ndarray] | None = None, **changes: Any) -> str:
    """Write a head and its description, with some fields replaced, and return the path of the description."""
    save_file(TENSORS if tensors is None else tensors, folder / "head.safetensors")
    (folder / "head.yaml").write_text(yaml.safe_dump({**TREE, **changes}, sort_keys=False))
    return str(folder / "head.yaml")


def test_outputs_are_named_and_picked_by_index(tmp_path: Path) -> None:
    head = load_head(written(tmp_path))
    assert head.names == ["cat", "dog"] and head.scores(np.array([[5, 7, 9]], np.float32)).tolist() == [[15, 5]]


@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "silu", "tanh", "sigmoid"])
@pytest.mark.parametrize("final", ["none", "sigmoid", "softmax"])
def test_activations_are_those_of_torch(activation: str, final: str, tmp_path: Path) -> None:
    layers = [{**TREE["layers"][0], "activation": activation}]
    given = np.random.default_rng(1).normal(size=(2000, 3)).astype(np.float32) * 4
    values = torch.from_numpy(given @ TENSORS["w"].T + TENSORS["b"])
    own = {"none": torch.nn.Identity(), "relu": torch.relu, "gelu": torch.nn.functional.gelu, "silu": torch.nn.functional.silu}
    values = own.get(activation, getattr(torch, activation, None))(values)
    ends = {"none": torch.nn.Identity(), "sigmoid": torch.sigmoid, "softmax": torch.nn.Softmax(-1)}
    wanted = ends[final](values).numpy()[:, [1, 0]]
    assert np.abs(load_head(written(tmp_path, layers=layers, final=final)).scores(given) - wanted).max() < 2e-6


def test_layers_without_activations_between_them_are_one_affine_map(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    widths, names = [3, 64, 8, 2], "ace"
    tensors = {n: random.normal(size=(b, a)).astype(np.float32) for n, a, b in zip(names, widths, widths[1:], strict=False)}
    layers = [{"width": len(tensors[n]), "weight": n, "bias": ""} for n in names]
    given = random.normal(size=(50, 3)).astype(np.float32)
    wanted = given.astype(np.float64) @ tensors["a"].T @ tensors["c"].T @ tensors["e"].T
    found = load_head(written(tmp_path, tensors, layers=layers)).scores(given)
    assert np.allclose(found, wanted[:, [1, 0]], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("normalise", ["none", "l2"])
def test_an_embedding_that_is_not_finite_or_has_no_length_has_no_score(normalise: str, tmp_path: Path) -> None:
    head = load_head(written(tmp_path, input={"width": 3, "normalise": normalise}))
    with np.errstate(all="raise"):
        found = head.scores(np.array([[np.nan, 0, 0], [np.inf, 0, 0], [0, 0, 0], [0, 1, 0]], np.float32))
    assert np.isnan(found[:, 0]).tolist() == [True, True, normalise == "l2", False] and found[3].tolist() == [3, 0]


def test_pairs_must_be_reproduced_within_the_tolerance(tmp_path: Path) -> None:
    pair = {"input": [1, 2, 3], "scores": {"cat": 5.0009}}
    assert load_head(written(tmp_path, pairs=[pair])).names
    with pytest.raises(RecipeError, match=r"^head: pair 1 must give cat = 5.002, but these weights give 5\. Give the weights"):
        load_head(written(tmp_path, pairs=[{**pair, "scores": {"cat": 5.002}}]))
    assert load_head(written(tmp_path, pairs=[{**pair, "scores": {"cat": 5.002}}], tolerance=0.01)).names
    with pytest.raises(RecipeError, match=r"^head: pair 1 must give cat"):  # NaN is not near anything
        load_head(written(tmp_path, input={"width": 3, "normalise": "l2"}, pairs=[{**pair, "input": [0, 0, 0]}]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": {}}, "inputs: Extra inputs are not permitted"),
        ({"input": {"width": 0, "normalise": "l2"}}, "input.width: Input should be greater than or equal to 1, not 0"),
        (
            {"input": {"width": 3, "normalise": "L2"}},
            "input.normalise: Input should be 'none', 'l2' or 'standardise', not 'L2'",
        ),
        ({"layers": []}, "layers: .* at least 1"),
        ({"layers": [{"width": 2, "weight": "w"}]}, "layers.0.bias: Field required"),
        ({"outputs": {"cat": 2}}, "outputs.cat: the last layer has the outputs 0 to 1, not 2"),
        ({"outputs": {}}, "outputs: .* at least 1"),
        ({"pairs": [{"input": [1, 2], "scores": {"cat": 1}}]}, "pair 1: the input has 2 numbers, but input.width is 3"),
        ({"pairs": [{"input": [1, 2, 3], "scores": {"cow": 1}}]}, "pair 1: scores must have names of outputs: cat, dog"),
        ({"pairs": [{"input": [1, 2, float("nan")], "scores": {"cat": 1}}]}, "pair 1: every number must be finite"),
        ({"encoder": {"models": []}}, "encoder.models: .* at least 1"),
        ({"weights": {"sha256": "12"}}, "weights.sha256: String should match"),
    ],
)
def test_a_mistake_in_a_description_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=rf"^head: here: {message}") as caught:
        as_description({**TREE, **changes}, "here")
    assert "\n" not in str(caught.value)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("touched"),)


def test_a_file_of_pytorch_never_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    head = written(tmp_path)
    torch.save({"w": torch.zeros(2, 3), "b": Hostile()}, "hostile.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Hostile()))
    torch.save(torch.nn.Linear(3, 2), "module.pt")
    for name in ("hostile.pt", "plain.pt", "module.pt"):
        with pytest.raises(
            RecipeError, match=r"^weights: \S+ is not loaded, because it holds other objects than tensors"
        ) as caught:
            load_head(head, name)
        assert "\n" not in str(caught.value)
    assert not Path("touched").exists()


def test_tensors_in_mappings_are_named_with_dots(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {"w": torch.eye(2, 3), "b": torch.zeros(2)}}, tmp_path / "head.pt")
    head = written(tmp_path, layers=[{"width": 2, "weight": "state_dict.w", "bias": "state_dict.b"}])
    assert load_head(head, str(tmp_path / "head.pt")).scores(np.array([[5, 7, 9]], np.float32)).tolist() == [[7, 5]]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"w": TENSORS["w"]}, r"\S+ has no tensor 'b'\. Give the weights of this head"),
        (
            {"w": TENSORS["w"].T.copy(), "b": TENSORS["b"]},
            r"the tensor 'w' of \S+ must have the shape \(2, 3\), not \(3, 2\)\.",
        ),
        *(
            ({**TENSORS, "w": TENSORS["w"].astype(kind)}, rf"the tensor 'w' of \S+ must hold floats, not (torch\.)?{kind}\.")
            for kind in ("int8", "bool", "complex64")
        ),
        ({**TENSORS, "b": np.array([0, np.nan], np.float32)}, r"the tensor 'b' of \S+ has a number that is not finite"),
    ],
)
def test_weights_of_another_head_are_refused(tensors: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"^weights: {message}"):
        load_head(written(tmp_path, tensors))
    torch.save({name: torch.from_numpy(values) for name, values in tensors.items()}, tmp_path / "head.pt")
    with pytest.raises(RecipeError, match=f"^weights: {message}"):
        load_head(written(tmp_path), str(tmp_path / "head.pt"))


def test_a_tensor_of_two_layers_with_other_widths_is_refused(tmp_path: Path) -> None:
    layers = [{"width": 2, "weight": "w", "bias": "b"}, {"width": 2, "weight": "w", "bias": ""}]
    with pytest.raises(RecipeError, match=r"^head: the tensor 'w' cannot have both the shape \(2, 3\) and \(2, 2\)\."):
        load_head(written(tmp_path, layers=layers))


def test_mappings_that_stand_for_millions_of_names_are_not_searched(tmp_path: Path) -> None:
    tree: dict[str, Any] = {"epoch": 3}
    for _ in range(8):
        tree = {str(number): tree for number in range(40)}  # 40 ** 8 names in a file of a few kB
    torch.save({**tree, "w": torch.eye(2, 3), "b": torch.zeros(2)}, tmp_path / "head.pt")
    assert load_head(written(tmp_path), str(tmp_path / "head.pt")).names


def test_a_small_file_that_states_a_huge_tensor_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(1 << 40), "b": torch.zeros(2)}, tmp_path / "head.pt")
    with pytest.raises(RecipeError, match=r"^weights: the tensor 'w' of \S+ must have the shape"):
        load_head(written(tmp_path), str(tmp_path / "head.pt"))


@pytest.mark.parametrize(
    ("name", "data"), [("a.safetensors", b"\x08" + bytes(15)), ("a.pt", b"PK\x03\x04 cut"), ("a.pth", b"")]
)
def test_a_damaged_file_of_weights_is_one_line(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RecipeError, match=r"^weights: \S+ cannot be read: .*Save the head as safetensors") as caught:
        load_head(written(tmp_path), str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_of_another_kind_is_named(tmp_path: Path) -> None:
    head = written(tmp_path)
    with pytest.raises(RecipeError, match=r"^weights: there is no file nowhere\.pt"):
        load_head(head, "nowhere.pt")
    (tmp_path / "head.h5").touch()
    with pytest.raises(RecipeError, match=r"^weights: \S+head\.h5 must end with \.safetensors, \.pt, \.pth"):
        load_head(head, str(tmp_path / "head.h5"))
    with pytest.raises(RecipeError, match=r"^head: there is no file 'laion_nsfw_l4'\. Did you mean 'laion_nsfw_l14'\?"):
        load_head("laion_nsfw_l4", "head.pt")
    with pytest.raises(RecipeError, match=r"^weights: the description of the head names no file\. Set `weights`"):
        load_head("laion_nsfw_l14")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(RecipeError, match=r"^head: \S+list\.yaml is not a description of a head"):
        load_head(str(tmp_path / "list.yaml"))
    with pytest.raises(
        RecipeError, match=r"^weights: \S+ has the SHA-256 [0-9a-f]{64}, but the description of the head states 0{64}"
    ):
        load_head(written(tmp_path, weights={"file": "head.safetensors", "sha256": "0" * 64}))


def test_a_variance_must_be_positive(tmp_path: Path) -> None:
    tensors = {**TENSORS, "mean": np.zeros(3, np.float32), "variance": np.array([1, 0, 1], np.float32)}
    with pytest.raises(RecipeError, match=r"^weights: the tensor 'variance' must hold positive variances"):
        load_head(written(tmp_path, tensors, input={"width": 3, "normalise": "standardise"}))


def test_remarks_and_pairs_do_not_change_the_identity_but_layers_and_weights_do(tmp_path: Path) -> None:
    first = head_identity(written(tmp_path), "")
    pairs = [{"input": [1, 2, 3], "scores": {"cat": 5}}]
    assert head_identity(written(tmp_path, about="A head.", pairs=pairs, tolerance=0.5), "") == first
    (tmp_path / "head.json").write_text(json.dumps(TREE))
    assert head_identity(str(tmp_path / "head.json"), "") == first
    others = [{"final": "sigmoid"}, {"outputs": {"dog": 0, "cat": 1}}, {"tensors": {**TENSORS, "b": np.ones(2, np.float32)}}]
    assert len({first, *(head_identity(written(tmp_path, **one), "") for one in others)}) == 4
