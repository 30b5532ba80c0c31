"""One copy of a model, as it runs in a worker: prompts go in, replies come out, each through a queue.

Nothing here knows of Ray, which calls the methods from several threads.
"""

import queue
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from evalkit.records import Prompt, Reply
from model_adapters.loading import load_adapter
from model_adapters.registry import ModelEntry

_ROUND_BATCHES = 4  # what a model that sorts its prompts by length is handed at once
_LEAST_WINDOW = 16  # the way there and back takes as long as a quick model's answer


@dataclass(frozen=True, slots=True)
class Parcel:
    """A prompt and, for a worker on another machine, the bytes of its image file."""

    prompt: Prompt
    image: bytes | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """description: see Adapter.describe. window: how many prompts keep the copy busy."""

    description: Mapping[str, str]
    window: int


class Replica:
    """A model that answers what it is given, until its process ends."""

    def __init__(self) -> None:
        self._in: queue.SimpleQueue[Prompt] = queue.SimpleQueue()
        self._out: queue.SimpleQueue[Reply | Exception] = queue.SimpleQueue()
        self._images: dict[str, Path] = {}
        self._folder: Any = None
        self._adapter: Any = None

    def load(self, entry: ModelEntry) -> Loaded:
        """Load the model. Raises AdapterError."""
        self._adapter = load_adapter(entry)
        at_once: int = self._adapter.at_once
        threading.Thread(target=self._serve, name="replica", daemon=True).start()
        rounds = _ROUND_BATCHES * at_once if self._adapter.gathers else at_once
        return Loaded(self._adapter.describe(), max(_LEAST_WINDOW, 2 * rounds))

    def give(self, parcels: Sequence[Parcel]) -> None:
        """Ask these too."""
        for parcel in parcels:
            self._in.put(self._unpacked(parcel))

    def take(self, patience_s: float = 10.0) -> list[Reply]:
        """What has been answered since; waits a while for the first. Raises what ended the model."""
        found: list[Reply] = []
        with suppress(queue.Empty):
            item = self._out.get(timeout=patience_s)
            while True:
                if isinstance(item, Exception):
                    if not found:
                        raise item
                    self._out.put(item)  # for the next call: it is the last there is
                    break
                found.append(item)
                item = self._out.get_nowait()
        for reply in found:
            if image := self._images.pop(reply.sample_id, None):
                image.unlink(missing_ok=True)
        return found

    def close(self) -> None:
        """End the processes that the model has started."""
        if self._adapter is not None:
            self._adapter.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _unpacked(self, parcel: Parcel) -> Prompt:
        if parcel.image is None:
            return parcel.prompt
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="evalkit-images-", ignore_cleanup_errors=True)
        path = Path(self._folder.name) / (uuid4().hex + parcel.prompt.image_path.suffix)
        path.write_bytes(parcel.image)
        self._images[parcel.prompt.sample_id] = path
        return replace(parcel.prompt, image_path=path)

    def _serve(self) -> None:
        try:
            for prompts in self._rounds():
                for reply in self._adapter.replies(prompts):
                    self._out.put(reply)
        except Exception as error:  # noqa: BLE001 - raised again where the replies are taken
            self._out.put(error)

    def _rounds(self) -> Iterator[Iterator[Prompt] | list[Prompt]]:
        """One endless stream; lists for a model that draws all its prompts before it answers the first."""
        if not self._adapter.gathers:
            yield self._stream()
            return
        most = _ROUND_BATCHES * self._adapter.at_once
        while True:
            prompts = [self._in.get()]
            with suppress(queue.Empty):
                while len(prompts) < most:
                    prompts.append(self._in.get_nowait())
            yield prompts

    def _stream(self) -> Iterator[Prompt]:
        while True:
            yield self._in.get()
