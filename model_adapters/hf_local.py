"""A checkpoint on this machine through transformers: greedy, in batches of about equal length.

A batch answers what its prompts would alone: padding stands on the left, is masked, and never moves
a position. That is exact to the token in float32; in half precision rounding may tip a near tie.
Latencies are a batch's time divided by its size.
"""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from evalkit.errors import AdapterError, ConfigError, EvalkitError, Unavailable
from evalkit.records import Prompt, Reply
from model_adapters.families import Llava, family_class, spoken
from model_adapters.local_inputs import Encoded, InputMaker, ModelInput, loading
from model_adapters.lora import ADAPTER_FILE, base_of, is_adapter, with_adapter

_LOG = logging.getLogger(__name__)
# A small model gains nothing from more threads, and where they contend with others' it ran 20 times slower.
_ONE_THREAD_PARAMETERS = 10_000_000
_DTYPES = ("auto", "float32", "bfloat16", "float16")


class HfLocal:
    """Replies of a local model. `replies` yields batch by batch, the longest prompts first.

    checkpoint: a folder or a Hub id; revision: a commit of the Hub.
    dtype:      auto (as stored) | float32 | bfloat16 | float16.
    device:     auto (CUDA where there is one, else the CPU) or a torch device.
    min_pixels, max_pixels: limits of Qwen2.5-VL's resize that replace the checkpoint's; the model's
                declared frame must state the same.
    layout:     how LLaVA makes an image square: pad, as in its training (the default), or crop; GLaMM crops.

    model, maker, device: the loaded model, its inputs' maker and where it stands, for probes.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        family: str,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        batch_size: int = 8,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        layout: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        source, self._name = _located(checkpoint)
        family_type = family_class(family)
        if dtype not in _DTYPES:
            raise ConfigError(f"{self._name}: no dtype {dtype!r}. Allowed: {', '.join(_DTYPES)}.")
        if batch_size < 1:
            raise ConfigError(f"{self._name}: batch_size is {batch_size}; it must be 1 or more.")
        self._torch, transformers = _packages()
        self._revision = revision
        self._batch_size = batch_size
        self.device = _device(self._torch, device)
        hub = {"revision": revision, "trust_remote_code": trust_remote_code}
        adapter = source if is_adapter(source) else None
        source = base_of(source) if adapter else source
        with loading(self._name, "config"):
            config = transformers.AutoConfig.from_pretrained(source, **hub)
        if config.model_type != family_type.model_type:
            raise AdapterError(
                f"{self._name}: config.json says {config.model_type!r}, asked for as {family!r}."
            )
        limits = {k: v for k, v in (("min_pixels", min_pixels), ("max_pixels", max_pixels)) if v is not None}
        self.maker = InputMaker(source, family_type, config, limits, hub, layout)
        model_class = getattr(transformers, family_type.architecture)
        model = _load_model(model_class, source, self._name, {"dtype": dtype, **hub})
        model = with_adapter(model, adapter) if adapter else model
        self.model = model.to(self.device)
        self._threads_before = self._torch.get_num_threads()
        if self.device.type == "cpu" and self.model.num_parameters() < _ONE_THREAD_PARAMETERS:
            self._torch.set_num_threads(1)
        self._eos_ids = self._decode_greedily(transformers)

    def replies(self, prompts: Iterable[Prompt]) -> Iterator[Reply]:
        encoded, refused = self._encode(prompts)
        yield from refused
        # one thread prepares the next batch's images while this one generates
        with ThreadPoolExecutor(max_workers=1) as pool:
            batches = self._batches(encoded)
            upcoming = pool.submit(self._load, next(batches, []))
            for batch in [*batches, []]:
                items, unreadable = upcoming.result()
                upcoming = pool.submit(self._load, batch)
                yield from unreadable
                yield from self._answer(items)

    def describe(self) -> Mapping[str, str]:
        torch, device = self._torch, self.device
        family = self.maker.family
        limits = {k: str(getattr(family, k)) for k in ("min_pixels", "max_pixels") if hasattr(family, k)}
        if isinstance(family, Llava):
            limits["layout"] = family.layout
        return {
            "engine": "transformers",
            "torch": str(torch.__version__),
            "transformers": version("transformers"),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "checkpoint": f"{self._name}@{self._revision}" if self._revision else self._name,
            "threads": str(torch.get_num_threads()),
            **limits,
        }

    def close(self) -> None:
        self.model = None
        self._torch.set_num_threads(self._threads_before)
        if self.device.type == "cuda":
            self._torch.cuda.empty_cache()

    def _decode_greedily(self, transformers: Any) -> frozenset[int]:
        """Replace the checkpoint's decoding settings, of which the Hub's differ; returns its EOS ids."""
        stored = self.model.generation_config
        eos = stored.eos_token_id if stored.eos_token_id is not None else self.maker.tokenizer.eos_token_id
        ids = [eos] if isinstance(eos, int) else list(eos)
        self.model.generation_config = transformers.GenerationConfig(
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            bos_token_id=stored.bos_token_id,
            eos_token_id=ids,
            pad_token_id=self.maker.pad_token_id,
        )
        return frozenset(ids)

    def _encode(self, prompts: Iterable[Prompt]) -> tuple[list[Encoded], list[Reply]]:
        encoded: list[Encoded] = []
        refused: list[Reply] = []
        for prompt in prompts:
            try:
                encoded.append(self.maker.encode(prompt))
            except EvalkitError as error:
                refused.append(self._failed(prompt, str(error)))
        return encoded, refused

    def _batches(self, encoded: Sequence[Encoded]) -> Iterator[list[Encoded]]:
        """Batches of one max_new_tokens and of neighbours in length, longest first: memory peaks early."""
        ordered = sorted(encoded, key=lambda e: (e.prompt.max_new_tokens, len(e)), reverse=True)
        for _, group in groupby(ordered, key=lambda e: e.prompt.max_new_tokens):
            same = list(group)
            for start in range(0, len(same), self._batch_size):
                yield same[start : start + self._batch_size]

    def _load(self, batch: Sequence[Encoded]) -> tuple[list[ModelInput], list[Reply]]:
        items: list[ModelInput] = []
        unreadable: list[Reply] = []
        for encoded in batch:
            try:
                items.append(self.maker.load(encoded))
            except EvalkitError as error:
                unreadable.append(self._failed(encoded.prompt, str(error)))
        return items, unreadable

    def _answer(self, items: Sequence[ModelInput]) -> list[Reply]:
        """Replies of a batch; on a full GPU of its halves, and from then on in batches of that size."""
        size = self._batch_size  # of now: answering may lower it
        if len(items) > size:
            return [r for i in range(0, len(items), size) for r in self._answer(items[i : i + size])]
        started = time.perf_counter()
        try:
            tokens = self._generate(items) if items else []
        except self._torch.OutOfMemoryError:
            tokens = None  # handled below: here the traceback still holds the batch's tensors
        if tokens is not None:
            latency_s = (time.perf_counter() - started) / max(1, len(items))
            return [self._reply(item, new, latency_s) for item, new in zip(items, tokens, strict=True)]
        self._torch.cuda.empty_cache()
        if len(items) == 1:
            return [
                self._failed(
                    items[0].prompt,
                    f"{self._name}: out of memory on {self.device} with one prompt of "
                    f"{len(items[0].input_ids)} tokens; a smaller dtype or max_pixels needs less",
                )
            ]
        self._batch_size = (len(items) + 1) // 2
        _LOG.warning("%s: out of memory, going on in batches of %d", self._name, self._batch_size)
        return self._answer(items)

    def _generate(self, items: Sequence[ModelInput]) -> list[list[int]]:
        """New tokens of each item, up to max_new_tokens; after an EOS they are padding."""
        batch = {name: tensor.to(self.device) for name, tensor in self.maker.collate(items).items()}
        batch["pixel_values"] = batch["pixel_values"].to(self.model.dtype)
        with self._torch.inference_mode():
            out = self.model.generate(**batch, max_new_tokens=items[0].prompt.max_new_tokens)
        new: list[list[int]] = out[:, batch["input_ids"].shape[1] :].tolist()
        return new

    def _reply(self, item: ModelInput, new: list[int], latency_s: float) -> Reply:
        """output_tokens counts the EOS, as servers do."""
        end = next((i for i, token in enumerate(new) if token in self._eos_ids), None)
        answer = new if end is None else new[:end]
        text = self.maker.tokenizer.decode(
            answer, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        usage = {"input_tokens": len(item.input_ids), "output_tokens": len(new) if end is None else end + 1}
        return Reply(
            sample_id=item.prompt.sample_id,
            text=spoken(self.maker.family, text),
            finish_reason="length" if end is None else "stop",
            latency_s=latency_s,
            usage=usage,
            answered_by=self._name,
        )

    def _failed(self, prompt: Prompt, error: str) -> Reply:
        return Reply(prompt.sample_id, None, "error", 0.0, answered_by=self._name, error=error)


def _located(checkpoint: str | Path) -> tuple[str, str]:
    """What transformers loads, and the name that replies carry. Raises Unavailable for a missing folder."""
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("config.json", ADAPTER_FILE)):
            raise Unavailable(f"{folder} holds no config.json: not a checkpoint that transformers can load.")
        return str(folder), folder.name
    text = str(checkpoint)
    if isinstance(checkpoint, Path) or text.count("/") != 1 or text[0] in "./~":
        raise Unavailable(
            f"No checkpoint folder {text}. Expected a folder with config.json, or a Hub id owner/name."
        )
    return text, text


def _packages() -> tuple[Any, Any]:
    try:
        torch, transformers = import_module("torch"), import_module("transformers")
    except ImportError as error:
        raise Unavailable(f"Local models need {error.name}: pip install 'evalkit-vlm[local]'.") from None
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    return torch, transformers


def _load_model(model_class: Any, source: str, name: str, settings: Mapping[str, Any]) -> Any:
    """The model, whole: transformers only warns about absent weights and fills them with noise."""
    with loading(name, "weights"):
        model, found = model_class.from_pretrained(source, output_loading_info=True, **settings)
    if absent := sorted(found["missing_keys"]) + sorted(str(key) for key in found["mismatched_keys"]):
        raise AdapterError(
            f"{name}: {len(absent)} weights are missing or of another shape, {absent[0]} among them; "
            "the checkpoint is incomplete or not of this architecture."
        )
    return model.eval()


def _device(torch: Any, wanted: str) -> Any:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ConfigError(f"No device {wanted!r}. Allowed: auto, cpu, cuda, cuda:N.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise Unavailable(f"device {wanted!r}: this machine has no CUDA device. Use device cpu or auto.")
    return device
