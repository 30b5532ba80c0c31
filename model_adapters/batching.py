"""What adapters of a model in this process share: batches of about equal length, a full GPU, failures that stay single.

A subclass loads the model and says how a batch is generated; how a prompt becomes tensors is its maker's.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import groupby
from typing import Any, Protocol

from evalkit.errors import ConfigError, EvalkitError
from evalkit.records import Prompt, Reply

_LOG = logging.getLogger(__name__)
# A small model gains nothing from more threads, and where they contend with others' it ran 20 times slower.
_ONE_THREAD_PARAMETERS = 10_000_000


class Tokens(Protocol):
    """A tokenized prompt; its length decides which others it is batched with."""

    @property
    def prompt(self) -> Prompt: ...
    @property
    def input_ids(self) -> list[int]: ...
    def __len__(self) -> int: ...


class Maker(Protocol):
    """Prompt -> tokens -> tokens with the image's tensors -> a batch. The first two steps raise EvalkitError."""

    tokenizer: Any

    def encode(self, prompt: Prompt) -> Tokens: ...
    def load(self, encoded: Any) -> Any: ...  # with .prompt and .input_ids
    def collate(self, items: Sequence[Any]) -> dict[str, Any]: ...


class BatchedModel(ABC):
    """Replies of a loaded model, batch by batch, the longest prompts first. An Adapter.

    name: what replies carry as answered_by; eos_ids: the tokens that end an answer.
    Latencies are a batch's time divided by its size.
    """

    def __init__(
        self,
        torch: Any,
        model: Any,
        maker: Maker,
        *,
        name: str,
        revision: str | None,
        batch_size: int,
        eos_ids: frozenset[int],
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"{name}: batch_size is {batch_size}; it must be 1 or more.")
        self.model, self.maker, self.device = model, maker, model.device
        self._torch, self._name, self._revision = torch, name, revision
        self._batch_size, self._eos_ids = batch_size, eos_ids
        self._threads_before = torch.get_num_threads()
        if self.device.type == "cpu" and model.num_parameters() < _ONE_THREAD_PARAMETERS:
            torch.set_num_threads(1)

    gathers = True  # to batch what is of about equal length

    @property
    def at_once(self) -> int:
        return self._batch_size

    @abstractmethod
    def _generate(self, items: Sequence[Any]) -> list[list[int]]:
        """New tokens of each item, up to max_new_tokens; what follows an EOS is padding."""

    def _settings(self) -> Mapping[str, str]:
        """What else decided the answers, for run.json."""
        return {}

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
        return {
            "engine": "transformers",
            "torch": str(torch.__version__),
            "transformers": version("transformers"),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "checkpoint": f"{self._name}@{self._revision}" if self._revision else self._name,
            "threads": str(torch.get_num_threads()),
            **self._settings(),
        }

    def close(self) -> None:
        self.model = None
        self._torch.set_num_threads(self._threads_before)
        if self.device.type == "cuda":
            self._torch.cuda.empty_cache()

    def _encode(self, prompts: Iterable[Prompt]) -> tuple[list[Tokens], list[Reply]]:
        encoded: list[Tokens] = []
        refused: list[Reply] = []
        for prompt in prompts:
            try:
                encoded.append(self.maker.encode(prompt))
            except EvalkitError as error:
                refused.append(self._failed(prompt, str(error)))
        return encoded, refused

    def _batches(self, encoded: Sequence[Tokens]) -> Iterator[list[Tokens]]:
        """Batches of one max_new_tokens and of neighbours in length, longest first: memory peaks early."""
        ordered = sorted(encoded, key=lambda e: (e.prompt.max_new_tokens, len(e)), reverse=True)
        for _, group in groupby(ordered, key=lambda e: e.prompt.max_new_tokens):
            same = list(group)
            for start in range(0, len(same), self._batch_size):
                yield same[start : start + self._batch_size]

    def _load(self, batch: Sequence[Tokens]) -> tuple[list[Any], list[Reply]]:
        items: list[Any] = []
        unreadable: list[Reply] = []
        for encoded in batch:
            try:
                items.append(self.maker.load(encoded))
            except EvalkitError as error:
                unreadable.append(self._failed(encoded.prompt, str(error)))
        return items, unreadable

    def _answer(self, items: Sequence[Any]) -> list[Reply]:
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
            reason = (
                f"{self._name}: out of memory on {self.device} with one prompt of "
                f"{len(items[0].input_ids)} tokens; a smaller dtype needs less"
            )
            return [self._failed(items[0].prompt, reason)]
        self._batch_size = (len(items) + 1) // 2
        _LOG.warning("%s: out of memory, going on in batches of %d", self._name, self._batch_size)
        return self._answer(items)

    def _reply(self, item: Any, new: list[int], latency_s: float) -> Reply:
        """output_tokens counts the EOS, as servers do."""
        end = next((i for i, token in enumerate(new) if token in self._eos_ids), None)
        return Reply(
            sample_id=item.prompt.sample_id,
            text=self._text(new if end is None else new[:end]),
            finish_reason="length" if end is None else "stop",
            latency_s=latency_s,
            usage={
                "input_tokens": len(item.input_ids),
                "output_tokens": len(new) if end is None else end + 1,
            },
            answered_by=self._name,
        )

    def _text(self, answer: Sequence[int]) -> str:
        decoded: str = self.maker.tokenizer.decode(
            answer, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return decoded

    def _failed(self, prompt: Prompt, error: str) -> Reply:
        return Reply(prompt.sample_id, None, "error", 0.0, answered_by=self._name, error=error)
