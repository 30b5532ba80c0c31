"""What each fault of OpenAI and Gemini looks like through their SDKs, on the loopback servers.

These tables say what the adapters have to treat; the adapters themselves are tested elsewhere.
"""

import asyncio
import json
import time

import pytest

for package in ("aiohttp", "openai", "google.genai"):
    pytest.importorskip(package, reason="the `api` extra is not installed")

import aiohttp  # noqa: E402
import httpx2  # noqa: E402
import openai  # noqa: E402
from api_servers import ApiServer, FaultPlan, Script, item_id  # noqa: E402
from api_servers.clients import ONCE, PNG, ask_gemini, ask_gemini_later, ask_openai, ask_openai_later  # noqa: E402
from api_servers.delivery import BODIES, LINE  # noqa: E402
from api_servers.running import PROVIDERS  # noqa: E402
from google.genai import errors  # noqa: E402

# google-genai derives from aiohttp's session, which aiohttp discourages
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
ALWAYS = float("inf")


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
