"""What the openai SDK raises or returns -> how it is to be treated (see model_adapters.retry)."""

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import Any

from model_adapters.asking import redacted
from model_adapters.retry import Fault, Treatment

_PASSING = frozenset({408, 409, 425, 500, 502, 503, 504, 520, 522, 524, 529})
# Codes and types of a refusal that money, or the day's end, mends; never a wait of seconds.
_BILLING = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "access_terminated"}
)
BLOCKING = frozenset({"content_policy_violation", "content_filter", "moderation_blocked", "invalid_prompt"})
# What transports say when a server is not there, or has no such name.
_NOBODY = (
    *("cannot connect", "connect call failed", "connection refused", "all connection attempts failed"),
    *("name or service not known", "name resolution", "nodename nor servname"),
)


def call_errors() -> tuple[type[Exception], ...]:
    """All that a call may raise: the SDK's errors, and those of the transports that it lets through."""
    openai, httpx, aiohttp = (import_module(name) for name in ("openai", "httpx2", "aiohttp"))
    return (openai.OpenAIError, httpx.HTTPError, httpx.StreamError, aiohttp.ClientError, OSError, ValueError)


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
    if isinstance(error, openai.APIResponseValidationError | ValueError):  # JSONDecodeError is a ValueError
        return Fault(Treatment.DOUBTFUL, f"the answer is not as the API's ({message})")
    return connection_fault(error, where, key)


def connection_fault(error: BaseException, where: str, key: str | None) -> Fault:
    """A line that broke, or that was never there: refused connections and names that do not resolve."""
    causes = _chain(error)
    said = redacted(str(causes[-1]) or type(causes[-1]).__name__, key)
    text = " ".join(str(cause).lower() for cause in causes)
    refused = any(isinstance(cause, ConnectionRefusedError) for cause in causes)
    if refused or any(sign in text for sign in _NOBODY):
        return Fault(
            Treatment.REFUSED,
            f"no server answers at {where} ({said}). Start it, or name another with --base-url",
        )
    return Fault(Treatment.PASSING, f"the connection broke ({said})")


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return found


def _status_fault(error: Any, asked: str, where: str, key: str | None) -> Fault:
    status, message = int(error.status_code), redacted(_said(error), key)
    words = {str(error.code or ""), str(error.type or "")}
    if status == 401:
        return Fault(
            Treatment.STOP, f"{where} refuses the key (401: {message}). Set a valid one in the environment"
        )
    if status == 402 or (status in (403, 429) and words & _BILLING):
        return Fault(
            Treatment.QUOTA,
            f"the account has no credit left ({status}: {message}). Pay or raise its limit; the same command goes on",
        )
    if status == 403:
        return Fault(
            Treatment.STOP, f"the key may not use {asked} ({status}: {message}). Use another key or model"
        )
    if status == 404:
        return Fault(
            Treatment.STOP,
            f"{where} has no model {asked} ({status}: {message}). Check the name: evalkit models --check",
        )
    delay_s = server_delay_s(error.response.headers)
    if status == 429:
        return _too_many(message, words, delay_s)
    if status in _PASSING or status >= 500:
        return Fault(Treatment.PASSING, f"the server failed ({status}: {message})", delay_s=delay_s)
    return Fault(
        Treatment.REJECTED, f"the request was rejected ({status}: {message})", alike=f"{status} {error.code}"
    )


def _too_many(message: str, words: set[str], delay_s: float | None) -> Fault:
    lower = message.lower()
    if any(mark in lower for mark in ("per day", "(rpd)", "(tpd)", "daily")):
        return Fault(
            Treatment.QUOTA, f"the day's quota is used up (429: {message}). The same command goes on tomorrow"
        )
    return Fault(Treatment.RATE, f"too many requests (429: {message})", delay_s=delay_s)


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


def server_delay_s(headers: Mapping[str, str]) -> float | None:
    """Seconds of retry-after-ms or retry-after (a number or a date); None where there is neither."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            delay = float(text) / unit
        except ValueError:
            try:
                delay = parsedate_to_datetime(text).timestamp() - time.time()
            except (TypeError, ValueError):
                continue
        if delay == delay and delay != float("inf"):
            return max(0.0, delay)
    return None
