"""vLLM's OpenAI server as a child process, and what its requests must say for prompts equal to transformers'."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from evalkit.errors import AdapterError, Unavailable
from evalkit.records import Prompt
from model_adapters.checkpoint_inputs import open_checkpoint
from model_adapters.child_processes import Guard, Log, waiting
from model_adapters.families import Family, messages
from model_adapters.vllm_engine import check_prompt_ids
from model_adapters.vllm_settings import (
    VllmOptions,
    arguments,
    command_line,
    require_vllm,
    start_environment,
)

_READY_WITHIN_S = 1800.0  # a large checkpoint from a slow disk; a server that dies is noticed at once
_STOP_WITHIN_S = 10.0


class VllmServer:
    """A server of one checkpoint on a free port of this machine, for as long as the context lasts.

    Options as of VllmEngine, see VllmOptions. It runs in a process group of its own, which is ended by close()
    and, should this process be killed, by a guard.

    opened:     the checkpoint's inputs: maker.sized_image is the image to send, maker.encode the ids to expect.
    model_name: what requests ask for.
    """

    def __init__(self, checkpoint: str | Path, family: str, **options: Any) -> None:
        chosen = VllmOptions(**options)
        on_cpu = require_vllm()
        self.opened = open_checkpoint(checkpoint, family, **chosen.inputs)
        self.model_name = self.opened.name
        self._arguments = arguments(self.opened, chosen, on_cpu=on_cpu)
        self._variables = start_environment(self.opened, chosen, on_cpu=on_cpu)
        self._log: Log | None = None
        self._guard: Guard | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, ready_within_s: float = _READY_WITHIN_S) -> str:
        """The URL of the API, http://127.0.0.1:PORT/v1, once it answers. Raises AdapterError."""
        port = _free_port()
        self._log, self._guard = Log("vllm-server"), Guard()
        with self._log.path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(port),
                env=self._variables | os.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard.watch([-self._process.pid])
        try:
            with waiting(f"{self.model_name}: vLLM's server is starting"):
                self._wait(f"http://127.0.0.1:{port}/health", time.monotonic() + ready_within_s)
        except AdapterError:
            self._stop()  # its log stays, for the message names it
            raise
        except BaseException:
            self.close()
            raise
        return f"http://127.0.0.1:{port}/v1"

    def close(self) -> None:
        """Stop the server and all it has started. A second call does nothing."""
        self._stop()
        if self._log is not None:
            self._log.remove()

    def request_extras(self) -> dict[str, Any]:
        """The `extra_body` of a chat request to this server."""
        return chat_request_extras(self.opened.eos_ids)

    def check(self, prompt: Prompt, response: Any) -> None:
        """Raise AdapterError unless a chat completion's prompt is what transformers would have been given."""
        wanted = self.opened.maker.encode(prompt).input_ids
        check_prompt_ids(self.opened, prompt, response.prompt_token_ids, wanted)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _command(self, port: int) -> list[str]:
        served = {"host": "127.0.0.1", "port": port, "served_model_name": self.model_name}
        if self.opened.adapter is not None:
            served["served_model_name"] = f"{self.model_name}-base"
            served["lora_modules"] = {"name": self.model_name, "path": self.opened.adapter}
        module = "vllm.entrypoints.openai.api_server"  # the `vllm` command is not in every build
        return [sys.executable, "-m", module, *command_line(self._arguments | served)]

    def _wait(self, url: str, deadline: float) -> None:
        opener = build_opener(ProxyHandler({}))  # a proxy has no business on this machine
        assert self._process is not None
        assert self._log is not None
        while True:
            with suppress(URLError, OSError), opener.open(url, timeout=5):
                return
            if self._process.poll() is not None:
                found = self._log.error() or self._log.last_line() or "without a word"
                raise AdapterError(
                    f"{self.model_name}: vLLM's server ended while starting ({found}). Log: {self._log.path}"
                )
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{self.model_name}: vLLM's server did not answer in time. Log: {self._log.path}"
                )
            time.sleep(0.3)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _signal_group(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_WITHIN_S)
            _signal_group(process.pid, signal.SIGKILL)  # whatever of the group is left
            process.wait()
        if self._guard is not None:
            self._guard.close()
            self._guard = None


def chat_request_extras(stop_token_ids: Iterable[int] = ()) -> dict[str, Any]:
    """What a chat request to vLLM must say besides the API's own parameters, as the SDK's `extra_body`.

    add_special_tokens: vLLM leaves out LLaVA's BOS, which its template leaves to the tokenizer.
    stop_token_ids:     the checkpoint's EOS tokens, instead of the tokenizer's one.
    Limits of pixels are not among them: vLLM takes those at its start only.
    """
    extras: dict[str, Any] = {
        "add_special_tokens": True,
        "return_token_ids": True,
        "repetition_penalty": 1.0,
    }
    stop = sorted(stop_token_ids)
    return extras | ({"ignore_eos": True, "stop_token_ids": stop} if stop else {})


def messages_for(family: Family, prompt_text: str, image_data_url: str) -> list[dict[str, Any]]:
    """One image and one question as the OpenAI API takes them; a chat template renders them like `messages`."""
    image = {"type": "image_url", "image_url": {"url": image_data_url}}
    return [
        message | {"content": [image if part["type"] == "image" else part for part in message["content"]]}
        for message in messages(family, prompt_text)
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)
