"""OpenAI's answers and errors, as https://platform.openai.com/docs describes them."""

import base64
import json
import math
import time
from typing import Any

from .delivery import Canned, html
from .items import Question, text_tokens

_INVALID = "invalid_request_error"
_DAY_S = 432  # what is left of the day for a quota of it


def question_of(body: dict[str, Any]) -> Question:
    """The user's texts, and the image of a data URL. Raises ValueError, KeyError or TypeError for what is none."""
    texts, image = [], b""
    for message in body["messages"]:
        if message["role"] != "user":
            continue
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                texts.append(part["text"])
            elif part["type"] == "image_url":
                image += base64.b64decode(part["image_url"]["url"].partition(";base64,")[2], validate=True)
    return Question("\n".join(texts), image, body["model"], body)


def openai_error(
    status: int, message: str, kind: str, code: str | None = None, param: str | None = None, **more: Any
) -> Canned:
    """{"error": {message, type, param, code}}. more: headers, final."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return Canned(status, json.dumps({"error": error}).encode(), **more)


def rate_limited(model: str, delay_s: float, form: str = "ms") -> Canned:
    """429 for requests a minute. form: where the delay stands: ms and seconds, seconds, a date, nowhere."""
    headers = {
        "ms": {"retry-after-ms": str(math.ceil(1000 * delay_s)), "retry-after": str(math.ceil(delay_s))},
        "seconds": {"retry-after": f"{delay_s:g}"},
        "date": {
            "retry-after": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + delay_s + 1))
        },
        "bare": {},
    }[form]
    message = (
        f"Rate limit reached for {model} in organization org-loopback on requests per min (RPM): Limit 500, "
        f"Used 500, Requested 1. Please try again in {math.ceil(1000 * delay_s)}ms. Visit "
        "https://platform.openai.com/account/rate-limits to learn more."
    )
    return openai_error(429, message, "requests", "rate_limit_exceeded", headers=headers)


def _per_day(model: str) -> Canned:
    message = (
        f"Rate limit reached for {model} in organization org-loopback on requests per day (RPD): Limit 200, "
        "Used 200, Requested 1. Please try again in 7m12s. Visit https://platform.openai.com/account/rate-limits "
        "to learn more."
    )
    headers = {"retry-after": str(_DAY_S), "retry-after-ms": str(1000 * _DAY_S)}
    return openai_error(429, message, "requests", "rate_limit_exceeded", headers=headers)


def errors(model: str) -> dict[str, Canned]:
    """Fault -> error, for the faults that do not depend on what was asked."""
    quota = "You exceeded your current quota, please check your plan and billing details."
    server = "The server had an error while processing your request. Sorry about that!"
    return {
        "per_day": _per_day(model),
        "insufficient_quota": openai_error(429, quota, "insufficient_quota", "insufficient_quota"),
        "payment_required": openai_error(402, "Insufficient balance.", "billing_error", "payment_required"),
        "401": openai_error(401, "Incorrect API key provided: sk-***.", _INVALID, "invalid_api_key"),
        "403": openai_error(403, f"Project does not have access to model {model}.", _INVALID, "model_not_found"),
        "404": openai_error(404, f"The model `{model}` does not exist.", _INVALID, "model_not_found"),
        "408": openai_error(408, "The request timed out.", "timeout"),
        "409": openai_error(409, "The resource was updated by another request.", "conflict_error"),
        "500": openai_error(500, server, "server_error"),
        "502": html(502, "502 Bad Gateway"),
        "503": openai_error(503, "The engine is currently overloaded, please try again later.", "server_error"),
        "504": html(504, "504 Gateway Time-out"),
        "529": openai_error(529, "Overloaded", "overloaded_error"),
        "content_policy_violation": openai_error(
            400, "Your request was rejected as a result of our safety system.", _INVALID,
            "content_policy_violation", final=True,
        ),
        "invalid_image": openai_error(
            400, "You uploaded an unsupported image. Please make sure your image is valid.", _INVALID,
            "invalid_image_format",
        ),
        "context_length_exceeded": openai_error(
            400, "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 "
            "tokens.", _INVALID, "context_length_exceeded", "messages",
        ),
        "bad_parameter": openai_error(
            400, "Unsupported parameter: 'seed' is not supported with this model.", _INVALID,
            "unsupported_parameter", "seed",
        ),
        "error_200": Canned(200, json.dumps({"error": {"message": "Upstream error", "code": 502}}).encode()),
    }  # fmt: skip


# Faults that hold only where the request has the parameter that the model does not take.
PARAMETERS: dict[str, tuple[str, Canned]] = {
    "unsupported_max_tokens": (
        "max_tokens",
        openai_error(
            400, "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.", _INVALID, "unsupported_parameter", "max_tokens",
        ),
    ),
    "unknown_max_completion_tokens": (  # servers older than the parameter
        "max_completion_tokens",
        openai_error(400, "Unrecognized request argument supplied: max_completion_tokens", _INVALID),
    ),
    "unsupported_temperature": (
        "temperature",
        openai_error(
            400, "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value "
            "is supported.", _INVALID, "unsupported_value", "temperature",
        ),
    ),
}  # fmt: skip

# Faults that are answers of another shape; the first three hold no answer.
ANSWERS = (
    *("empty_choices", "null_choices", "null_content"),
    *("length", "content_filter", "refusal", "wrong_model"),
)
_NO_ANSWER = ANSWERS[:3]
RATE_FORMS = {
    "rate_limit": "ms",
    "rate_limit_seconds": "seconds",
    "rate_limit_date": "date",
    "rate_limit_bare": "bare",
}


def completion(question: Question, text: str, fault: str, reasoning_tokens: int = 0) -> Canned:
    """A chat completion, bent by one of ANSWERS."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    finish = "stop"
    if fault == "null_content":
        message["content"] = None
    elif fault == "length":
        finish, message["content"] = "length", text[: len(text) // 2]
    elif fault == "content_filter":
        finish, message["content"] = "content_filter", None
    elif fault == "refusal":
        message |= {"content": None, "refusal": "I'm sorry, I can't help with that."}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    body = {
        "id": f"chatcmpl-{question.item}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": "another-model" if fault == "wrong_model" else question.model,
        "choices": {"empty_choices": [], "null_choices": None}.get(fault, [choice]),
        "usage": usage(question, text, reasoning_tokens),
        "service_tier": "default",
        "system_fingerprint": "fp_loopback",
    }
    return Canned(
        200,
        json.dumps(body).encode(),
        {"x-request-id": f"req_{question.item}"},
        final=fault not in _NO_ANSWER,
    )


def usage(question: Question, text: str, reasoning_tokens: int) -> dict[str, Any]:
    """Tokens as OpenAI bills them: 85 + 170 for each tile of 512 px of an image; reasoning is in completion."""
    width, height = question.image_size_wh
    image = 85 + 170 * math.ceil(width / 512) * math.ceil(height / 512) if width else 0
    prompt, reply = text_tokens(question.text) + image + 7, text_tokens(text) + reasoning_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": reply,
        "total_tokens": prompt + reply,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning_tokens, "audio_tokens": 0},
    }
