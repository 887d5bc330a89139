"""Pairs that a user's own program computed are added to a description, and hold from then on."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from vlmdata.errors import RecipeError
from vlmdata.models.classifier_head import load_head
from vlmdata.models.head_description import read_description
from vlmdata.models.head_pairs import main, write_pairs

HEAD = """# my head
input: {width: 5, normalise: l2}
layers:
- {width: 8, weight: 0.weight, bias: 0.bias, activation: relu}
- {width: 2, weight: 2.weight, bias: 2.bias}
outputs: {cat: 0, dog: 1}
weights: {file: head.pt}
"""


def own_head(folder: Path) -> tuple[torch.nn.Sequential, np.ndarray, np.ndarray]:
    """Write a head of the user's with its description. Return it, three inputs and its scores for them."""
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    torch.save(net.state_dict(), folder / "head.pt")
    (folder / "head.yaml").write_text(HEAD)
    inputs = np.random.default_rng(0).normal(size=(3, 5)) * np.array([1e-5, 1, 1, 1, 1000])
    with torch.inference_mode():
        return net, inputs, net(torch.nn.functional.normalize(torch.tensor(inputs).float(), dim=1)).numpy()


def test_the_command_appends_pairs_that_the_head_reproduces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, inputs, scores = own_head(tmp_path)
    np.save(tmp_path / "x.npy", inputs)
    np.save(tmp_path / "y.npy", scores)
    arguments = [str(tmp_path / name) for name in ("head.yaml", "x.npy", "y.npy")]
    assert main(arguments) == 0 and capsys.readouterr().out.startswith("added 3 pairs to ")
    text = (tmp_path / "head.yaml").read_text()
    assert text.startswith(HEAD) and max(map(len, text.splitlines())) <= 120
    pairs = read_description(arguments[0]).pairs
    assert np.allclose([pair.input for pair in pairs], inputs, rtol=1e-5)
    assert [pair.scores for pair in pairs] == [pytest.approx({"cat": a, "dog": b}, abs=1e-5) for a, b in scores]
    assert load_head(arguments[0]).names == ["cat", "dog"]
    with torch.no_grad():
        net[0].weight.abs_()
    torch.save(net.state_dict(), tmp_path / "head.pt")
    with pytest.raises(RecipeError, match=r"^head: pair \d must give"):
        load_head(arguments[0])
    assert main(arguments) == 1 and "has pairs already" in capsys.readouterr().err


def test_scores_of_another_head_are_refused_and_the_file_stays(tmp_path: Path) -> None:
    _, inputs, scores = own_head(tmp_path)
    head = str(tmp_path / "head.yaml")
    for wrong, message in ((scores + 0.01, "pair 1 must give cat"), (scores[:2], r"of the shapes \(3, 5\) and \(3, 2\)")):
        with pytest.raises(RecipeError, match=f"^head: .*{message}"):
            write_pairs(head, inputs, wrong)
    with pytest.raises(RecipeError, match=r"^head: pairs are appended only to a YAML file of your own"):
        write_pairs("laion_watermark", np.zeros((1, 1536)), np.zeros((1, 2)), "head.pt")
    assert (tmp_path / "head.yaml").read_text() == HEAD and "pairs" not in yaml.safe_load(HEAD)


def test_wrong_arguments_and_files_end_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own_head(tmp_path)
    assert main([]) == 2 and "usage:" in capsys.readouterr().out
    assert main(["--help"]) == 0 and "example:" in capsys.readouterr().out
    (tmp_path / "x.npy").write_bytes(b"no array")
    for name, message in (("x.npy", "is not a .npy file of numbers"), ("nowhere.npy", "there is no file")):
        assert main([str(tmp_path / "head.yaml"), str(tmp_path / name), str(tmp_path / name)]) == 1
        assert message in capsys.readouterr().err
