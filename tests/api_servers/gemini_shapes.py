"""Gemini's answers and errors (https://ai.google.dev/api/generate-content), google.rpc.Status inside."""

import base64
import json
import math
from typing import Any

from .delivery import Canned, html
from .items import Question, text_tokens

_TYPES = "type.googleapis.com/google.rpc."
_SERVICE = "generativelanguage.googleapis.com"
# The same sentence for the minute's quota and the day's: only the details tell them apart.
_OVER_QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this "
    "error, head to: https://ai.google.dev/gemini-api/docs/rate-limits."
)


def question_of(body: dict[str, Any], model: str) -> Question:
    """The user's texts and its inline image. Raises ValueError, KeyError or TypeError for what is none."""
    texts, image = [], b""
    for content in body["contents"]:
        if content.get("role", "user") != "user":
            continue
        for part in content["parts"]:
            if "text" in part:
                texts.append(part["text"])
            elif "inlineData" in part:
                image += _bytes(part["inlineData"]["data"])
    return Question("\n".join(texts), image, model.removeprefix("models/"), body)


def _bytes(data: str) -> bytes:
    """Base64 as the SDK writes it, with the alphabet of URLs, or the other one."""
    return base64.b64decode(data.replace("-", "+").replace("_", "/"), validate=True)


def gemini_error(
    status: int, name: str, message: str, *details: dict[str, Any], final: bool = False
) -> Canned:
    """{"error": {code, message, status, details}}."""
    error: dict[str, Any] = {"code": status, "message": message, "status": name}
    if details:
        error["details"] = list(details)
    return Canned(status, json.dumps({"error": error}, indent=2).encode(), final=final)


def rate_limited(model: str, delay_s: float, form: str = "details") -> Canned:
    """429 for requests a minute. form: where the delay stands: details, the message, the header, nowhere."""
    quota = _quota(model, "GenerateRequestsPerMinutePerProjectPerModel-FreeTier")
    if form == "details":
        delay = math.ceil(1000 * delay_s) / 1000
        return gemini_error(429, "RESOURCE_EXHAUSTED", _OVER_QUOTA, *quota, _retry(f"{delay:g}s"))
    if form == "message":  # seen with no other detail than the link to the quotas
        message = f"{_OVER_QUOTA} Please retry in {delay_s:.9g}s."
        return gemini_error(429, "RESOURCE_EXHAUSTED", message, quota[1])
    if form == "seconds":
        answer = gemini_error(429, "RESOURCE_EXHAUSTED", _OVER_QUOTA, *quota)
        return Canned(429, answer.body, {"retry-after": f"{delay_s:g}"})
    return gemini_error(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).")


def _quota(model: str, quota_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    violation = {
        "quotaMetric": f"{_SERVICE}/generate_content_free_tier_requests",
        "quotaId": quota_id,
        "quotaDimensions": {"location": "global", "model": model},
        "quotaValue": "10",
    }
    link = {
        "description": "Learn more about Gemini API quotas",
        "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
    }
    return (
        {"@type": f"{_TYPES}QuotaFailure", "violations": [violation]},
        {"@type": f"{_TYPES}Help", "links": [link]},
    )


def _retry(delay: str) -> dict[str, Any]:
    return {"@type": f"{_TYPES}RetryInfo", "retryDelay": delay}


def errors(model: str) -> dict[str, Canned]:
    """Fault -> error, for the faults that do not depend on what was asked."""
    bad_key = {
        "@type": f"{_TYPES}ErrorInfo",
        "reason": "API_KEY_INVALID",
        "domain": "googleapis.com",
        "metadata": {"service": _SERVICE},
    }
    per_day = _quota(model, "GenerateRequestsPerDayPerProjectPerModel-FreeTier")
    absent = f"models/{model} is not found for API version v1beta, or is not supported for generateContent."
    denied = "Your project has been denied access. Please contact support."
    billing = (
        "Your prepayment credits are depleted. Please go to AI Studio to manage your project and billing."
    )
    return {
        # a short delay is told even where only the day's end helps
        "per_day": gemini_error(429, "RESOURCE_EXHAUSTED", _OVER_QUOTA, *per_day, _retry("13s")),
        "insufficient_quota": gemini_error(429, "RESOURCE_EXHAUSTED", billing),
        "401": gemini_error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", bad_key),
        "403": gemini_error(403, "PERMISSION_DENIED", denied),
        "404": gemini_error(404, "NOT_FOUND", absent),
        "408": gemini_error(408, "DEADLINE_EXCEEDED", "The request timed out."),
        "409": gemini_error(409, "ABORTED", "The operation was aborted."),
        "500": gemini_error(500, "INTERNAL", "An internal error has occurred. Please retry."),
        "502": html(502, "502. That's an error."),
        "503": gemini_error(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
        "504": gemini_error(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
        "bad_parameter": gemini_error(
            400, "INVALID_ARGUMENT", "Invalid JSON payload received. Unknown name \"seed\" at 'generation_config'."
        ),
        "invalid_image": gemini_error(400, "INVALID_ARGUMENT", "Unable to process input image."),
        "context_length_exceeded": gemini_error(
            400, "INVALID_ARGUMENT", "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
        ),
        "location": gemini_error(400, "FAILED_PRECONDITION", "User location is not supported for the API use."),
        "error_200": Canned(200, json.dumps({"error": {"code": 500, "message": "Upstream", "status": "INTERNAL"}}).encode()),
    }  # fmt: skip


RATE_FORMS = {
    "rate_limit": "details",
    "rate_limit_message": "message",
    "rate_limit_seconds": "seconds",
    "rate_limit_bare": "bare",
}
# Faults that are answers of another shape -> the finish reason of their candidate.
FINISH = {
    "safety": "SAFETY",
    "recitation": "RECITATION",
    "prohibited_content": "PROHIBITED_CONTENT",
    "malformed": "MALFORMED_FUNCTION_CALL",
    "other": "OTHER",
    "max_tokens": "MAX_TOKENS",
    "empty_parts": "STOP",
    "thoughts_only": "MAX_TOKENS",
    "wrong_model": "STOP",
}
BLOCKED = {"blocked_safety": "SAFETY", "blocked_prohibited": "PROHIBITED_CONTENT"}
_WITHOUT_CONTENT = ("safety", "recitation", "prohibited_content", "malformed", "other")
_NO_ANSWER = ("no_candidates", "empty_parts", "malformed", "other")
ANSWERS = (*FINISH, *BLOCKED, "no_candidates")


def generated(question: Question, text: str, fault: str, reasoning_tokens: int = 0) -> Canned:
    """A GenerateContentResponse, bent by one of ANSWERS."""
    body: dict[str, Any] = {
        "candidates": [_candidate(text, fault)],
        "usageMetadata": usage(question, "" if fault in BLOCKED else text, reasoning_tokens),
        "modelVersion": "another-model" if fault == "wrong_model" else question.model,
        "responseId": question.item,
    }
    if fault == "no_candidates" or fault in BLOCKED:
        del body["candidates"]
    if fault in BLOCKED:
        body["promptFeedback"] = {"blockReason": BLOCKED[fault]}
    return Canned(200, json.dumps(body).encode(), final=fault not in _NO_ANSWER)


def _candidate(text: str, fault: str) -> dict[str, Any]:
    content: dict[str, Any] = {"role": "model", "parts": [{"text": text}]}
    if fault == "max_tokens":
        content["parts"] = [{"text": text[: len(text) // 2]}]
    elif fault == "empty_parts":
        del content["parts"]
    elif fault == "thoughts_only":
        content["parts"] = [{"text": "I count the lines one by one.", "thought": True}]
    candidate = {"content": content, "finishReason": FINISH.get(fault, "STOP"), "index": 0}
    if fault in _WITHOUT_CONTENT:
        del candidate["content"]
    return candidate


def usage(question: Question, text: str, reasoning_tokens: int) -> dict[str, int]:
    """Tokens as Gemini counts them: 258 an image; thoughts are billed but are not in candidatesTokenCount."""
    prompt = text_tokens(question.text) + (258 if question.image else 0)
    reply = text_tokens(text) if text else 0
    counts = {"promptTokenCount": prompt, "candidatesTokenCount": reply}
    if reasoning_tokens:
        counts["thoughtsTokenCount"] = reasoning_tokens
    return counts | {"totalTokenCount": prompt + reply + reasoning_tokens}
