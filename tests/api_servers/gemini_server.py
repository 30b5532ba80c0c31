"""Gemini's API: generateContent, models, files and batches, under /v1 and /v1beta alike."""

import json
from typing import Any

from aiohttp import web

from .core import Call
from .delivery import Canned
from .gemini_batches import GeminiBatchService
from .gemini_shapes import ANSWERS, RATE_FORMS, errors, generated, question_of, rate_limited
from .items import Question
from .log import ASK, LogWriter
from .script import Script

VERSION = "/{version:v1|v1beta}"
_SOME = ("loopback", "gemini-3.8-flash")


class GeminiProvider:
    """The provider behind one server (see core.Provider)."""

    faults = frozenset({*errors(""), *RATE_FORMS, *ANSWERS})

    def __init__(self, script: Script, log: LogWriter) -> None:
        self._script = script
        self._batches = GeminiBatchService(script, log, self.batch_answer)

    def calls(self) -> list[Call]:
        return [
            Call("POST", VERSION + "/models/{model:[^/:]+}:generateContent", ASK),
            Call("GET", VERSION + "/models", "models", self._models),
            Call("GET", VERSION + "/models/{model:[^/:]+}", "model", self._model),
            *self._batches.calls(VERSION),
        ]

    def key(self, request: web.Request) -> str | None:
        return request.headers.get("x-goog-api-key") or request.query.get("key")

    def question(self, request: web.Request, body: bytes) -> Question:
        return question_of(json.loads(body), request.match_info["model"])

    def answer(self, question: Question, fault: str) -> Canned:
        text = self._script.text(question.text, question.image_size_wh)
        return generated(question, text, fault, self._script.reasoning_tokens)

    def error(self, fault: str, model: str) -> Canned | None:
        if form := RATE_FORMS.get(fault):
            return rate_limited(model, self._script.retry_after_s, form)
        return errors(model).get(fault)

    def too_many(self, delay_s: float) -> Canned:
        return rate_limited("loopback", delay_s, "details" if self._script.tells_delay else "bare")

    def batch_answer(self, question: Question, fault: str) -> Canned:
        """The answer to one request of a batch."""
        return self.error(fault, question.model) or self.answer(question, fault)

    def _models(self, request: web.Request, body: bytes) -> Canned:
        return Canned(
            200, json.dumps({"models": [_model(name) for name in self._script.models or _SOME]}).encode()
        )

    def _model(self, request: web.Request, body: bytes) -> Canned:
        name = request.match_info["model"]
        if self._script.models and name not in self._script.models:
            return errors(name)["404"]
        return Canned(200, json.dumps(_model(name)).encode())


def _model(name: str) -> dict[str, Any]:
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name,
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens", "batchGenerateContent"],
    }
