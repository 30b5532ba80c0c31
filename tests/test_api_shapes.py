"""Answers as compatible servers really shape them, and what may and may not leave this machine."""

import asyncio
import json
import threading

import pytest
from support import cli

pytest.importorskip("aiohttp", reason="the `api` extra is not installed")
pytest.importorskip("openai", reason="the `api` extra is not installed")
pytest.importorskip("google.genai", reason="the `api` extra is not installed")
pytest.importorskip("tenacity", reason="the `api` extra is not installed")

from aiohttp import web
from openai.types.chat import ChatCompletion

from evalkit.records import Prompt
from model_adapters.asking import redacted
from model_adapters.checkpoints import api_key, missing
from model_adapters.faults import server_delay_s
from model_adapters.gemini_faults import fault_of
from model_adapters.openai_api import reply_of
from model_adapters.registry import ModelEntry
from model_adapters.retry import Fault, Treatment
from model_adapters.settings import setting_fault

KEY = "sk-secret-9876543210"
PROMPT = Prompt("s", "q", None, (8, 8), 16, "0" * 64)


def completion(message=None, finish="stop", **more):
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **(message or {})}}
    return ChatCompletion.construct(**{"choices": [choice], "model": "m", **more})


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (completion({"content": "{3}"}), ("{3}", "stop")),
        (completion({"content": ""}), ("", "stop")),
        (
            completion({"content": [{"type": "text", "text": "{"}, {"type": "text", "text": "3}"}]}),
            ("{3}", "stop"),
        ),
        (completion({"content": [{"type": "image"}]}), ("", "stop")),
        (completion({"content": None}, "length"), ("", "length")),  # all of it went into reasoning
        (completion({"content": "half"}, "length"), ("half", "length")),
        (completion({"content": "{3}"}, "eos_token"), ("{3}", "stop")),  # a word of a server's own
        (completion({"content": None, "refusal": "I cannot."}), ("I cannot.", "content_filter")),
        (completion({"content": "{3}", "refusal": {"no": 1}}), ("{3}", "stop")),
        (completion({"content": "\ud800"}), ("\ud800", "stop")),
        (completion({"content": "{"}, "abort"), None),  # a vLLM that is being stopped
        (completion({"content": None}), None),
        (completion({"content": 3}), None),
        (ChatCompletion.construct(choices=[None]), None),
        (ChatCompletion.construct(choices=["{3}"]), None),
        (completion({"content": None}, "\x1b[31m" + "z" * 9999), None),
        (ChatCompletion.construct(choices=[]), None),
        (ChatCompletion.construct(choices=None, error={"message": "x\x1b[31m"}), None),
        ("<html>", None),
        (None, None),
    ],
)
def test_replies(response, expected):
    if expected is None:
        with pytest.raises(Fault) as caught:
            reply_of(PROMPT, response, 0.1)
        assert "\x1b" not in caught.value.message
    else:
        reply = reply_of(PROMPT, response, 0.1)
        assert (reply.text, reply.finish_reason) == expected


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 2}, {"input_tokens": 7, "output_tokens": 2}),
        ({"prompt_tokens": -7, "completion_tokens": "2"}, {}),
        ({"prompt_tokens": 10**400, "completion_tokens": True}, {}),
        (None, {}),
    ],
)
def test_usage_that_is_none_is_not_counted(usage, counted):
    assert dict(reply_of(PROMPT, completion({"content": "3"}, usage=usage), 0.1).usage) == counted


@pytest.mark.parametrize(
    ("headers", "delay_s"),
    [
        ({}, None), ({"retry-after": "2"}, 2.0), ({"retry-after": "-5"}, 0.0), ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None), ({"retry-after": "soon"}, None), ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "1"}, 1.0), ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)  # fmt: skip
def test_delays_that_servers_ask_for(headers, delay_s):
    assert server_delay_s(headers) == delay_s


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("base_url", "https://host/v1", None),
        ("base_url", "file:///etc/passwd", "must be like https://host/v1"),
        ("base_url", "host:8000", "must be like https://host/v1"),
        ("base_url", "http://user:secret@host/v1", "must not carry"),
        ("base_url", "http://host/v1?key=secret", "must not carry"),
        ("base_url", "http://[::1", "must be like"),
        ("api_key_env", "MY_API_KEY", None),
        ("api_key_env", "PATH", "must name a variable like MY_API_KEY"),
        ("concurrency", 0, "at least 1"),
        ("rpm", 0.5, "at least 1"),
        ("detail", "ultra", "one of auto, low, high, original"),
        ("reasoning_room", -1, "a number of tokens"),
    ],
)
def test_settings(name, value, fault):
    found = setting_fault(name, value)
    assert (found is None) == (fault is None)
    assert (fault or "") in (found or "")
    assert "secret" not in (found or "")


@pytest.mark.parametrize(
    ("runtime", "key", "lacks"),
    [
        ({}, KEY, False),
        ({"base_url": "https://elsewhere/v1"}, KEY, False),
        ({"base_url": "http://127.0.0.1:1/v1"}, KEY, False),
        ({"base_url": "http://gpu-box:8000/v1"}, None, False),  # a key of OpenAI's has no business there
        ({"base_url": "http://gpu-box:8000/v1", "api_key_env": "BOX_TOKEN"}, "box", False),
        ({"api_key_env": "OTHER_KEY"}, None, True),
    ],
)
def test_where_a_key_is_sent(runtime, key, lacks, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("BOX_TOKEN", "box")
    entry = ModelEntry(name="m", title="m", adapter="openai_api", checkpoint="m", runtime=runtime)
    assert api_key(entry) == key
    assert (missing(entry) is not None) == lacks


@pytest.mark.parametrize(
    ("body", "treatment"),
    [
        ({"error": {"code": 429, "message": "full", "details": 5}}, Treatment.RATE),
        ({"error": {"code": 429, "message": "full", "details": [{"violations": 7}, 3]}}, Treatment.RATE),
        ({"error": {"code": 429, "message": "full", "details": [{"retryDelay": 9}]}}, Treatment.RATE),
        ({"error": "full"}, Treatment.RATE),
        ([], Treatment.RATE),
    ],
)
def test_errors_of_gemini_in_other_shapes(body, treatment):
    from google.genai.errors import ClientError

    try:
        error = ClientError(429, body)
    except AttributeError as other:  # the SDK's own reading of it
        error = other
    fault = fault_of(error, "m", "host", None)
    assert fault.treatment in (treatment, Treatment.DOUBTFUL)


class Redirecting:
    """A server that sends every client elsewhere, and the elsewhere that notes what it is sent."""

    def __enter__(self):
        self.seen, self.runners, self.loop = [], [], asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.elsewhere = self._serve(self._note)
        self.url = self._serve(self._redirect)
        return self

    def __exit__(self, *end):
        for runner in self.runners:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _note(self, request):
        self.seen.append(dict(request.headers))
        return web.json_response({})

    async def _redirect(self, request):
        await request.read()
        raise web.HTTPTemporaryRedirect(self.elsewhere + request.path)

    def _serve(self, handler):
        async def start():
            app = web.Application(client_max_size=2**28)
            app.router.add_route("*", "/{path:.*}", handler)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.runners.append(runner)
            return runner.addresses[0][1]

        return f"http://127.0.0.1:{asyncio.run_coroutine_threadsafe(start(), self.loop).result()}"


@pytest.mark.parametrize(
    ("adapter", "path", "variable"),
    [("openai_api", "/v1", "OPENAI_API_KEY"), ("gemini_api", "", "GEMINI_API_KEY")],
)
def test_a_redirect_is_not_followed(adapter, path, variable, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, KEY)
    monkeypatch.setattr("model_adapters.retry.random.uniform", lambda low, high: 0.0)
    cli("data", "build", "line_intersection", "--n", 60, "--data", tmp_path / "data")
    with Redirecting() as server:
        entry = {"adapter": adapter, "checkpoint": "m", "runtime": {"base_url": server.url + path}}
        (tmp_path / "models.yaml").write_text(json.dumps({"them": entry}))
        result = cli(
            *("run", "--model", "them", "--task", "line_intersection", "--limit", 6, "--models"),
            *(tmp_path / "models.yaml", "--data", tmp_path / "data", "--results", tmp_path / "results"),
        )
        assert result.exit_code in (1, 3)
        assert server.seen == []
    assert KEY not in result.output


def test_a_servers_words_do_not_steer_the_terminal():
    assert redacted("bad\x1b[2J\u202egnp.exe\x07\nline", None) == "bad\ufffd[2J\ufffdgnp.exe\ufffd line"


def test_a_setting_of_another_engine_is_refused(tmp_path):
    cli("data", "build", "line_intersection", "--n", 60, "--data", tmp_path / "data")
    result = cli(
        *("run", "--model", "tiny-qwen", "--task", "line_intersection", "--engine", "hf_local"),
        *("--set", "max_num_seqs=4", "--data", tmp_path / "data", "--results", tmp_path / "results"),
    )
    assert result.exit_code == 1
    assert (
        "tiny-qwen runs by hf_local, which has no setting 'max_num_seqs'. Its settings: batch_size"
        in result.stderr
    )
