"""What the google-genai SDK raises or returns -> how it is to be treated (see model_adapters.retry)."""

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from evalkit.records import FinishReason
from model_adapters.asking import redacted
from model_adapters.openai_faults import connection_fault, server_delay_s
from model_adapters.retry import Fault, Treatment

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
    return (errors.APIError, aiohttp.ClientError, OSError, ValueError, AttributeError)


def fault_of(error: Exception, asked: str, where: str, key: str | None) -> Fault:
    """The fault of one of call_errors(); where names the server."""
    errors = import_module("google.genai.errors")
    if isinstance(error, errors.APIError):
        return _status_fault(error, asked, where, key)
    if isinstance(error, ValueError | AttributeError):  # bad JSON, or JSON of another shape
        return Fault(Treatment.DOUBTFUL, f"the answer is not as the API's ({redacted(str(error), key)})")
    return connection_fault(error, where, key)


def _status_fault(error: Any, asked: str, where: str, key: str | None) -> Fault:
    status, message = int(error.code or 0), redacted(str(error.message or error), key)
    reasons = {str(detail.get("reason")) for detail in _details(error.details)}
    lower = message.lower()
    if status == 401 or "API_KEY_INVALID" in reasons or (status == 400 and "api key" in lower):
        return Fault(
            Treatment.STOP,
            f"{where} refuses the key ({status}: {message}). Set a valid one in the environment",
        )
    if status == 429:
        return _too_many(error, message)
    if status == 402 or (status in (400, 403) and "billing" in lower):
        return _unpaid(status, message)
    if status == 403 or (status == 400 and error.status == "FAILED_PRECONDITION"):
        return Fault(
            Treatment.STOP, f"the key may not use {asked} ({status}: {message}). Use another key or model"
        )
    if status == 404:
        return Fault(
            Treatment.STOP,
            f"{where} has no model {asked} ({status}: {message}). Check the name: evalkit models --check",
        )
    if status in _PASSING or status >= 500:
        return Fault(Treatment.PASSING, f"the server failed ({status}: {message})", delay_s=_delay_s(error))
    return Fault(
        Treatment.REJECTED,
        f"the request was rejected ({status}: {message})",
        alike=f"{status} {error.status}",
    )


def _too_many(error: Any, message: str) -> Fault:
    """By the details: the sentence about quota and billing is the same for a minute's limit and a day's."""
    quotas = " ".join(
        str(violation.get("quotaId", "")).lower()
        for detail in _details(error.details)
        for violation in detail.get("violations") or []
        if isinstance(violation, dict)
    )
    if "perday" in quotas:
        return Fault(
            Treatment.QUOTA, f"the day's quota is used up (429: {message}). The same command goes on tomorrow"
        )
    delay_s = _delay_s(error)
    unpaid = any(sign in message.lower() for sign in ("credit", "billing", "prepay"))
    if unpaid and not quotas and delay_s is None:
        return _unpaid(429, message)
    return Fault(Treatment.RATE, f"too many requests (429: {message})", delay_s=delay_s)


def _unpaid(status: int, message: str) -> Fault:
    return Fault(
        Treatment.QUOTA,
        f"the account has no credit left ({status}: {message}). Pay or raise its limit; the same command goes on",
    )


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
    yield from (detail for detail in details or [] if isinstance(detail, dict))
