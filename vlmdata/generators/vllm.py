"""Ask a model that vLLM runs in the worker, with many prompts at the same time on a GPU."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from vlmdata.errors import RecipeError
from vlmdata.generator import Generator, RunRecord
from vlmdata.models.model_folder import check_folder, folder_of, loading, model_identity
from vlmdata.parameters import Doc

if TYPE_CHECKING:
    from vlmdata.models.vllm_engine import VllmEngine


@dataclass(frozen=True, kw_only=True)
class Vllm(Generator):
    """A model that vLLM can load. Each worker has one GPU and one engine.

    vLLM is not in an extra of vlmdata, because it requires its own version of torch: `pip install vllm`. Code in the model's
    folder is never run.
    """

    id: ClassVar = "vlmdata.generators.vllm"
    example: ClassVar = "{vllm: {model: captioner, max_model_len: 4096}}"
    needs: ClassVar = ("model", "gpu")
    packages: ClassVar = ("vllm",)

    model: Annotated[str, Doc("Folder, or name on the Hugging Face Hub, of a model that vLLM can load.")]
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        Doc("Number format of the model. auto: as vLLM chooses.", source="vLLM's default"),
    ] = "auto"
    max_model_len: Annotated[
        int,
        Doc("Most tokens of a prompt with its answer. 0: what the model allows, which may take much memory.", unit="tokens"),
    ] = 0
    gpu_memory_utilization: Annotated[
        float, Doc("Share of the GPU's memory that the engine may use.", unit="0 to 1", source="vLLM's default")
    ] = 0.9
    max_num_seqs: Annotated[
        int, Doc("Most answers that the engine computes at the same time.", unit="answers", source="vlmdata's choice")
    ] = 256
    concurrency: Annotated[
        int,
        Doc(
            "Prompts that the engine holds at the same time. More than `max_num_seqs` keep it busy while images are decoded.",
            unit="prompts",
            source="vlmdata's choice",
        ),
    ] = 320

    def check(self) -> None:
        for name in ("max_num_seqs", "concurrency"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.max_model_len < 0:
            raise RecipeError(f"max_model_len must be 0 or more, not {self.max_model_len}")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise RecipeError(f"gpu_memory_utilization must lie in (0, 1], not {self.gpu_memory_utilization}")
        check_folder(self.model)

    def identity(self) -> str:
        return json.dumps([model_identity(self.model), self.dtype])

    def engine_fields(self) -> dict[str, Any]:
        """Return the fields of vLLM's AsyncEngineArgs."""
        fields = {
            "model": str(folder_of(self.model) or self.model),
            "dtype": self.dtype,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "max_num_seqs": self.max_num_seqs,
            "tensor_parallel_size": 1,
            "seed": 0,
            "trust_remote_code": False,
            "disable_log_stats": True,
        }
        return fields | ({"max_model_len": self.max_model_len} if self.max_model_len else {})

    def open(self, record: RunRecord) -> VllmEngine:
        from vlmdata.models.vllm_engine import VllmEngine

        with loading(self.model):
            return VllmEngine(self.engine_fields(), self.concurrency)
