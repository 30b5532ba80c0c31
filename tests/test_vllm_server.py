"""vLLM's server, asked by the plain openai SDK: the prompts and the greedy tokens of transformers."""

import base64
import os
import shutil
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import pytest
from vllm_support import MARKS, PROMPTS, by_transformers, comparable, prompts_of, trained

from evalkit.datasets.build import build
from evalkit.errors import AdapterError
from model_adapters.tiny import tiny_checkpoint
from model_adapters.vllm_server import VllmServer, messages_for

openai = pytest.importorskip("openai")

pytestmark = MARKS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    build("grid_patch", folder, n=100)
    return folder


def ask(client, server, prompt, **changes):
    png = BytesIO()
    server.opened.maker.sized_image(prompt).save(png, "PNG")
    url = "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
    return client.chat.completions.create(
        model=server.model_name,
        messages=messages_for(server.opened.maker.family, prompt.text, url),
        temperature=0,
        max_completion_tokens=prompt.max_new_tokens,
        extra_body=server.request_extras() | changes,
    )


@pytest.mark.parametrize(
    ("family", "tuned", "options"),
    [
        ("qwen2_5_vl", False, {"min_pixels": 8 * 28 * 28, "max_pixels": 20 * 28 * 28}),
        ("llava", True, {"layout": "crop"}),  # a LoRA adapter, applied unmerged
    ],
)
def test_a_served_checkpoint_answers_as_in_transformers(family, tuned, options, data, tmp_path, tiny_cache):
    checkpoint = tiny_checkpoint(family, tiny_cache)
    if tuned:
        folder = tmp_path / "tuned"
        checkpoint = trained(family, family, data, folder, tiny_cache, tuning="lora", export="adapter")
    prompts = prompts_of(data, family)
    ours = by_transformers(checkpoint, family, prompts, **options)
    theirs = {}
    with VllmServer(checkpoint, family, **options) as server:
        client = openai.OpenAI(base_url=server.start(), api_key="none", max_retries=0)
        for prompt in prompts:
            response = ask(client, server, prompt)
            server.check(prompt, response)
            choice, usage = response.choices[0], response.usage
            reply, _ = ours[prompt.sample_id]
            again = server.opened.reply(prompt, usage.prompt_tokens, choice.token_ids, 0.0)
            theirs[prompt.sample_id] = comparable(again), choice.token_ids
            # what the server itself says, without a look at its tokens
            assert (choice.message.content, choice.finish_reason) == (reply["text"], reply["finish_reason"])
            assert usage.completion_tokens == reply["usage"]["output_tokens"]
            assert response.model == reply["answered_by"]
        if family == "llava":
            without = ask(client, server, prompts[0], add_special_tokens=False)
            with pytest.raises(
                AdapterError, match=r"differs from transformers' at token 0: .* '<s>' is meant"
            ):
                server.check(prompts[0], without)
    assert len(theirs) == PROMPTS
    assert theirs == ours


def test_a_server_that_dies_is_one_line(tiny_cache):
    with pytest.raises(
        AdapterError, match=r"llava-\w+: vLLM's server ended while starting \(.*99999"
    ) as error:
        VllmServer(tiny_checkpoint("llava", tiny_cache), "llava", max_model_len=99999).start()
    assert "\n" not in str(error.value)
    log = Path(str(error.value).rpartition("Log: ")[2])
    assert "Traceback" in log.read_text(encoding="utf-8")
    shutil.rmtree(log.parent)


def test_a_server_that_is_not_ready_in_time_is_stopped(tiny_cache):
    server = VllmServer(tiny_checkpoint("llava", tiny_cache), "llava")
    with pytest.raises(AdapterError, match="did not answer in time"):
        server.start(ready_within_s=1.0)
    server.close()
    assert not Path(server._log.path).exists()


SCRIPT = """
import sys
from model_adapters.vllm_server import VllmServer
if __name__ == "__main__":
    with VllmServer(sys.argv[1], "llava") as server:
        server.start()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_the_server_ends_with_the_run_even_while_it_starts(tiny_cache, tmp_path, end):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    run = subprocess.Popen(
        [sys.executable, script, tiny_checkpoint("llava", tiny_cache)],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(Path.cwd()), "TMPDIR": str(tmp_path)},
    )
    deadline = time.monotonic() + 60
    while not (found := servers(tiny_cache)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(found) == 1
    time.sleep(1)
    run.send_signal(end)
    run.wait(30)
    deadline = time.monotonic() + 10
    while servers(tiny_cache) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert servers(tiny_cache) == []


def servers(cache):
    """The processes that serve a checkpoint of this test's own cache."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"vllm.entrypoints.openai.api_server" in words and any(str(cache).encode() in w for w in words):
            found.append(int(process.name))
    return found
