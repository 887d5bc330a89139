"""Add pairs of inputs and scores to the description of a head: `python -m vlmdata.models.head_pairs HEAD.yaml X.npy Y.npy`.

The scores must come from the program that the head was trained with. Then vlmdata computes what that program computes, or
refuses the head.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlmdata.errors import RecipeError
from vlmdata.home_folder import at_home
from vlmdata.models.classifier_head import Head, shapes, weights_file
from vlmdata.models.head_description import SHIPPED, Pair, description_file, read_description
from vlmdata.models.head_weights import read_tensors

MOST_PAIRS = 16
USAGE = """usage: python -m vlmdata.models.head_pairs HEAD.yaml INPUTS.npy SCORES.npy [WEIGHTS]

Appends `pairs` to the description of a head. INPUTS holds embeddings (N, D), before normalisation. SCORES holds what the
program that trained the head computes for them, (N, O), with the outputs in the order of the description.

example: python -m vlmdata.models.head_pairs head.yaml inputs.npy scores.npy head.safetensors"""


def write_pairs(head: str, inputs: NDArray[np.floating], scores: NDArray[np.floating], weights: str = "") -> int:
    """Append pairs to the description of a head and return their number: inputs (N, D), scores (N, O) or, for one, (N,).

    Inputs are rounded to 6 significant digits. `weights` is as in the step `classifier_head`. Raises RecipeError, and leaves
    the file as it is, if it has pairs already, if the shapes do not fit, or if the head does not reproduce the scores.
    """
    description, file = read_description(head), description_file(head)
    if description.pairs:
        raise RecipeError(f"head: {file} has pairs already. Remove them first")
    if file.parent == SHIPPED or file.suffix == ".json":
        raise RecipeError(f"head: pairs are appended only to a YAML file of your own, not to {file}. Copy the description")
    scores = scores[:, None] if scores.ndim == 1 else scores
    wanted = (len(inputs), description.input.width), (len(inputs), len(description.outputs))
    if (inputs.shape, scores.shape) != wanted or not 1 <= len(inputs) <= MOST_PAIRS:
        raise RecipeError(
            f"head: give 1 to {MOST_PAIRS} inputs and their scores, of the shapes {wanted[0]} and {wanted[1]}, "
            f"not {inputs.shape} and {scores.shape}"
        )
    pairs = [
        Pair(input=tuple(map(_short, one)), scores=dict(zip(description.outputs, map(_short, row), strict=True)))
        for one, row in zip(inputs, scores, strict=True)
    ]
    complete = description.model_copy(update={"pairs": tuple(pairs)})
    Head(complete, read_tensors(weights_file(head, weights), shapes(complete))).check_pairs()
    with file.open("a", encoding="utf-8") as out:
        out.write("pairs:\n" + "".join(map(_lines, pairs)))
    return len(pairs)


def _short(number: float) -> float:
    return float(f"{float(number):.6g}")


def _lines(pair: Pair) -> str:
    """Return a pair as YAML. `repr` writes numbers such as 1e-05, which YAML 1.1 reads as texts, so exponents get a point."""
    scores = ", ".join(f"{name}: {_yaml(value)}" for name, value in pair.scores.items())
    values = textwrap.fill(
        f"[{', '.join(map(_yaml, pair.input))}]", 120, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
    )
    return f"- scores: {{{scores}}}\n  input:\n{values}\n"


def _yaml(number: float) -> str:
    text = repr(number)
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa if '.' in mantissa else f'{mantissa}.0'}e{exponent}" if e else text


def main(arguments: list[str]) -> int:
    """Run the command and return its exit status: 0, 1 if the pairs are refused, or 2 for wrong arguments."""
    if not 3 <= len(arguments) <= 4 or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    head, *files = arguments[:3]
    try:
        inputs, scores = (_array(path) for path in files)
        count = write_pairs(head, inputs, scores, *arguments[3:])
    except (RecipeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"added {count} pairs to {head}")
    return 0


def _array(path: str) -> NDArray[np.floating]:
    if not Path(at_home(path)).is_file():
        raise RecipeError(f"there is no file {path}")
    try:
        found = np.load(at_home(path), allow_pickle=False)
    except (ValueError, EOFError):
        found = None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise RecipeError(f"{path} is not a .npy file of numbers. Write the array with numpy.save")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
