"""What the openai SDK raises or returns -> how it is to be treated (see model_adapters.retry)."""

from importlib import import_module
from typing import Any

from model_adapters.asking import redacted
from model_adapters.faults import (
    connection_fault,
    no_access,
    no_model,
    refused_key,
    rejected,
    server_delay_s,
    server_failed,
    too_many,
    unpaid,
    unreadable,
    used_up,
)
from model_adapters.retry import Fault, Treatment

_PASSING = frozenset({408, 409, 425, 500, 502, 503, 504, 520, 522, 524, 529})
# Codes and types of a refusal that money, or the day's end, mends; never a wait of seconds.
_BILLING = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "access_terminated"}
)
BLOCKING = frozenset({"content_policy_violation", "content_filter", "moderation_blocked", "invalid_prompt"})


def call_errors() -> tuple[type[Exception], ...]:
    """All that a call may raise: the SDK's errors, and those of the transports that it lets through."""
    openai, httpx, aiohttp = (import_module(name) for name in ("openai", "httpx2", "aiohttp"))
    return (
        openai.OpenAIError,
        httpx.HTTPError,
        httpx.StreamError,
        aiohttp.ClientError,
        OSError,
        ValueError,
        RecursionError,
    )


def fault_of(error: Exception, asked: str, where: str, key: str | None) -> Fault:
    """The fault of one of call_errors(); where names the server."""
    openai = import_module("openai")
    message = redacted(str(error), key)
    if isinstance(error, openai.APIStatusError):
        return _status_fault(error, asked, where, key)
    if isinstance(error, openai.APITimeoutError):
        # the aiohttp transport calls every broken connection a timeout of connecting
        if isinstance(error.__cause__, import_module("httpx2").ConnectTimeout):
            return connection_fault(error, where, key)
        return Fault(Treatment.DOUBTFUL, f"no answer in time ({message})")
    if isinstance(
        error, openai.APIResponseValidationError | ValueError | RecursionError
    ):  # JSONDecodeError is a ValueError
        return unreadable(message)
    return connection_fault(error, where, key)


def _status_fault(error: Any, asked: str, where: str, key: str | None) -> Fault:
    status, message = int(error.status_code), redacted(_said(error), key)
    words = {str(error.code or ""), str(error.type or "")}
    delay_s = server_delay_s(error.response.headers)
    if status == 402 or (status in (403, 429) and words & _BILLING):
        return unpaid(status, message)
    match status:
        case 401:
            return refused_key(where, status, message)
        case 403:
            return no_access(asked, status, message)
        case 404:
            return no_model(where, asked, status, message)
        case 429:
            a_day = any(mark in message.lower() for mark in ("per day", "(rpd)", "(tpd)", "daily"))
            return used_up(message) if a_day else too_many(message, delay_s)
    if status in _PASSING or status >= 500:
        return server_failed(status, message, delay_s)
    return rejected(status, message, str(error.code))


def _said(error: Any) -> str:
    """The server's own sentence where there is one; an HTML page is cut short."""
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return str(error.message)


def is_blocked(error: Exception) -> bool:
    """Whether a rejected request was rejected for its content."""
    return getattr(error, "status_code", None) == 400 and (
        str(getattr(error, "code", "")) in BLOCKING or str(getattr(error, "type", "")) in BLOCKING
    )


def wants_max_tokens(error: Exception) -> bool:
    """Whether an older server does not know max_completion_tokens."""
    return getattr(error, "status_code", None) in (400, 422) and "max_completion_tokens" in str(error)
