"""A local checkpoint through vLLM, in processes of this run: continuous batching over all prompts.

vLLM is given token ids and images that need no resize (see checkpoint_inputs), so that its prompts are those
of transformers; what it made of them is compared with what was meant, and the first difference ends the run.
Greedy tokens are equal to transformers' in float32; in half precision rounding may tip a near tie.
"""

import asyncio
import os
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evalkit.errors import AdapterError, EvalkitError
from evalkit.records import Prompt, Reply
from model_adapters.checkpoint_inputs import OpenCheckpoint, open_checkpoint
from model_adapters.child_processes import Guard, Log, environment, gist, one_line, output_into, waiting
from model_adapters.vllm_settings import (
    VllmOptions,
    arguments,
    hush_vllm,
    require_vllm,
    start_environment,
    vllm_version,
)

# Prompts under way for each copy of the model: enough for its batches, few enough for memory, where each
# holds its image (up to 25 MB for Qwen2.5-VL, 1.4 MB for LLaVA).
_IN_FLIGHT = 128
_ARGUMENTS, _ENGINE = "vllm.engine.arg_utils", "vllm.v1.engine.async_llm"


class EngineStopped(AdapterError):
    """The engine has died, or was told to end."""


class VllmEngine:
    """Replies of a local model, each yielded as it is finished. Options: see VllmOptions.

    checkpoint: a folder (whole model, or a LoRA adapter that vLLM applies unmerged) or a Hub id.
    latency_s is the time from a prompt's hand-over to its reply, waiting for a place in a batch included.
    """

    gathers = False

    def __init__(self, checkpoint: str | Path, family: str, **options: Any) -> None:
        chosen = VllmOptions(**options)
        on_cpu = _import_vllm()
        self._opened = open_checkpoint(checkpoint, family, **chosen.inputs)
        settings = arguments(self._opened, chosen, on_cpu=on_cpu)
        variables = start_environment(self._opened, chosen, on_cpu=on_cpu)
        self._log, self._guard, self._closed = Log("vllm-engine"), Guard(), False
        self._keep_log = False
        self._engine = self._start(settings, variables)
        self._lora = self._lora_request()
        running = min(_IN_FLIGHT, 2 * self._engine.scheduler_config.max_num_seqs)
        self.at_once = running * chosen.data_parallel_size
        self._parallel = (chosen.tensor_parallel_size, chosen.data_parallel_size)
        self._asked, self._asking = 0, set[asyncio.Task[None]]()
        # vLLM's engine belongs to one event loop for life
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()

    def replies(self, prompts: Iterable[Prompt]) -> Iterator[Reply]:
        """Prompts are drawn as there is room; closing the iterator aborts what is under way."""
        out: queue.SimpleQueue[Reply | BaseException | None] = queue.SimpleQueue()
        asyncio.run_coroutine_threadsafe(self._ask_all(iter(prompts), out), self._loop)
        ended = False
        try:
            while (item := out.get()) is not None:
                if isinstance(item, BaseException):
                    self._keep_log = isinstance(item, EngineStopped)
                    raise item
                yield item
            ended = True
        finally:
            if not ended and not self._closed:
                self._abort()

    def describe(self) -> Mapping[str, str]:
        platform = import_module("vllm.platforms").current_platform
        return {
            "engine": "vllm",
            "vllm": vllm_version(),
            "torch": str(import_module("torch").__version__),
            "transformers": version("transformers"),
            "device": str(platform.get_device_name()),
            "dtype": str(self._engine.model_config.dtype).removeprefix("torch."),
            "tensor_parallel_size": str(self._parallel[0]),
            "data_parallel_size": str(self._parallel[1]),
            "max_model_len": str(self._engine.model_config.max_model_len),
            **self._opened.described(),
        }

    def close(self) -> None:
        """Stop the engine's processes. A second call does nothing."""
        if self._closed:
            return
        self._abort()
        self._closed = True
        with output_into(self._log.path):
            self._engine.shutdown()
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._engine = None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._guard.close()
        if not self._keep_log:
            self._log.remove()

    def _abort(self) -> None:
        """Abort every prompt under way, and wait until vLLM has been told."""

        async def abort() -> None:
            for task in (asking := list(self._asking)):
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(abort(), self._loop).result()

    def _start(self, settings: Mapping[str, Any], variables: Mapping[str, str]) -> Any:
        name = self._opened.name
        try:
            with (
                waiting(f"{name}: loading into vLLM"),
                environment(variables),
                output_into(self._log.path),
                self._guard.watching_children(),
            ):
                engine_args, engine = (
                    import_module(_ARGUMENTS).AsyncEngineArgs,
                    import_module(_ENGINE).AsyncLLM,
                )
                started = engine.from_engine_args(engine_args(**settings, disable_log_stats=True))
        except (RuntimeError, ValueError, OSError, ImportError, KeyError) as error:
            self._guard.close()
            found = self._log.error() or f"{type(error).__name__}: {gist(str(error))}"
            raise AdapterError(f"{name}: vLLM cannot load it ({found}). Log: {self._log.path}") from None
        except BaseException:
            self._guard.close()
            self._log.remove()
            raise
        hush_vllm()
        return started

    def _lora_request(self) -> Any:
        opened = self._opened
        if opened.adapter is None:
            return None
        return import_module("vllm.lora.request").LoRARequest(opened.name, 1, opened.adapter)

    async def _ask_all(self, prompts: Iterator[Prompt], out: "queue.SimpleQueue[Any]") -> None:
        """Replies, an error if one ends the run, and at last None."""
        task = asyncio.current_task()
        assert task is not None
        self._asking.add(task)
        drawing = asyncio.Lock()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.at_once):
                    group.create_task(self._work(prompts, drawing, out))
        except* BaseException as errors:  # noqa: BLE001 - raised again in the caller's thread
            out.put(errors.exceptions[0])
        finally:
            self._asking.discard(task)
            out.put(None)

    async def _work(
        self, prompts: Iterator[Prompt], drawing: asyncio.Lock, out: "queue.SimpleQueue[Any]"
    ) -> None:
        while (prompt := await _drawn(prompts, drawing)) is not None:
            out.put(await self._reply(prompt))

    async def _reply(self, prompt: Prompt) -> Reply:
        started = time.perf_counter()
        try:
            input_ids, request = await asyncio.to_thread(self._prepare, prompt)
        except EvalkitError as error:
            return self._opened.failed(prompt, str(error))
        self._asked += 1
        exceptions = import_module("vllm.v1.engine.exceptions")
        try:
            done = await self._generate(request, prompt.max_new_tokens, f"{prompt.sample_id}-{self._asked}")
        except exceptions.EngineDeadError:
            raise self._stopped() from None
        except (exceptions.EngineGenerateError, ValueError) as error:
            reason = one_line(str(error.__cause__ or error)) or type(error).__name__
            return self._opened.failed(prompt, f"{self._opened.name}: vLLM refused the prompt ({reason}).")
        if done.outputs[0].finish_reason not in (
            "stop",
            "length",
        ):  # what a dying engine says of the unfinished
            raise self._stopped()
        check_prompt_ids(self._opened, prompt, done.prompt_token_ids, input_ids)
        new = list(done.outputs[0].token_ids)
        return self._opened.reply(prompt, len(input_ids), new, time.perf_counter() - started)

    def _stopped(self) -> "EngineStopped":
        found = self._log.error() or "without an error: it was killed, perhaps for memory"
        return EngineStopped(
            f"{self._opened.name}: vLLM's engine stopped ({found}). Log: {self._log.path}. "
            "The same command goes on with what has no answer yet."
        )

    def _prepare(self, prompt: Prompt) -> tuple[list[int], dict[str, Any]]:
        """The prompt's ids as transformers would see them, and what vLLM makes the same of. Raises EvalkitError."""
        maker = self._opened.maker
        input_ids = maker.encode(prompt).input_ids
        longest = self._engine.model_config.max_model_len
        require_room(self._opened, prompt, len(input_ids), longest)
        return input_ids, {
            "prompt_token_ids": maker.bare_ids(prompt),
            "multi_modal_data": {"image": maker.sized_image(prompt)},
        }

    async def _generate(self, request: dict[str, Any], max_new_tokens: int, request_id: str) -> Any:
        """vLLM's finished output. Only the checkpoint's EOS tokens end it; text is decoded as elsewhere here."""
        sampling = import_module("vllm.sampling_params")
        params = sampling.SamplingParams(
            temperature=0.0,
            max_tokens=max_new_tokens,
            ignore_eos=True,
            stop_token_ids=sorted(self._opened.eos_ids),
            detokenize=False,
            output_kind=sampling.RequestOutputKind.FINAL_ONLY,
        )
        engine = self._engine
        parse = import_module("vllm.renderers.inputs.preprocess").parse_model_prompt
        (rendered,) = await engine.renderer.render_cmpl_async([parse(engine.model_config, request)])
        outputs = engine.generate(rendered, params, request_id, lora_request=self._lora)
        return [output async for output in outputs][-1]


def _import_vllm() -> bool:
    """Whether vLLM runs on the CPU here. Raises Unavailable.

    Not where the engine is made: vLLM keeps the tracebacks of its imports that fail, and with them the frames
    of their callers and what those hold.
    """
    on_cpu = require_vllm()
    with output_into(os.devnull):
        for module in (_ARGUMENTS, _ENGINE):
            import_module(module)
    return on_cpu


async def _drawn(prompts: Iterator[Prompt], drawing: asyncio.Lock) -> Prompt | None:
    """The next prompt. Drawing it may wait for one to come: in a thread, and in one alone."""
    async with drawing:
        return await asyncio.to_thread(next, prompts, None)


async def _cancel_others() -> None:
    """End every other task of this event loop: vLLM leaves its own behind."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def check_prompt_ids(
    opened: OpenCheckpoint, prompt: Prompt, found: Sequence[int] | None, wanted: Sequence[int]
) -> None:
    """Raise AdapterError, with the first difference, unless vLLM's prompt is transformers', token by token."""
    found = list(found or ())
    if found == list(wanted):
        return
    at = next(
        (i for i, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]),
        min(len(found), len(wanted)),
    )
    here = [ids[at] if at < len(ids) else "its end" for ids in (found, wanted)]
    tokenizer = opened.maker.tokenizer
    words = [repr(tokenizer.convert_ids_to_tokens(i)) if isinstance(i, int) else "" for i in here]
    raise AdapterError(
        f"{opened.name}: vLLM's prompt for {prompt.sample_id} differs from transformers' at token {at}: "
        f"{here[0]} {words[0]} where {here[1]} {words[1]} is meant ({len(found)} and {len(wanted)} tokens). "
        "Its answers would not compare: run it with --engine hf_local."
    )


def require_room(opened: OpenCheckpoint, prompt: Prompt, n_input: int, longest: int) -> None:
    """Raise AdapterError where a prompt and its answer do not fit."""
    if n_input + prompt.max_new_tokens > longest:
        raise AdapterError(
            f"{opened.name}: the prompt of {prompt.sample_id} has {n_input} tokens and its answer up to "
            f"{prompt.max_new_tokens}; max_model_len is {longest}. Raise max_model_len, or lower max_pixels."
        )
