"""The vLLM engine around its answers: what is refused, aborted, noticed, and left behind (nothing)."""

import contextlib
import dataclasses
import gc
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing import active_children
from pathlib import Path

import pytest
from vllm_support import MARKS, RecordedEngine, answers, by_transformers, comparable, prompts_of

from evalkit.datasets.build import build
from evalkit.errors import AdapterError, ConfigError, Unavailable
from model_adapters.tiny import tiny_checkpoint
from model_adapters.vllm_engine import VllmEngine

pytestmark = MARKS

LIMITS = {"min_pixels": 16 * 28 * 28, "max_pixels": 40 * 28 * 28}  # the checkpoint's: 4 and 16


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    build("grid_patch", folder, n=200)
    return folder


@pytest.fixture(autouse=True)
def collected():
    """vLLM leaves sockets to the collector, which would complain after the last test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def qwen(tiny_cache):
    """Whose limits of pixels are not its checkpoint's, and whose prompts may be 512 tokens long."""
    engine = RecordedEngine(
        tiny_checkpoint("qwen2_5_vl", tiny_cache), "qwen2_5_vl", max_model_len=512, **LIMITS
    )
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def llava(tiny_cache):
    engine = RecordedEngine(tiny_checkpoint("llava", tiny_cache), "llava", layout="crop")
    yield engine
    engine.close()


def test_declared_limits_of_pixels_are_those_of_vllm(qwen, data, tiny_cache):
    prompts = prompts_of(data, "qwen2_5_vl")
    checkpoint = tiny_checkpoint("qwen2_5_vl", tiny_cache)
    ours = by_transformers(checkpoint, "qwen2_5_vl", prompts, **LIMITS)
    assert qwen.recorded(prompts) == ours
    few = by_transformers(checkpoint, "qwen2_5_vl", prompts[:1])
    more = [reply["usage"]["input_tokens"] for reply, _ in (*few.values(), ours[prompts[0].sample_id])]
    assert more[0] < more[1]  # so the limits were not the checkpoint's


def test_llava_cropped_as_transformers_crops(llava, data, tiny_cache):
    prompts = prompts_of(data, "llava")
    ours = by_transformers(tiny_checkpoint("llava", tiny_cache), "llava", prompts, layout="crop")
    assert llava.recorded(prompts) == ours


def test_it_says_what_answered_and_on_what(qwen, llava):
    found = qwen.describe()
    assert found | {"engine": "vllm", "device": "cpu", "dtype": "float32", "max_model_len": "512"} == found
    assert found["checkpoint"].startswith("qwen2_5_vl-")
    assert (found["min_pixels"], found["max_pixels"]) == ("12544", "31360")
    assert llava.describe()["layout"] == "crop"


def test_an_image_that_cannot_be_read_and_a_prompt_that_does_not_fit_are_one_failed_reply_each(
    qwen, data, tmp_path
):
    good, other, third = prompts_of(data, "qwen2_5_vl", 3)
    broken = tmp_path / "broken.png"
    broken.write_bytes(good.image_path.read_bytes()[:200])
    unreadable = dataclasses.replace(other, image_path=broken)
    too_long = dataclasses.replace(third, text=third.text + " red" * 500)
    found = answers(qwen.replies([unreadable, good, too_long]))
    assert found[good.sample_id]["text"] is not None
    assert (found[other.sample_id]["text"], found[other.sample_id]["finish_reason"]) == (None, "error")
    assert f"{broken}: the image cannot be opened" in found[other.sample_id]["error"]
    assert found[third.sample_id]["text"] is None
    assert "max_model_len is 512" in found[third.sample_id]["error"]


def test_prompts_are_drawn_as_there_is_room_and_an_early_close_aborts(qwen, data):
    prompts, drawn = prompts_of(data, "qwen2_5_vl", 40), 0

    def endless():
        nonlocal drawn
        while True:
            drawn += 1
            yield dataclasses.replace(
                prompts[drawn % 40], sample_id=str(drawn), max_new_tokens=300, text="Count: 1 2 3"
            )

    replies = qwen.replies(endless())
    first = next(replies)
    at_first = drawn
    replies.close()
    assert first.text is not None
    assert at_first <= 2 * 16 + 16  # two batches, and what replaced the finished
    assert qwen._engine.get_num_unfinished_requests() == 0
    assert drawn <= at_first + 2 * 16  # none drawn for what was aborted
    assert len(answers(qwen.replies(prompts[:5]))) == 5  # and it goes on answering


def test_an_error_of_the_prompts_iterator_reaches_the_caller(qwen, data):
    def broken():
        yield from prompts_of(data, "qwen2_5_vl", 1)
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError, match="ours"):
        list(qwen.replies(broken()))


@pytest.mark.parametrize("change", ["no BOS", "another word", "one token more"])
def test_a_prompt_that_vllm_sees_otherwise_ends_the_run(llava, data, monkeypatch, change):
    maker = llava._opened.maker
    ids = maker.bare_ids
    changed = {
        "no BOS": lambda prompt: ids(prompt)[1:],
        "another word": lambda prompt: [*ids(prompt)[:-1], ids(prompt)[-1] - 1],
        "one token more": lambda prompt: [*ids(prompt), 20],
    }
    at = {"no BOS": 0, "another word": len(maker.encode(prompts_of(data, "llava", 1)[0]).input_ids) - 1}
    encode = maker.encode
    whole = {p.sample_id: encode(p) for p in prompts_of(data, "llava", 4)}
    monkeypatch.setattr(type(maker), "encode", lambda self, prompt: whole[prompt.sample_id])
    monkeypatch.setattr(type(maker), "bare_ids", lambda self, prompt: changed[change](prompt))
    with pytest.raises(AdapterError, match="differs from transformers'") as error:
        list(llava.replies(prompts_of(data, "llava", 4)))
    length = len(next(iter(whole.values())).input_ids)
    assert f"at token {at.get(change, length)}:" in str(error.value)
    assert "--engine hf_local" in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_that_cannot_be_loaded_are_one_line(tiny_cache, tmp_path, capfd):
    folder = tmp_path / "half"
    folder.mkdir()
    for path in tiny_checkpoint("llava", tiny_cache).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AdapterError, match=r"half: vLLM cannot load it \(.*[Ss]afetensor") as error:
        VllmEngine(folder, "llava")
    assert "\n" not in str(error.value)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    log = Path(str(error.value).rpartition("Log: ")[2])
    assert "Traceback" in log.read_text(encoding="utf-8")
    shutil.rmtree(log.parent)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_an_engine_that_stops_gives_no_empty_replies(data, tiny_cache, end):
    """As by Ctrl-C, which the terminal sends to it too: what it leaves unfinished has no answer."""
    prompt = prompts_of(data, "llava", 1)[0]
    others = set(active_children())
    engine = VllmEngine(tiny_checkpoint("llava", tiny_cache), "llava")
    (core,) = [child for child in set(active_children()) - others if child.name == "EngineCore"]
    prompts = (dataclasses.replace(prompt, sample_id=str(i)) for i in range(100_000))
    replies = engine.replies(prompts)
    whole = comparable(next(replies)) | {"sample_id": None}
    os.kill(core.pid, end)
    rest = []
    with pytest.raises(AdapterError, match=r"llava-\w+: vLLM's engine stopped \(") as error:
        rest.extend(comparable(reply) for reply in replies)
    assert all(reply | {"sample_id": None} == whole for reply in rest)
    assert "\n" not in str(error.value)
    engine.close()
    shutil.rmtree(Path(re.search(r"Log: (\S+)\.", str(error.value)).group(1)).parent)


@pytest.mark.parametrize(
    ("family", "options", "kind", "message"),
    [
        ("qwen2_5_vl", {}, AdapterError, "config.json says 'llava'"),
        ("llava", {"dtype": "int8"}, ConfigError, "no dtype 'int8'. Allowed: auto, float32"),
        ("llava", {"max_pixels": 9}, ConfigError, "max_pixels are for qwen2_5_vl"),
        ("blip", {}, ConfigError, "No local family named 'blip'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(tiny_cache, family, options, kind, message):
    with pytest.raises(kind, match=message):
        VllmEngine(tiny_checkpoint("llava", tiny_cache), family, **options)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(Unavailable, match="No checkpoint folder"):
        VllmEngine(tmp_path / "absent", "llava")


SCRIPT = """
import sys
from model_adapters.vllm_engine import VllmEngine
if __name__ == "__main__":
    engine = VllmEngine(sys.argv[1], "llava")
    print("up", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def short_path():
    """vLLM's sockets live in the temporary folder, and a socket's path may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="ek-") as folder:
        yield folder


def test_a_kill_of_the_run_leaves_no_engine_behind(tiny_cache, tmp_path, short_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    run = subprocess.Popen(
        [sys.executable, script, tiny_checkpoint("llava", tiny_cache)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(Path.cwd()), "TMPDIR": short_path},
    )  # fmt: skip
    assert run.stdout.readline() == "up\n"
    engines = [pid for pid in children_of(run.pid) if "EngineCore" in command(pid)]
    assert engines
    run.send_signal(signal.SIGKILL)
    run.communicate()
    deadline = time.monotonic() + 10
    while any(command(pid) for pid in engines) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [command(pid) for pid in engines] == [""] * len(engines)


def children_of(pid):
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (process / "stat").read_text(encoding="ascii").rpartition(") ")[2].split()
            found += [int(process.name)] if fields[1] == str(pid) else []
    return found


def command(pid):
    """A process's command line; nothing once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
    except OSError:
        return ""
