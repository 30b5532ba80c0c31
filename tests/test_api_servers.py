"""The loopback servers, seen through the providers' own SDKs: what each fault looks like to a client.

These tables say what the adapters have to treat; the adapters themselves are tested elsewhere.
"""

import asyncio
import base64
import json
import random
import struct
import time
import urllib.error
import zlib

import pytest

for package in ("aiohttp", "openai", "google.genai"):
    pytest.importorskip(package, reason="the `api` extra is not installed")

import aiohttp  # noqa: E402
import httpx2  # noqa: E402
import openai  # noqa: E402
from api_servers import ApiServer, FaultPlan, Script, ServerProcess, item_id  # noqa: E402
from api_servers.delivery import BODIES, LINE  # noqa: E402
from api_servers.running import PROVIDERS  # noqa: E402
from google import genai  # noqa: E402
from google.genai import errors, types  # noqa: E402

# google-genai derives from aiohttp's session, which aiohttp discourages
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
ONCE = types.HttpRetryOptions(attempts=1)
ALWAYS = float("inf")


def png(width=48, height=32):
    """A PNG of one grey, built by hand: signature, IHDR, IDAT, IEND."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + b"\x80" * width for _ in range(height)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


PNG = png()


def named_faults(provider):
    """A script by which a question that says <fault> meets that fault, always."""
    names = [*BODIES, *LINE, *PROVIDERS[provider].faults]
    plan = FaultPlan(listed={f"<{name}>": name for name in names}, times=dict.fromkeys(names, ALWAYS))
    return Script(faults=plan, retry_after_s=1.5, reasoning_tokens=11)


@pytest.fixture(scope="module")
def openai_server(tmp_path_factory):
    with ApiServer("openai", named_faults("openai"), tmp_path_factory.mktemp("o") / "log.jsonl") as server:
        yield server


@pytest.fixture(scope="module")
def gemini_server(tmp_path_factory):
    with ApiServer("gemini", named_faults("gemini"), tmp_path_factory.mktemp("g") / "log.jsonl") as server:
        yield server


def chat(text, image=PNG, **more):
    """The arguments of chat.completions.create for one question."""
    url = "data:image/png;base64," + base64.b64encode(image).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def generate(text, image=PNG):
    """The arguments of models.generate_content for one question."""
    return {"model": "m", "contents": [types.Part.from_bytes(data=image, mime_type="image/png"), text]}


def ask_openai(server, text, **more):
    with openai.OpenAI(api_key="k", base_url=server.url + "/v1", max_retries=0, timeout=1) as client:
        return client.chat.completions.create(**chat(text, **more))


def ask_gemini(server, text):
    with genai.Client(
        api_key="k", http_options=types.HttpOptions(base_url=server.url, timeout=1000)
    ) as client:
        return client.models.generate_content(**generate(text))


async def ask_openai_later(server, text, http_client=None):
    async with openai.AsyncOpenAI(
        api_key="k", base_url=server.url + "/v1", max_retries=0, timeout=1, http_client=http_client
    ) as client:
        return await client.chat.completions.create(**chat(text))


async def ask_gemini_later(server, text, retry=ONCE):
    options = types.HttpOptions(base_url=server.url, timeout=1000, retry_options=retry)
    async with genai.Client(api_key="k", http_options=options).aio as client:
        return await client.models.generate_content(**generate(text))


@pytest.mark.parametrize(
    ("fault", "kind", "status", "code", "type_"),
    [
        ("rate_limit", "RateLimitError", 429, "rate_limit_exceeded", "requests"),
        ("per_day", "RateLimitError", 429, "rate_limit_exceeded", "requests"),
        ("insufficient_quota", "RateLimitError", 429, "insufficient_quota", "insufficient_quota"),
        ("payment_required", "APIStatusError", 402, "payment_required", "billing_error"),
        ("401", "AuthenticationError", 401, "invalid_api_key", "invalid_request_error"),
        ("403", "PermissionDeniedError", 403, "model_not_found", "invalid_request_error"),
        ("404", "NotFoundError", 404, "model_not_found", "invalid_request_error"),
        ("408", "APIStatusError", 408, None, "timeout"),
        ("409", "ConflictError", 409, None, "conflict_error"),
        ("500", "InternalServerError", 500, None, "server_error"),
        ("502", "InternalServerError", 502, None, None),  # a proxy's page: no JSON
        ("503", "InternalServerError", 503, None, "server_error"),
        ("504", "InternalServerError", 504, None, None),
        ("529", "InternalServerError", 529, None, "overloaded_error"),
        ("content_policy_violation", "BadRequestError", 400, "content_policy_violation", "invalid_request_error"),
        ("invalid_image", "BadRequestError", 400, "invalid_image_format", "invalid_request_error"),
        ("context_length_exceeded", "BadRequestError", 400, "context_length_exceeded", "invalid_request_error"),
        ("bad_parameter", "BadRequestError", 400, "unsupported_parameter", "invalid_request_error"),
    ],
)  # fmt: skip
def test_openai_raises(openai_server, fault, kind, status, code, type_):
    with pytest.raises(openai.APIStatusError) as caught:
        ask_openai(openai_server, f"<{fault}>")
    error = caught.value
    assert (type(error).__name__, error.status_code, error.code, error.type) == (kind, status, code, type_)


@pytest.mark.parametrize(
    ("fault", "headers"),
    [
        ("rate_limit", {"retry-after-ms": "1500", "retry-after": "2"}),
        ("rate_limit_seconds", {"retry-after": "1.5"}),
        ("rate_limit_bare", {}),
        ("per_day", {"retry-after-ms": "432000", "retry-after": "432"}),
    ],
)
def test_openai_says_how_long_to_wait(openai_server, fault, headers):
    with pytest.raises(openai.RateLimitError) as caught:
        ask_openai(openai_server, f"<{fault}>")
    found = caught.value.response.headers
    assert {name: found[name] for name in ("retry-after-ms", "retry-after") if name in found} == headers


def test_openai_says_how_long_to_wait_as_a_date(openai_server):
    with pytest.raises(openai.RateLimitError) as caught:
        ask_openai(openai_server, "<rate_limit_date>")
    at = time.strptime(caught.value.response.headers["retry-after"], "%a, %d %b %Y %H:%M:%S GMT")
    assert 0.5 < time.mktime(at) - time.mktime(time.gmtime()) < 4


@pytest.mark.parametrize(
    ("fault", "shape"),
    [
        ("ok", ("m", "stop", "{3}", None)),
        ("gzip", ("m", "stop", "{3}", None)),
        ("chunked", ("m", "stop", "{3}", None)),
        ("wrong_model", ("another-model", "stop", "{3}", None)),
        ("length", ("m", "length", "{", None)),
        ("content_filter", ("m", "content_filter", None, None)),
        ("refusal", ("m", "stop", None, "I'm sorry, I can't help with that.")),
        ("null_content", ("m", "stop", None, None)),
    ],
)
def test_openai_returns(openai_server, fault, shape):
    answer = ask_openai(openai_server, f"<{fault}>")
    choice = answer.choices[0]
    assert (answer.model, choice.finish_reason, choice.message.content, choice.message.refusal) == shape


def test_openai_returns_what_is_no_answer(openai_server):
    assert ask_openai(openai_server, "<empty_choices>").choices == []
    assert ask_openai(openai_server, "<null_choices>").choices is None
    assert ask_openai(openai_server, "<html_200>").startswith("<html>")  # a str, no ChatCompletion
    answer = ask_openai(openai_server, "<error_200>")
    assert (answer.choices, answer.model, answer.error["message"]) == (None, None, "Upstream error")
    for fault in ("bad_json", "empty_body"):
        with pytest.raises(json.JSONDecodeError):
            ask_openai(openai_server, f"<{fault}>")


@pytest.mark.parametrize(
    ("fault", "parameter", "code"),
    [
        ("unsupported_max_tokens", {"max_tokens": 8}, "unsupported_parameter"),
        ("unknown_max_completion_tokens", {"max_completion_tokens": 8}, None),
        ("unsupported_temperature", {"temperature": 0}, "unsupported_value"),
    ],
)
def test_a_parameter_is_refused_only_where_it_is_sent(openai_server, fault, parameter, code):
    assert ask_openai(openai_server, f"<{fault}>").choices
    with pytest.raises(openai.BadRequestError, match=next(iter(parameter))) as caught:
        ask_openai(openai_server, f"<{fault}>", **parameter)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("fault", "default", "aiohttp_transport"),
    [
        ("reset_before_headers", ("APIConnectionError", "ReadError"), ("APITimeoutError", "ConnectTimeout")),
        ("lost_answer", ("APIConnectionError", "ReadError"), ("APITimeoutError", "ConnectTimeout")),
        ("reset_mid_body", ("APIConnectionError", "ReadError"), ("APIConnectionError", "ReadError")),
        ("slow", ("APITimeoutError", "ReadTimeout"), ("APITimeoutError", "ReadTimeout")),
    ],
)
def test_openai_on_a_bad_line(openai_server, fault, default, aiohttp_transport):
    """The SDK's aiohttp transport calls a reset before the headers a timeout of the connection."""

    async def both():
        for expected, http in ((default, None), (aiohttp_transport, openai.DefaultAioHttpClient())):
            with pytest.raises(openai.APIConnectionError) as caught:
                await ask_openai_later(openai_server, f"<{fault}>", http)
            cause = caught.value.__cause__
            assert isinstance(cause, httpx2.TransportError)
            assert (type(caught.value).__name__, type(cause).__name__) == expected

    asyncio.run(both())


def test_no_timeout_of_a_client_ends_a_trickling_answer(openai_server, gemini_server):
    async def outlasts(call, seconds):
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(seconds):
                await call
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)  # ours, not the client's

    async def all_of_them():
        await asyncio.gather(
            outlasts(ask_openai_later(openai_server, "<trickle>"), 1.6),
            outlasts(ask_openai_later(openai_server, "<trickle>", openai.DefaultAioHttpClient()), 1.6),
            outlasts(ask_gemini_later(gemini_server, "<trickle>"), 0.8),
        )

    asyncio.run(all_of_them())


def test_gemini_on_aiohttp_has_a_deadline_for_the_whole_answer(gemini_server):
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(ask_gemini_later(gemini_server, "<trickle>"))
    assert time.monotonic() - started == pytest.approx(1.0, abs=0.6)


@pytest.mark.parametrize(
    ("fault", "kind", "code", "status"),
    [
        ("rate_limit", "ClientError", 429, "RESOURCE_EXHAUSTED"),
        ("per_day", "ClientError", 429, "RESOURCE_EXHAUSTED"),
        ("insufficient_quota", "ClientError", 429, "RESOURCE_EXHAUSTED"),
        ("401", "ClientError", 400, "INVALID_ARGUMENT"),  # a bad key is no 401
        ("403", "ClientError", 403, "PERMISSION_DENIED"),
        ("404", "ClientError", 404, "NOT_FOUND"),
        ("408", "ClientError", 408, "DEADLINE_EXCEEDED"),
        ("409", "ClientError", 409, "ABORTED"),
        ("500", "ServerError", 500, "INTERNAL"),
        ("502", "ServerError", 502, "Bad Gateway"),  # a proxy's page: HTTP's own reason
        ("503", "ServerError", 503, "UNAVAILABLE"),
        ("504", "ServerError", 504, "DEADLINE_EXCEEDED"),
        ("bad_parameter", "ClientError", 400, "INVALID_ARGUMENT"),
        ("invalid_image", "ClientError", 400, "INVALID_ARGUMENT"),
        ("context_length_exceeded", "ClientError", 400, "INVALID_ARGUMENT"),
        ("location", "ClientError", 400, "FAILED_PRECONDITION"),
    ],
)
def test_gemini_raises(gemini_server, fault, kind, code, status):
    with pytest.raises(errors.APIError) as caught:
        ask_gemini(gemini_server, f"<{fault}>")
    error = caught.value
    assert (type(error).__name__, error.code, error.status) == (kind, code, status)


@pytest.mark.parametrize(
    ("fault", "quota", "delay", "header"),
    [
        ("rate_limit", "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "1.5s", None),
        ("rate_limit_seconds", "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", None, "1.5"),
        ("rate_limit_message", None, None, None),
        ("rate_limit_bare", None, None, None),
        ("per_day", "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "13s", None),
    ],
)
def test_gemini_tells_its_quotas_apart_in_the_details_alone(gemini_server, fault, quota, delay, header):
    with pytest.raises(errors.ClientError) as caught:
        ask_gemini(gemini_server, f"<{fault}>")
    error, found = caught.value, {}
    for detail in error.details["error"].get("details", []):
        found |= {key: value for key, value in detail.items() if key != "@type"}
    violation = found.get("violations", [{}])[0]
    assert (violation.get("quotaId"), found.get("retryDelay")) == (quota, delay)
    assert error.response.headers.get("retry-after") == header
    assert ("billing" in error.message) == (fault != "rate_limit_bare")
    assert ("Please retry in 1.5s." in error.message) == (fault == "rate_limit_message")


def test_gemini_says_that_a_key_is_bad_in_the_details(gemini_server):
    with pytest.raises(errors.ClientError, match="API key not valid") as caught:
        ask_gemini(gemini_server, "<401>")
    assert caught.value.details["error"]["details"][0]["reason"] == "API_KEY_INVALID"


@pytest.mark.parametrize(
    ("fault", "text", "finish", "blocked", "model"),
    [
        ("ok", "{3}", "STOP", None, "m"),
        ("gzip", "{3}", "STOP", None, "m"),
        ("chunked", "{3}", "STOP", None, "m"),
        ("wrong_model", "{3}", "STOP", None, "another-model"),
        ("max_tokens", "{", "MAX_TOKENS", None, "m"),
        ("safety", None, "SAFETY", None, "m"),
        ("recitation", None, "RECITATION", None, "m"),
        ("prohibited_content", None, "PROHIBITED_CONTENT", None, "m"),
        ("malformed", None, "MALFORMED_FUNCTION_CALL", None, "m"),
        ("other", None, "OTHER", None, "m"),
        ("empty_parts", None, "STOP", None, "m"),
        ("thoughts_only", None, "MAX_TOKENS", None, "m"),
        ("blocked_safety", None, None, "SAFETY", "m"),
        ("blocked_prohibited", None, None, "PROHIBITED_CONTENT", "m"),
        ("no_candidates", None, None, None, "m"),
        ("empty_body", None, None, None, None),
        ("error_200", None, None, None, None),
    ],
)
def test_gemini_returns(gemini_server, fault, text, finish, blocked, model):
    """Nothing that is empty or blocked raises; text is None."""
    answer = ask_gemini(gemini_server, f"<{fault}>")
    candidate = answer.candidates[0] if answer.candidates else None
    reason = answer.prompt_feedback.block_reason.value if answer.prompt_feedback else None
    found = candidate.finish_reason.value if candidate else None
    assert (answer.text, found, reason, answer.model_version) == (text, finish, blocked, model)


@pytest.mark.parametrize("fault", ["bad_json", "html_200"])
def test_gemini_cannot_read_what_is_no_json(gemini_server, fault):
    with pytest.raises(json.JSONDecodeError):
        ask_gemini(gemini_server, f"<{fault}>")


@pytest.mark.parametrize(
    ("fault", "httpx_error", "aiohttp_error"),
    [
        ("reset_before_headers", "ReadError", aiohttp.ClientOSError),
        ("lost_answer", "ReadError", aiohttp.ClientOSError),
        ("reset_mid_body", "ReadError", aiohttp.ClientPayloadError),
        ("slow", "ReadTimeout", TimeoutError),
    ],
)
def test_gemini_on_a_bad_line_lets_the_transports_errors_through(
    gemini_server, fault, httpx_error, aiohttp_error
):
    with pytest.raises(httpx2.TransportError) as caught:
        ask_gemini(gemini_server, f"<{fault}>")
    assert type(caught.value).__name__ == httpx_error
    with pytest.raises(aiohttp_error):
        asyncio.run(ask_gemini_later(gemini_server, f"<{fault}>"))


def test_gemini_repeats_a_broken_connection_once_unless_it_has_retry_options(gemini_server, monkeypatch):
    monkeypatch.setattr("google.genai._api_client.random.randint", lambda low, high: -1)  # of 1 to 10 s: none
    for retry, requests in ((None, 2), (ONCE, 1)):
        text = f"<lost_answer> {requests}"
        with pytest.raises(aiohttp.ClientOSError):
            asyncio.run(ask_gemini_later(gemini_server, text, retry))
        assert gemini_server.log.attempts(item_id(text, PNG)) == requests


def test_usage_is_counted_as_each_provider_does(openai_server, gemini_server):
    text = "How many cells?"  # 15 characters: 4 tokens
    usage = ask_openai(openai_server, text).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (4 + 85 + 170 + 7, 1 + 11)
    assert usage.completion_tokens_details.reasoning_tokens == 11
    usage = ask_gemini(gemini_server, text).usage_metadata
    assert (usage.prompt_token_count, usage.candidates_token_count, usage.thoughts_token_count) == (
        4 + 258,
        1,
        11,
    )
    assert usage.total_token_count == 4 + 258 + 1 + 11


@pytest.mark.parametrize("provider", ["openai", "gemini"])
def test_the_server_knows_an_item_again_and_keeps_no_key(provider, tmp_path):
    def answer(text, size_wh):
        return f"{text} {size_wh[0]} x {size_wh[1]}"

    ask = {"openai": ask_openai, "gemini": ask_gemini}[provider]
    script = Script(faults=FaultPlan({"503": 1.0}, times={"503": 2}), answer=answer)
    with ApiServer(provider, script, tmp_path / "log.jsonl") as server:
        for _ in range(2):
            with pytest.raises((openai.InternalServerError, errors.ServerError)):
                ask(server, "How many?")
        replies = [ask(server, "How many?") for _ in range(2)]
        text = replies[0].text if provider == "gemini" else replies[0].choices[0].message.content
        item, log = item_id("How many?", PNG), server.log
        assert text == "How many? 48 x 32"
        assert (log.items(), log.attempts(item), log.count(503), log.count(200)) == ([item], 4, 2, 2)
        assert log.answered_twice() == [item]
        assert [line["attempt"] for line in log.lines("arrived")] == [1, 2, 3, 4]
        assert len({line["key_sha256"] for line in log.lines("arrived")}) == 1
        assert '"k"' not in log.path.read_text()


def faults_by_item(plan, n=4000):
    return [plan.fault_of_item(item_id(f"question {i}", b""), "", i) for i in range(n)]


def test_a_plan_draws_shares_of_items_alike_every_time():
    plan = FaultPlan({"500": 0.1, "slow": 0.05}, seed=3)
    drawn = faults_by_item(plan)
    assert drawn == faults_by_item(FaultPlan({"500": 0.1, "slow": 0.05}, seed=3))
    assert drawn != faults_by_item(FaultPlan({"500": 0.1, "slow": 0.05}, seed=4))
    assert drawn.count("500") == pytest.approx(400, abs=60)  # three sigma of a binomial
    assert drawn.count("slow") == pytest.approx(200, abs=42)


def test_a_plan_prefers_what_is_listed_to_what_is_ordered_to_what_is_drawn():
    item = item_id("question 1", b"")
    plan = FaultPlan({"500": 1.0}, listed={item: "503", "blue": "504"}, ordered=("401", "402", "ok"))
    assert [plan.fault_of_item(item_id(f"question {i}", b""), "", i) for i in range(4)] == [
        *("401", "503", "ok", "500")
    ]
    assert plan.fault_of_item("x", "the blue line", 0) == "504"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda log: FaultPlan({"500": 0.7, "slow": 0.4}), "sum to at most 1"),
        (
            lambda log: ApiServer("openai", Script(faults=FaultPlan({"600": 1.0})), log),
            "No fault named '600'",
        ),
        (lambda log: ApiServer("gemini", Script(ops={"create": ("refusal",)}), log), "named 'refusal'"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(make, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "log.jsonl")


def test_switches_flip_while_it_runs(tmp_path):
    with ApiServer("openai", Script(), tmp_path / "log.jsonl") as server:
        assert ask_openai(server, "1").choices
        server.control(all="401", after=3)
        assert ask_openai(server, "2").choices
        for text in ("3", "4"):
            with pytest.raises(openai.AuthenticationError):
                ask_openai(server, text)
        server.control(off=True)
        assert ask_openai(server, "5").choices
        with pytest.raises(urllib.error.HTTPError, match="400"):
            server.control(all="no such fault")
        assert server.log.count() == 5  # control is not logged


def test_a_door_that_closes_for_a_while(tmp_path):
    with ApiServer("openai", Script(), tmp_path / "log.jsonl") as server:
        server.control(refuse_s=0.5)
        time.sleep(0.15)
        with pytest.raises(openai.APIConnectionError) as caught:
            ask_openai(server, "shut")
        assert "refused" in str(caught.value.__cause__)
        time.sleep(0.7)
        assert ask_openai(server, "open").choices
        assert server.log.count() == 1


@pytest.mark.parametrize("provider", ["openai", "gemini"])
def test_keys_and_models_that_are_not_known(provider, tmp_path):
    script = Script(key="right", models=("m",))
    with ApiServer(provider, script, tmp_path / "log.jsonl") as server:
        if provider == "openai":
            with pytest.raises(openai.AuthenticationError):
                ask_openai(server, "?")
            client = openai.OpenAI(api_key="right", base_url=server.url + "/v1", max_retries=0)
            assert [model.id for model in client.models.list()] == ["m"]
            assert client.models.retrieve("m").id == "m"
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve("n")
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(**{**chat("?"), "model": "n"})
            client.close()
        else:
            with pytest.raises(errors.ClientError, match="API_KEY_INVALID"):
                ask_gemini(server, "?")
            with genai.Client(api_key="right", http_options=types.HttpOptions(base_url=server.url)) as client:
                assert [model.name for model in client.models.list()] == ["models/m"]
                assert client.models.get(model="m").name == "models/m"
                with pytest.raises(errors.ClientError, match="NOT_FOUND"):
                    client.models.get(model="n")
                with pytest.raises(errors.ClientError, match="NOT_FOUND"):
                    client.models.generate_content(**{**generate("?"), "model": "n"})


def test_a_limit_of_rate_lets_a_burst_through_and_says_when_to_come_again(tmp_path):
    async def burst(server):
        async with openai.AsyncOpenAI(api_key="k", base_url=server.url + "/v1", max_retries=0) as client:
            asked = [client.chat.completions.create(**chat(str(i))) for i in range(30)]
            refused = [
                e for e in await asyncio.gather(*asked, return_exceptions=True) if isinstance(e, Exception)
            ]
            waits = [int(error.response.headers["retry-after-ms"]) for error in refused]
            await asyncio.sleep(max(waits) / 1000)
            await client.chat.completions.create(**chat("later"))
            return waits

    with ApiServer("openai", Script(rate=5.0, burst=10), tmp_path / "log.jsonl") as server:
        waits = asyncio.run(burst(server))
        assert 0 < min(waits) <= max(waits) <= 200  # 5 a second
        assert server.log.count(429) == len(waits)
        assert 16 <= len(waits) <= 20  # 10 at once, and what came in while they were asked
        assert server.log.count(fault="over_rate") == len(waits)
        assert server.log.most("in_flight") > 1


def test_latency_has_the_median_and_the_spread_that_are_asked_for(tmp_path):
    script, draw = Script(latency_s=0.05, latency_sigma=0.5), random.Random(1)
    drawn = sorted(script.latency(draw) for _ in range(2001))
    assert drawn[1000] == pytest.approx(0.05, rel=0.1)
    assert drawn[1683] / drawn[1000] == pytest.approx(2.718**0.5, rel=0.1)  # one sigma up
    with ApiServer("openai", Script(latency_s=0.2), tmp_path / "log.jsonl") as server:
        ask_openai(server, "?")
        assert 0.19 < server.log.seconds() < 0.6


def test_an_answer_to_a_client_that_has_gone_is_none(tmp_path):
    async def hang_up(server):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await ask_openai_later(server, "?")

    with ApiServer("openai", Script(latency_s=0.5), tmp_path / "log.jsonl") as server:
        asyncio.run(hang_up(server))
        time.sleep(0.2)
        (done,) = server.log.lines("done")
        assert (done["status"], done["answered"], done["in_flight"]) == (None, False, 0)


@pytest.mark.parametrize(("provider", "fast"), [("openai", False), ("openai", True), ("gemini", False)])
def test_a_server_as_a_process_of_its_own(provider, fast, tmp_path):
    plan = FaultPlan() if fast else FaultPlan(ordered=("503",), times={"503": ALWAYS})
    ask = {"openai": ask_openai, "gemini": ask_gemini}[provider]
    with ServerProcess(provider, Script(faults=plan, fast=fast), tmp_path / "log.jsonl") as server:
        if not fast:
            with pytest.raises((openai.InternalServerError, errors.ServerError)):
                ask(server, "first")
        ask(server, "second")
        server.control(all="500")
        assert server.log.count(200) == 1
        process = server._process
    assert process.returncode == 0
    assert server.log.lines("arrived")[-1]["bytes"] > len(PNG)
