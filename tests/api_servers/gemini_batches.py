"""Gemini's files and batches: resumable upload, batchGenerateContent, look, list, fetch, cancel.

https://ai.google.dev/api/batch-api and the File API; a batch is a google.longrunning.Operation.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from .batching import Job, fault_of_line, in_order_of_results, unanswered
from .core import Call
from .delivery import Canned
from .gemini_shapes import gemini_error, question_of
from .items import Question
from .log import LogWriter
from .script import Script

_ENDED = {"completed": "SUCCEEDED", "failed": "FAILED", "expired": "EXPIRED", "cancelled": "CANCELLED"}
_PROTO = "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch"
_LATE = {
    "expired": (4, "The batch expired before the request ran."),
    "cancelled": (1, "The batch was cancelled."),
}
# The google.rpc code of an HTTP status
_RPC = {400: 3, 403: 7, 404: 5, 408: 4, 409: 10, 429: 8, 500: 13, 502: 13, 503: 14, 504: 4}


class GeminiBatchService:
    """Files and batches in memory. answer: what a request of a batch is answered, given its fault."""

    def __init__(self, script: Script, log: LogWriter, answer: Callable[[Question, str], Canned]) -> None:
        self._script, self._log, self._answer = script, log, answer
        self._uploads: list[tuple[dict[str, Any], bytearray]] = []
        self._files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._jobs: dict[str, Job] = {}

    def calls(self, version: str) -> list[Call]:
        file, batch = version + "/files/{file:[^/:]+}", version + "/batches/{batch:[^/:]+}"
        return [
            Call("POST", "/upload" + version + "/files", "upload", self._start),
            Call("POST", "/upload-session/{number}", "upload_bytes", self._receive),
            Call("GET", file, "file", self._file),
            Call("DELETE", file, "delete", self._delete),
            Call("GET", file + ":download", "content", self._content),
            Call("GET", "/download" + file + ":download", "content", self._content),
            Call("POST", version + "/models/{model:[^/:]+}:batchGenerateContent", "create", self._create),
            Call("GET", version + "/batches", "list", self._list),
            Call("GET", batch, "get", self._get),
            Call("POST", batch + ":cancel", "cancel", self._cancel),
            Call("DELETE", batch, "delete", self._drop),
        ]

    def _start(self, request: web.Request, body: bytes) -> Canned:
        """Opens a resumable upload: the address for the bytes stands in a header."""
        headers = request.headers
        if (
            headers.get("X-Goog-Upload-Protocol") != "resumable"
            or headers.get("X-Goog-Upload-Command") != "start"
        ):
            return gemini_error(400, "INVALID_ARGUMENT", "A resumable upload must be started.")
        size = int(headers.get("X-Goog-Upload-Header-Content-Length", 0))
        if size > self._script.batch.max_bytes:
            return gemini_error(400, "INVALID_ARGUMENT", f"File is too large: {size} bytes.")
        told = json.loads(body or b"{}").get("file") or {}
        about = {_camel(name): value for name, value in told.items()} | {
            "mimeType": headers.get("X-Goog-Upload-Header-Content-Type", ""),
            "sizeBytes": str(size),
        }
        self._uploads.append((about, bytearray()))
        url = f"http://{request.host}/upload-session/{len(self._uploads) - 1}"
        return Canned(200, b"", {"x-goog-upload-url": url, "x-goog-upload-status": "active"})

    def _receive(self, request: web.Request, body: bytes) -> Canned:
        """One piece at its offset; the last one says "finalize"."""
        about, received = self._uploads[int(request.match_info["number"])]
        if int(request.headers.get("X-Goog-Upload-Offset", -1)) != len(received):
            return gemini_error(400, "INVALID_ARGUMENT", f"The upload stands at {len(received)} bytes.")
        received += body
        if "finalize" not in request.headers.get("X-Goog-Upload-Command", ""):
            return Canned(200, b"", {"x-goog-upload-status": "active"})
        if str(len(received)) != about["sizeBytes"]:
            return gemini_error(
                400, "INVALID_ARGUMENT", f"{len(received)} bytes came of {about['sizeBytes']}."
            )
        body = json.dumps({"file": self._keep(about, bytes(received))}).encode()
        return Canned(200, body, {"x-goog-upload-status": "final"})

    def _keep(self, about: Mapping[str, Any], content: bytes, source: str = "UPLOADED") -> dict[str, Any]:
        name = about.get("name") or f"files/loopback{len(self._files):04d}"
        kept = dict(about) | {
            "name": name,
            "sizeBytes": str(len(content)),
            "createTime": _now(),
            "updateTime": _now(),
            "uri": f"https://generativelanguage.googleapis.com/v1beta/{name}",
            "state": "ACTIVE",
            "source": source,
        }
        self._files[name] = (kept, content)
        return kept

    def _found(self, request: web.Request) -> tuple[dict[str, Any], bytes] | None:
        return self._files.get(f"files/{request.match_info['file']}")

    def _file(self, request: web.Request, body: bytes) -> Canned:
        found = self._found(request)
        return _json(found[0]) if found else _absent("file", request.match_info["file"])

    def _delete(self, request: web.Request, body: bytes) -> Canned:
        gone = self._files.pop(f"files/{request.match_info['file']}", None)
        return _json({}) if gone else _absent("file", request.match_info["file"])

    def _content(self, request: web.Request, body: bytes) -> Canned:
        found = self._found(request)
        if found is None:
            return _absent("file", request.match_info["file"])
        if found[0]["source"] != "GENERATED":
            return gemini_error(400, "INVALID_ARGUMENT", "Only generated files can be downloaded.")
        return Canned(200, found[1], content_type="application/octet-stream")

    def _create(self, request: web.Request, body: bytes) -> Canned:
        told, model = json.loads(body)["batch"], request.match_info["model"]
        try:
            questions = self._questions(told["inputConfig"], model)
        except (ValueError, KeyError, TypeError) as error:
            return gemini_error(400, "INVALID_ARGUMENT", f"Invalid input: {error}")
        if not 0 < len(questions) <= self._script.batch.max_requests:
            return gemini_error(400, "INVALID_ARGUMENT", f"A batch may not hold {len(questions)} requests.")
        job = Job(f"batches/loopback{len(self._jobs):04d}", told | {"model": model}, questions, time.time())
        self._jobs[job.name] = job
        items = [question.item for question in questions.values()]
        self._log.write(event="batch", batch=job.name, items=items, t=time.time())
        return _json(self._operation(job))

    def _questions(self, source: Mapping[str, Any], model: str) -> dict[str, Question]:
        """key -> question, of a file of {"key", "request"} lines or of requests in the batch itself."""
        if name := source.get("fileName"):
            entries = [json.loads(line) for line in self._files[name][1].splitlines()]
        else:
            entries = source["requests"]["requests"]
            for number, entry in enumerate(entries):
                entry["key"] = str(number)
        questions = {entry["key"]: question_of(entry["request"], model) for entry in entries}
        if len(questions) < len(entries):
            raise ValueError("a key stands there twice")
        return questions

    def _get(self, request: web.Request, body: bytes) -> Canned:
        job = self._jobs.get(f"batches/{request.match_info['batch']}")
        if job is None:
            return _absent("batch", request.match_info["batch"])
        job.look(self._script.batch)
        return _json(self._operation(job))

    def _list(self, request: web.Request, body: bytes) -> Canned:
        """Newest first, `pageSize` of them (10) from `pageToken` on."""
        names = sorted(self._jobs, reverse=True)
        start, size = int(request.query.get("pageToken") or 0), int(request.query.get("pageSize", 10))
        page: dict[str, Any] = {
            "operations": [self._operation(self._jobs[n]) for n in names[start : start + size]]
        }
        if start + size < len(names):
            page["nextPageToken"] = str(start + size)
        return _json(page if names else {})

    def _cancel(self, request: web.Request, body: bytes) -> Canned:
        job = self._jobs.get(f"batches/{request.match_info['batch']}")
        if job is None:
            return _absent("batch", request.match_info["batch"])
        job.cancelled = True
        return _json({})

    def _drop(self, request: web.Request, body: bytes) -> Canned:
        gone = self._jobs.pop(f"batches/{request.match_info['batch']}", None)
        return _json({}) if gone else _absent("batch", request.match_info["batch"])

    def _operation(self, job: Job) -> dict[str, Any]:
        state = job.state(self._script.batch)
        about: dict[str, Any] = {
            "@type": _PROTO,
            "name": job.name,
            "model": f"models/{job.told['model']}",
            "displayName": job.told.get("displayName", ""),
            "state": f"BATCH_STATE_{_ENDED.get(state, state.upper())}",
            "createTime": _now(job.created_at),
            "updateTime": _now(),
            "batchStats": {"requestCount": str(len(job.questions))},
        }
        operation: dict[str, Any] = {"name": job.name, "metadata": about}
        if state not in _ENDED:
            return operation
        about["endTime"] = _now()
        operation["done"] = True
        if state == "failed":
            return operation | {
                "error": {"code": 8, "message": "Enqueued tokens exceed the quota of the project."}
            }
        about["output"] = self._output(job, state)
        if state == "completed":
            operation["response"] = {"@type": _PROTO + "Output", **about["output"]}
        return operation

    def _output(self, job: Job, state: str) -> dict[str, Any]:
        """Where the answers are: a file, or the batch itself; made when it is first seen at its end."""
        if not job.results:
            late = unanswered(job, state, self._script.batch)
            keys = in_order_of_results(list(job.questions), self._script.batch, self._script.seed)
            entries = [
                {"key": key, **self._entry(job.questions[key], order, state if key in late else "")}
                for order, key in enumerate(keys)
            ]
            if self._script.batch.inlined or "requests" in job.told["inputConfig"]:
                inlined = [_with_metadata(entry, job) for entry in entries]
                job.results["inlinedResponses"] = {"inlinedResponses": inlined}
            else:
                content = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
                name = job.name.replace("batches/", "files/batch-")
                job.results["responsesFile"] = self._keep({"name": name}, content, "GENERATED")["name"]
        return job.results

    def _entry(self, question: Question, order: int, late: str) -> dict[str, Any]:
        if late:
            code, message = _LATE[late]
            return {"error": {"code": code, "message": message}}
        answer = self._answer(question, fault_of_line(self._script.faults, question, order))
        if answer.status == 200:
            return {"response": json.loads(answer.body)}
        try:
            message = json.loads(answer.body)["error"]["message"]
        except ValueError:  # a proxy's page
            message = answer.body.decode()
        return {"error": {"code": _RPC.get(answer.status, 2), "message": message}}


def _with_metadata(entry: dict[str, Any], job: Job) -> dict[str, Any]:
    """An inlined answer: what its request carried comes back with it; a request of a file has its key."""
    key = entry.pop("key")
    requests = job.told["inputConfig"].get("requests")
    metadata = requests["requests"][int(key)].get("metadata") if requests else {"key": key}
    return entry | ({"metadata": metadata} if metadata else {})


def _camel(name: str) -> str:
    """The SDK names fields as Python does; the service takes both and answers in camel case."""
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def _json(body: Mapping[str, Any]) -> Canned:
    return Canned(200, json.dumps(body).encode())


def _absent(what: str, name: str) -> Canned:
    return gemini_error(404, "NOT_FOUND", f"There is no {what} {name}, or you may not see it.")


def _now(at: float | None = None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
