"""Faults that all providers share, and the words in which each is told."""

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from model_adapters.asking import redacted
from model_adapters.retry import Fault, Treatment

# What transports say when a server is not there, or has no such name.
_NOBODY = (
    *("cannot connect", "connect call failed", "connection refused", "all connection attempts failed"),
    *("name or service not known", "name resolution", "nodename nor servname"),
)


def refused_key(where: str, status: int, message: str) -> Fault:
    return Fault(
        Treatment.STOP, f"{where} refuses the key ({status}: {message}). Set a valid one in the environment"
    )


def unpaid(status: int, message: str) -> Fault:
    return Fault(
        Treatment.QUOTA,
        f"the account has no credit left ({status}: {message}). Pay or raise its limit; the same command goes on",
    )


def used_up(message: str) -> Fault:
    return Fault(
        Treatment.QUOTA, f"the day's quota is used up (429: {message}). The same command goes on tomorrow"
    )


def no_access(asked: str, status: int, message: str) -> Fault:
    return Fault(
        Treatment.STOP, f"the key may not use {asked} ({status}: {message}). Use another key or model"
    )


def no_model(where: str, asked: str, status: int, message: str) -> Fault:
    return Fault(
        Treatment.STOP,
        f"{where} has no model {asked} ({status}: {message}). Check the name: evalkit models --check",
    )


def too_many(message: str, delay_s: float | None) -> Fault:
    return Fault(Treatment.RATE, f"too many requests (429: {message})", delay_s=delay_s)


def server_failed(status: int, message: str, delay_s: float | None) -> Fault:
    return Fault(Treatment.PASSING, f"the server failed ({status}: {message})", delay_s=delay_s)


def rejected(status: int, message: str, cause: str) -> Fault:
    """cause: what rejections of the same kind have in common."""
    return Fault(
        Treatment.REJECTED, f"the request was rejected ({status}: {message})", alike=f"{status} {cause}"
    )


def unreadable(message: str) -> Fault:
    return Fault(Treatment.DOUBTFUL, f"the answer is not as the API's ({message})")


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
