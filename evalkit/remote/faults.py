"""What storage libraries raise -> one line of ours, without secrets, and whether another try may help."""

import os
import re
import sys
from collections.abc import Iterator

from evalkit.errors import StoreError

# By module, what is raised beside OSError; looked up only where the module was loaded.
_RAISED = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp": ("ClientError",),
    "gcsfs.retry": ("HttpError",),
    "google.auth.exceptions": ("GoogleAuthError",),
    "azure.core.exceptions": ("AzureError",),
}
_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError",
                "GoogleAuthError", "DefaultCredentialsError", "TokenRetrievalError")  # fmt: skip
_NEVER_MENDED = ("ParamValidationError", "NoRegionError", "InvalidRegionError")
_CONFLICTS = ("PreconditionFailed", "412")


class Unreachable(StoreError):
    """The storage does not answer, or not with what was asked for; later it may."""


class Changed(StoreError):
    """An object is not, or no longer, what the caller knew of it."""


class Absent(StoreError):
    """There is no such object."""


def raised() -> tuple[type[Exception], ...]:
    """The errors of storage libraries; any other exception is a bug."""
    found: list[type[Exception]] = [OSError, ValueError, NotImplementedError]
    for module, names in _RAISED.items():
        if loaded := sys.modules.get(module):
            found += [getattr(loaded, name) for name in names if hasattr(loaded, name)]
    return tuple(found)


def translated(error: Exception, what: str) -> StoreError:
    """what: the URL that the call was about."""
    codes = {code for one in _chain(error) if (code := _code(one))}
    names = {base.__name__ for one in _chain(error) for base in type(one).__mro__}
    said = described(error)
    if isinstance(error, FileExistsError) or codes & set(_CONFLICTS):
        return Changed(f"{what}: changed by another process meanwhile ({said}).")
    if "NoSuchBucket" in codes:
        return StoreError(f"{what}: no such bucket: make it first, or mend its name.")
    if isinstance(error, FileNotFoundError):
        return Absent(f"{what}: not there ({said}).")
    if names & set(_CREDENTIALS):
        return StoreError(
            f"{what}: no credentials ({said}). Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or what the storage's library reads."
        )
    if isinstance(error, PermissionError):
        return StoreError(f"{what}: these credentials do not allow it ({said}).")
    if names & set(_NEVER_MENDED) or isinstance(error, ValueError | NotImplementedError):
        return StoreError(f"{what}: cannot be used ({said}).")
    return Unreachable(f"{what}: the storage does not answer as it should ({said}).")


def described(error: BaseException) -> str:
    """One line of at most 300 characters, without keys and without a password in a URL."""
    text = " ".join(str(error).split()) or type(error).__name__
    for name in _SECRETS:
        if value := os.environ.get(name):
            text = text.replace(value, "***")
    text = re.sub(r"//[^/@\s]*@", "//***@", text)
    return "".join(c if c.isprintable() else "?" for c in text)[:300].rstrip(".")


def _chain(error: BaseException) -> Iterator[BaseException]:
    at: BaseException | None = error
    for _ in range(8):
        if at is None:
            return
        yield at
        at = at.__cause__


def _code(error: BaseException) -> str:
    """The code of an S3 error response, or empty."""
    response = getattr(error, "response", None)
    fault = response.get("Error") if isinstance(response, dict) else None
    return str(fault.get("Code", "")) if isinstance(fault, dict) else ""
