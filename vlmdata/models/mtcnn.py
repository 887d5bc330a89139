"""MTCNN, a face detector of three small networks. Each looks closer at what the one before proposes.

The layers and the arithmetic of boxes are those of the package facenet-pytorch 2.6.0, whose weights this file loads, so that
the results agree. Source: Zhang et al. 2016, Joint Face Detection and Alignment using Multitask Cascaded Convolutional
Networks, arXiv:1604.02878. N boxes, H x W the picture's size; boxes are x0, y0, x1, y1 in pixels.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d
from torchvision.ops import nms

from vlmdata.errors import RecipeError
from vlmdata.models.mtcnn_files import HOW
from vlmdata.process.shortage import is_short_of_memory
from vlmdata.untrusted import errors_as, one_line

CELL, STRIDE = 12, 2  # pixels: side of the square that the first network judges, and the distance between two squares
FACTOR = 0.709  # each level of the pyramid has about half the pixels of the one before
THRESHOLDS = (0.6, 0.7, 0.7)  # least probability after each network
SIDES = (24, 48)  # pixels: sides of the crops for the second and the third network
CHUNK = 512  # crops that a network judges at a time, which bounds the memory


class Stage(nn.Module):
    """One of the networks: convolutions with PReLU and max pooling, perhaps a dense layer, and linear outputs.

    `convolutions` holds the channels, the kernel and the window of the pooling (0: none) of each. `hidden` is the width of the
    input and the output of the dense layer. Without it, the outputs are computed at each place of the picture. `outputs` are
    the widths of the outputs: the logits of a background and of a face, the correction of the box, and the landmarks.
    """

    def __init__(
        self, convolutions: Sequence[tuple[int, int, int]], outputs: Sequence[int], hidden: tuple[int, int] | None = None
    ):
        super().__init__()
        self.pools = [pool for _, _, pool in convolutions]
        width, last = 3, len(convolutions) + 1
        for number, (channels, kernel, _) in enumerate(convolutions, 1):
            self.add_module(f"conv{number}", nn.Conv2d(width, channels, kernel))
            self.add_module(f"prelu{number}", nn.PReLU(channels))
            width = channels
        self.dense = last if hidden else 0
        if hidden:
            self.add_module(f"dense{last}", nn.Linear(*hidden))
            self.add_module(f"prelu{last}", nn.PReLU(hidden[1]))
        self.heads = [f"dense{last + 1}_{n}" if hidden else f"conv{last}_{n}" for n in range(1, len(outputs) + 1)]
        for name, size in zip(self.heads, outputs, strict=True):
            self.add_module(name, nn.Linear(hidden[1], size) if hidden else nn.Conv2d(width, size, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probability of a face, (N,) or (N, H, W), and the correction of the box, (N, 4) or (N, 4, H, W)."""
        x = x.contiguous(memory_format=torch.channels_last)  # in this order, pooling takes a seventh of the time on a CPU
        for number, pool in enumerate(self.pools, 1):
            x = self.get_submodule(f"prelu{number}")(self.get_submodule(f"conv{number}")(x))
            if pool:
                x = max_pool2d(x, pool, 2, ceil_mode=True)
        if self.dense:
            x = x.permute(0, 3, 2, 1).flatten(1)  # the order of the weights: (N, W * H * channels)
            x = self.get_submodule(f"prelu{self.dense}")(self.get_submodule(f"dense{self.dense}")(x))
        logits, corrections = (self.get_submodule(name)(x) for name in self.heads[:2])
        return logits.softmax(1)[:, 1], corrections


class Mtcnn:
    """The three networks in fp32, on a GPU if there is one."""

    def __init__(self, weights: Mapping[str, bytes]):
        """Load the contents of pnet.pt, rnet.pt and onet.pt. Raises RecipeError if they are not weights of these networks."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        stages = {
            "pnet.pt": Stage([(10, 3, 2), (16, 3, 0), (32, 3, 0)], (2, 4)),
            "rnet.pt": Stage([(28, 3, 3), (48, 3, 3), (64, 2, 0)], (2, 4), (576, 128)),
            "onet.pt": Stage([(32, 3, 3), (64, 3, 3), (64, 3, 2), (128, 2, 0)], (2, 4, 10), (1152, 256)),
        }
        for name, stage in stages.items():
            _load(stage, weights[name], name)
        self.proposing, self.refining, self.judging = (stage.to(self.device).eval() for stage in stages.values())

    @torch.inference_mode()
    def faces(self, pixels: np.ndarray, min_face: int) -> np.ndarray:
        """Return the faces in (H, W, 3) uint8 sRGB pixels: boxes and probability, fp32 (N, 5), the most probable first.

        `min_face` is the side of the smallest face to find, in pixels. Boxes may extend beyond the picture.
        """
        picture = torch.from_numpy(pixels).to(self.device).permute(2, 0, 1)[None].float()  # (1, 3, H, W), 0 to 255
        boxes = self._propose(picture, min_face)
        for stage, side, threshold in zip((self.refining, self.judging), SIDES, THRESHOLDS[1:], strict=True):
            crops, boxes = _crops(picture, boxes, side)
            if not len(boxes):
                break
            scores, corrections = _judged(stage, crops)
            good = scores > threshold
            boxes, scores, corrections = boxes[good], scores[good], corrections[good]
            if stage is self.refining:
                kept = nms(boxes, scores, 0.7)
                boxes = _square(_moved(boxes[kept], corrections[kept], 1))
            else:
                boxes = torch.cat([_moved(boxes, corrections, 1), scores[:, None]], 1)
                return _without_nested(boxes.cpu().numpy())
        return np.zeros((0, 5), np.float32)

    def _propose(self, picture: Tensor, min_face: int) -> Tensor:
        """Return square boxes that may hold a face, from the first network on a pyramid of the picture, (N, 4)."""
        height, width = picture.shape[2:]
        scale, found = CELL / min_face, [torch.zeros(0, 9, device=self.device)]
        while min(height, width) * scale >= CELL:
            small = interpolate(picture, size=(int(height * scale + 1), int(width * scale + 1)), mode="area")
            scores, corrections = self.proposing(_normal(small))
            rows, columns = torch.nonzero(scores[0] >= THRESHOLDS[0], as_tuple=True)
            corner = torch.stack([columns, rows], 1).float() * STRIDE + 1
            boxes = torch.cat([(corner / scale).floor(), ((corner + CELL - 1) / scale).floor()], 1)
            score = scores[0, rows, columns]
            kept = nms(boxes, score, 0.5)
            found.append(torch.cat([boxes, score[:, None], corrections[0, :, rows, columns].T], 1)[kept])
            scale *= FACTOR
        every = torch.cat(found)
        every = every[nms(every[:, :4], every[:, 4], 0.7)]
        return _square(_moved(every[:, :4], every[:, 5:], 0))


def _load(stage: Stage, data: bytes, where: str) -> None:
    with errors_as(lambda error: _unusable(where, error)):
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        stage.load_state_dict(tensors)
    broken = [name for name, tensor in stage.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise RecipeError(f"{where}: {broken[0]} has values that are not finite. {HOW}")


def _unusable(where: str, error: Exception) -> Exception:
    if is_short_of_memory(error):
        return error
    why = one_line(error).partition(". ")[0][:200].rstrip(". ")  # torch goes on with advice to load files that run code
    return RecipeError(f"{where} does not hold the weights of this network: {why}. {HOW}")


def _normal(pixels: Tensor) -> Tensor:
    """Return pixels 0 to 255 as the networks expect them, -1 to 1."""
    return (pixels - 127.5) / 128


def _judged(stage: Stage, crops: Tensor) -> tuple[Tensor, Tensor]:
    parts = [stage(_normal(some)) for some in crops.split(CHUNK)]
    return torch.cat([scores for scores, _ in parts]), torch.cat([corrections for _, corrections in parts])


def _crops(picture: Tensor, boxes: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return what the boxes hold, resized to `side`, (N, 3, side, side), and these boxes, without those outside the picture.

    The first pixel of the picture has the number 1 in these boxes, as in the networks' training.
    """
    height, width = picture.shape[2:]
    places = boxes.trunc().long().cpu().numpy()
    x0, y0 = np.maximum(places[:, 0], 1) - 1, np.maximum(places[:, 1], 1) - 1
    x1, y1 = np.minimum(places[:, 2], width), np.minimum(places[:, 3], height)
    inside = np.flatnonzero((x1 > x0) & (y1 > y0))
    cut = [interpolate(picture[:, :, y0[i] : y1[i], x0[i] : x1[i]], size=(side, side), mode="area") for i in inside]
    return torch.cat(cut) if cut else picture.new_zeros(0, 3, side, side), boxes[torch.from_numpy(inside).to(boxes.device)]


def _moved(boxes: Tensor, corrections: Tensor, extra: int) -> Tensor:
    """Return boxes whose edges are moved by the corrections, which are shares of the width and the height plus `extra`."""
    sides = (boxes[:, 2:] - boxes[:, :2] + extra).repeat(1, 2)
    return boxes + corrections * sides


def _square(boxes: Tensor) -> Tensor:
    """Return squares with the centres of the boxes and their longer side, (N, 4)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = sides.amax(1, keepdim=True)
    corner = boxes[:, :2] + sides / 2 - longer / 2
    return torch.cat([corner, corner + longer], 1)


def _without_nested(boxes: np.ndarray, most: float = 0.7) -> np.ndarray:
    """Return boxes (N, 5), the most probable first, without those that share over `most` of their area or a better one's."""
    left = boxes[np.argsort(boxes[:, 4], kind="stable")[::-1]]
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        overlap = (np.minimum(best[2:4], left[:, 2:4]) - np.maximum(best[:2], left[:, :2]) + 1).clip(0).prod(1)
        areas = (left[:, 2:4] - left[:, :2] + 1).prod(1)
        left = left[overlap <= most * np.minimum(areas, (best[2:4] - best[:2] + 1).prod())]
    return np.array(kept, np.float32).reshape(-1, 5)
