"""Ask a checkpoint of vlmdata's own trainer, which a process of its own serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from vlmdata.errors import RecipeError
from vlmdata.generation.served_checkpoint import ServedCheckpoint
from vlmdata.generator import Generator, RunRecord
from vlmdata.home_folder import at_home
from vlmdata.models.weights_identity import identity
from vlmdata.parameters import Doc


@dataclass(frozen=True, kw_only=True)
class Trained(Generator):
    """Asks a checkpoint of `vlmdata train`. Each worker starts `vlmdata train serve` with it, and ends it when it ends."""

    id: ClassVar[str] = "vlmdata.generators.trained"
    example: ClassVar[str] = "{trained: {checkpoint: runs/instruct/checkpoints/step_00005200}}"
    needs: ClassVar[tuple[str, ...]] = ("model", "gpu")
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "safetensors", "timm")

    checkpoint: Annotated[str, Doc("The folder of a checkpoint, which every worker sees under the same path.")]
    batch: Annotated[int, Doc("Most prompts that are answered together.", unit="1 to 1024", source="vlmdata's choice")] = 16
    device: Annotated[Literal["auto", "cpu", "cuda"], Doc("Where the model computes. auto: on a GPU if there is one.")] = "auto"
    start_s: Annotated[
        float, Doc("Most time that the server may take to load the checkpoint.", unit="seconds", source="vlmdata's choice")
    ] = 900.0
    timeout_s: Annotated[
        float, Doc("Most time for one answer, with the wait for its batch.", unit="seconds", source="vlmdata's choice")
    ] = 900.0

    def check(self) -> None:
        folder = self._folder()
        if not (folder / "recipe.json").is_file():
            newest = _newest(folder)
            advice = f" Did you mean {newest}?" if newest else ""
            why = "it has no recipe.json" if folder.is_dir() else "there is no such folder"
            raise RecipeError(f"checkpoint: {self.checkpoint} is not a checkpoint of the trainer, because {why}.{advice}")
        if not 1 <= self.batch <= 1024:
            raise RecipeError(f"batch must lie in [1, 1024], not {self.batch}")
        for name in ("start_s", "timeout_s"):
            if not 1 <= getattr(self, name) <= 86_400:
                raise RecipeError(f"{name} must lie in [1, 86400], not {getattr(self, name)}")

    def identity(self) -> str:
        return identity(str(self._folder()))

    def open(self, record: RunRecord) -> ServedCheckpoint:
        return ServedCheckpoint(
            str(self._folder()), batch=self.batch, device=self.device, start_s=self.start_s, timeout_s=self.timeout_s
        )

    def _folder(self) -> Path:
        return Path(at_home(self.checkpoint))


def _newest(folder: Path) -> Path | None:
    """Return the newest checkpoint of a run whose folder is given, or None."""
    found = [*folder.glob("step_*/recipe.json"), *folder.glob("checkpoints/step_*/recipe.json")]
    return max(found).parent if found else None
