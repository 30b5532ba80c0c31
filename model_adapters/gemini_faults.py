"""What the google-genai SDK raises or returns -> how it is to be treated (see model_adapters.retry)."""

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from evalkit.records import FinishReason
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
from model_adapters.retry import Fault

# Finish reasons that say that the content was refused; each is final.
BLOCKING = frozenset(
    {
        *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR"),
        *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "ESCALATION", "JAILBREAK"),
    }
)
FINISH: Mapping[str, FinishReason] = {"MAX_TOKENS": "length", "CONTINUATION": "length", "STOP": "stop"}
_PASSING = frozenset({408, 409, 425, 499})


def call_errors() -> tuple[type[Exception], ...]:
    """All that a call may raise: the SDK's errors, and those of the transport, which it does not wrap."""
    errors, aiohttp = import_module("google.genai.errors"), import_module("aiohttp")
    return (errors.APIError, aiohttp.ClientError, OSError, ValueError, AttributeError, RecursionError)


def fault_of(error: Exception, asked: str, where: str, key: str | None) -> Fault:
    """The fault of one of call_errors(); where names the server."""
    errors = import_module("google.genai.errors")
    if isinstance(error, errors.APIError):
        return _status_fault(error, asked, where, key)
    if isinstance(error, ValueError | AttributeError | RecursionError):  # bad JSON, or JSON of another shape
        return unreadable(redacted(str(error), key))
    return connection_fault(error, where, key)


def _status_fault(error: Any, asked: str, where: str, key: str | None) -> Fault:
    status, message = int(error.code or 0), redacted(str(error.message or error), key)
    reasons = {str(detail.get("reason")) for detail in _details(error.details)}
    lower = message.lower()
    if status == 401 or "API_KEY_INVALID" in reasons or (status == 400 and "api key" in lower):
        return refused_key(where, status, message)
    if status == 402 or (status in (400, 403) and "billing" in lower):
        return unpaid(status, message)
    if status == 403 or (status == 400 and error.status == "FAILED_PRECONDITION"):
        return no_access(asked, status, message)
    if status == 404:
        return no_model(where, asked, status, message)
    if status == 429:
        return _too_many(error, message)
    if status in _PASSING or status >= 500:
        return server_failed(status, message, _delay_s(error))
    return rejected(status, message, str(error.status))


def _too_many(error: Any, message: str) -> Fault:
    """By the details: the sentence about quota and billing is the same for a minute's limit and a day's."""
    quotas = " ".join(
        str(violation.get("quotaId", "")).lower()
        for detail in _details(error.details)
        for violation in _listed(detail.get("violations"))
        if isinstance(violation, dict)
    )
    delay_s = _delay_s(error)
    if "perday" in quotas:
        return used_up(message)
    if (
        not quotas
        and delay_s is None
        and any(sign in message.lower() for sign in ("credit", "billing", "prepay"))
    ):
        return unpaid(429, message)
    return too_many(message, delay_s)


def _delay_s(error: Any) -> float | None:
    """RetryInfo.retryDelay ("34s", "1.5s"), else what the sentence says, else the header Retry-After."""
    for detail in _details(error.details):
        if found := re.fullmatch(r"(\d+(?:\.\d+)?)s", str(detail.get("retryDelay", ""))):
            return float(found[1])
    if found := re.search(r"retry in (\d+(?:\.\d+)?)s", str(error.message)):
        return float(found[1])
    headers = getattr(error.response, "headers", None)
    return server_delay_s(headers) if headers is not None else None


def _details(body: Any) -> Iterator[dict[str, Any]]:
    """error.details of an answer's JSON, whatever its shape."""
    error = body.get("error", body) if isinstance(body, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    yield from (detail for detail in _listed(details) if isinstance(detail, dict))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
