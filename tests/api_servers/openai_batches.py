"""OpenAI's files and batches: upload, create, look, list, fetch, cancel.

https://platform.openai.com/docs/guides/batch; a batch is answered once, when a look first finds it at its end.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from .batching import Job, fault_of_line, in_order_of_results, unanswered
from .core import Call
from .delivery import Canned
from .items import Question
from .log import LogWriter
from .openai_shapes import openai_error, question_of
from .script import Script

_ENDPOINT = "/v1/chat/completions"
_INVALID = "invalid_request_error"
_STATUS = {"pending": "validating", "running": "in_progress"}
_STAMPS = {
    "completed": "completed_at",
    "failed": "failed_at",
    "expired": "expired_at",
    "cancelled": "cancelled_at",
}


class OpenAIBatchService:
    """Files and batches in memory. answer: what a question of a batch is answered, given its fault."""

    def __init__(self, script: Script, log: LogWriter, answer: Callable[[Question, str], Canned]) -> None:
        self._script, self._log, self._answer = script, log, answer
        self._files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._jobs: dict[str, Job] = {}

    def calls(self) -> list[Call]:
        return [
            Call("POST", "/v1/files", "upload", self._upload),
            Call("GET", "/v1/files/{file}", "file", self._file),
            Call("DELETE", "/v1/files/{file}", "delete", self._delete),
            Call("GET", "/v1/files/{file}/content", "content", self._content),
            Call("POST", "/v1/batches", "create", self._create),
            Call("GET", "/v1/batches", "list", self._list),
            Call("GET", "/v1/batches/{batch}", "get", self._get),
            Call("POST", "/v1/batches/{batch}/cancel", "cancel", self._cancel),
        ]

    def _upload(self, request: web.Request, body: bytes) -> Canned:
        try:
            parts = form_parts(request.headers["Content-Type"], body)
            name, content = parts["file"]
            purpose = parts["purpose"][1].decode()
        except (KeyError, ValueError):
            return openai_error(400, "'file' and 'purpose' are required properties.", _INVALID)
        if len(content) > self._script.batch.max_bytes:
            return openai_error(413, f"File exceeds {self._script.batch.max_bytes} bytes.", _INVALID)
        return _json(self._keep(name, content, purpose))

    def _keep(self, name: str, content: bytes, purpose: str) -> dict[str, Any]:
        about = {
            "id": f"file-{len(self._files):04d}",
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }
        self._files[about["id"]] = (about, content)
        return about

    def _file(self, request: web.Request, body: bytes) -> Canned:
        found = self._files.get(request.match_info["file"])
        return _json(found[0]) if found else _no("file", request.match_info["file"])

    def _delete(self, request: web.Request, body: bytes) -> Canned:
        name = request.match_info["file"]
        if self._files.pop(name, None) is None:
            return _no("file", name)
        return _json({"id": name, "object": "file", "deleted": True})

    def _content(self, request: web.Request, body: bytes) -> Canned:
        found = self._files.get(request.match_info["file"])
        if found is None:
            return _no("file", request.match_info["file"])
        return Canned(200, found[1], content_type="application/octet-stream")

    def _create(self, request: web.Request, body: bytes) -> Canned:
        told = json.loads(body)
        found = self._files.get(told.get("input_file_id"))
        if found is None:
            return _no("file", str(told.get("input_file_id")))
        if told.get("endpoint") != _ENDPOINT or told.get("completion_window") != "24h":
            return openai_error(400, "Invalid endpoint or completion_window.", _INVALID, "invalid_value")
        questions, invalid = self._questions(found[1])
        job = Job(f"batch_{len(self._jobs):04d}", told, questions, time.time(), invalid=invalid)
        self._jobs[job.name] = job
        items = [] if invalid else [question.item for question in questions.values()]
        self._log.write(event="batch", batch=job.name, items=items, t=time.time())
        return _json(self._batch(job))

    def _questions(self, content: bytes) -> tuple[dict[str, Question], str]:
        """custom_id -> question, and what is wrong with the file, if anything is."""
        questions: dict[str, Question] = {}
        for number, line in enumerate(content.splitlines(), 1):
            try:
                entry = json.loads(line)
                key, question = entry["custom_id"], question_of(entry["body"])
            except (ValueError, KeyError, TypeError):
                return questions, f"invalid_json_line:{number}"
            if key in questions:
                return questions, f"duplicate_custom_id:{number}"
            if entry.get("url") != _ENDPOINT or entry.get("method") != "POST":
                return questions, f"mismatched_endpoint:{number}"
            questions[key] = question
        if not 0 < len(questions) <= self._script.batch.max_requests:
            return questions, "too_many_tasks" if questions else "empty_file"
        if len({question.model for question in questions.values()}) > 1:
            return questions, "mismatched_model"
        return questions, ""

    def _get(self, request: web.Request, body: bytes) -> Canned:
        job = self._jobs.get(request.match_info["batch"])
        if job is None:
            return _no("batch", request.match_info["batch"])
        job.look(self._script.batch)
        return _json(self._batch(job))

    def _list(self, request: web.Request, body: bytes) -> Canned:
        """Newest first, `limit` of them (20), those that come after the batch `after`."""
        names = sorted(self._jobs, reverse=True)
        if (after := request.query.get("after")) in names:
            names = names[names.index(after) + 1 :]
        shown = names[: int(request.query.get("limit", 20))]
        return _json(
            {
                "object": "list",
                "data": [self._batch(self._jobs[name]) for name in shown],
                "first_id": shown[0] if shown else None,
                "last_id": shown[-1] if shown else None,
                "has_more": len(shown) < len(names),
            }
        )

    def _cancel(self, request: web.Request, body: bytes) -> Canned:
        job = self._jobs.get(request.match_info["batch"])
        if job is None:
            return _no("batch", request.match_info["batch"])
        job.cancelled = True
        return _json(self._batch(job) | {"status": "cancelling"})

    def _batch(self, job: Job) -> dict[str, Any]:
        state = job.state(self._script.batch)
        status = _STATUS.get(state, state)
        about: dict[str, Any] = {
            "id": job.name,
            "object": "batch",
            "endpoint": _ENDPOINT,
            "errors": None,
            "input_file_id": job.told["input_file_id"],
            "completion_window": "24h",
            "status": status,
            "output_file_id": None,
            "error_file_id": None,
            "created_at": int(job.created_at),
            "expires_at": int(job.created_at) + 86_400,
            "metadata": job.told.get("metadata"),
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
        }
        if stamp := _STAMPS.get(state):
            about[stamp] = int(time.time())
        if state == "failed":
            return about | {"errors": {"object": "list", "data": [_failure(job)]}}
        if state in _STAMPS:
            return about | self._results(job, state)
        if state == "running":
            about["request_counts"]["total"] = len(job.questions)
        return about

    def _results(self, job: Job, state: str) -> dict[str, Any]:
        """The files of answers and of errors, made when a batch is first seen at its end."""
        if not job.results:
            late = unanswered(job, state, self._script.batch)
            good, bad = [], []
            keys = in_order_of_results(list(job.questions), self._script.batch, self._script.seed)
            for order, key in enumerate(keys):
                line, is_good = self._line(job.questions[key], key, order, state if key in late else "")
                (good if is_good else bad).append(line)
            for kind, lines in (("output_file_id", good), ("error_file_id", bad)):
                content = "".join(json.dumps(line) + "\n" for line in lines).encode()
                name = f"{job.name}_{kind.partition('_')[0]}.jsonl"
                job.results[kind] = self._keep(name, content, "batch_output")["id"] if lines else None
            counts = {"total": len(keys), "completed": len(good), "failed": len(bad)}
            job.results["request_counts"] = counts
        return job.results

    def _line(self, question: Question, key: str, order: int, late: str) -> tuple[dict[str, Any], bool]:
        line: dict[str, Any] = {
            "id": f"batch_req_{order:05d}",
            "custom_id": key,
            "response": None,
            "error": None,
        }
        if late:
            message = f"This request could not be executed before the batch was {late}."
            return line | {"error": {"code": f"batch_{late}", "message": message}}, False
        answer = self._answer(question, fault_of_line(self._script.faults, question, order))
        try:
            body = json.loads(answer.body)
        except ValueError:  # a proxy's page
            body = {
                "error": {
                    "message": answer.body.decode(),
                    "type": "server_error",
                    "param": None,
                    "code": None,
                }
            }
        line["response"] = {"status_code": answer.status, "request_id": f"req_{order}", "body": body}
        return line, answer.status == 200


def _failure(job: Job) -> dict[str, Any]:
    if not job.invalid:
        message = (
            "Enqueued token limit reached for loopback in organization org-loopback. Limit: 90,000 enqueued "
            "tokens. Please try again once some in_progress batches have been completed."
        )
        return {"code": "token_limit_exceeded", "message": message, "param": None, "line": None}
    code, _, line = job.invalid.partition(":")
    said = f"The input file was rejected: {code.replace('_', ' ')}."
    return {"code": code, "message": said, "param": None, "line": int(line) if line else None}


def _json(body: Mapping[str, Any]) -> Canned:
    return Canned(200, json.dumps(body).encode())


def _no(what: str, name: str) -> Canned:
    return openai_error(404, f"No such {what}: {name}", _INVALID)


def form_parts(content_type: str, body: bytes) -> dict[str, tuple[str, bytes]]:
    """multipart/form-data: field -> (file name or "", content). Raises ValueError for what is none."""
    found = re.search(r"boundary=\"?([^\";]+)", content_type)
    if found is None:
        raise ValueError("no boundary")
    parts: dict[str, tuple[str, bytes]] = {}
    for part in body.split(b"--" + found[1].encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        field = re.search(rb'[; ]name="([^"]*)"', head)
        file_name = re.search(rb'filename="([^"]*)"', head)
        if field is None:
            raise ValueError("a part without a name")
        parts[field[1].decode()] = (file_name[1].decode() if file_name else "", content.removesuffix(b"\r\n"))
    return parts
