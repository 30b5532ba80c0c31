"""OpenAI's API: chat completions, models, files and batches."""

import json
from typing import Any

from aiohttp import web

from .core import Call
from .delivery import Canned
from .items import Question
from .log import ASK, LogWriter
from .openai_batches import OpenAIBatchService
from .openai_shapes import ANSWERS, PARAMETERS, RATE_FORMS, completion, errors, question_of, rate_limited
from .script import Script

_SOME = ("loopback", "gpt-4o", "gpt-6-luna")  # what is listed where the script names no models


class OpenAIProvider:
    """The provider behind one server (see core.Provider)."""

    faults = frozenset({*errors(""), *PARAMETERS, *RATE_FORMS, *ANSWERS})

    def __init__(self, script: Script, log: LogWriter) -> None:
        self._script = script
        self._batches = OpenAIBatchService(script, log, self.batch_answer)

    def calls(self) -> list[Call]:
        return [
            Call("POST", "/v1/chat/completions", ASK),
            Call("GET", "/v1/models", "models", self._models),
            Call("GET", "/v1/models/{model}", "model", self._model),
            *self._batches.calls(),
        ]

    def key(self, request: web.Request) -> str | None:
        return request.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def question(self, request: web.Request, body: bytes) -> Question:
        return question_of(json.loads(body))

    def answer(self, question: Question, fault: str) -> Canned:
        parameter, refused = PARAMETERS.get(fault, ("", None))
        if refused is not None and parameter in question.body:
            return refused
        text = self._script.text(question.text, question.image_size_wh)
        return completion(question, text, fault, self._script.reasoning_tokens)

    def error(self, fault: str, model: str) -> Canned | None:
        if form := RATE_FORMS.get(fault):
            return rate_limited(model, self._script.retry_after_s, form)
        return errors(model).get(fault)

    def too_many(self, delay_s: float) -> Canned:
        return rate_limited("loopback", delay_s, "ms" if self._script.tells_delay else "bare")

    def batch_answer(self, question: Question, fault: str) -> Canned:
        """The answer to one line of a batch; a fault of the line of a connection is a failure inside."""
        return self.error(fault, question.model) or self.answer(question, fault)

    def _models(self, request: web.Request, body: bytes) -> Canned:
        listed = [_model(name) for name in self._script.models or _SOME]
        return Canned(200, json.dumps({"object": "list", "data": listed}).encode())

    def _model(self, request: web.Request, body: bytes) -> Canned:
        name = request.match_info["model"]
        if self._script.models and name not in self._script.models:
            return errors(name)["404"]
        return Canned(200, json.dumps(_model(name)).encode())


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1715367049, "owned_by": "system"}
