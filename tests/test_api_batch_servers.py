"""The loopback batch services, seen through the providers' own SDKs."""

import base64
import io
import json

import pytest

for package in ("aiohttp", "openai", "google.genai"):
    pytest.importorskip(package, reason="the `api` extra is not installed")

import httpx2  # noqa: E402
import openai  # noqa: E402
from api_servers import ApiServer, BatchScript, FaultPlan, Script, item_id  # noqa: E402
from google import genai  # noqa: E402
from google.genai import errors, types  # noqa: E402

IMAGE = b"\x89PNG\r\n\x1a\n and more"
BASE64 = base64.b64encode(IMAGE).decode()
N = 6


def openai_line(i, **other):
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}}
    content = [image, {"type": "text", "text": f"question {i}"}]
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    return {"custom_id": f"s{i}", "method": "POST", "url": "/v1/chat/completions", "body": body} | other


def gemini_request(i):
    image = {"mimeType": "image/png", "data": BASE64}
    return {"contents": [{"role": "user", "parts": [{"inlineData": image}, {"text": f"question {i}"}]}]}


def jsonl(lines):
    return io.BytesIO("".join(json.dumps(line) + "\n" for line in lines).encode())


class OpenAIBench:
    """A server of OpenAI and a client of it."""

    def __init__(self, folder, script):
        self.server = ApiServer("openai", script, folder / "log.jsonl")

    def __enter__(self):
        self.server.__enter__()
        self.client = openai.OpenAI(api_key="k", base_url=self.server.url + "/v1", max_retries=0, timeout=2)
        return self

    def __exit__(self, *exception):
        self.client.close()
        self.server.__exit__()

    def create(self, lines, tag="t"):
        file = self.client.files.create(file=("requests.jsonl", jsonl(lines)), purpose="batch")
        return self.client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"tag": tag},
        )

    def statuses(self, batch, looks):
        return [self.client.batches.retrieve(batch.id).status for _ in range(looks)]

    def lines(self, file_id):
        return [json.loads(line) for line in self.client.files.content(file_id).text.splitlines()]


class GeminiBench:
    """A server of Gemini and a client of it."""

    def __init__(self, folder, script):
        self.server = ApiServer("gemini", script, folder / "log.jsonl")

    def __enter__(self):
        self.server.__enter__()
        self.client = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=self.server.url))
        return self

    def __exit__(self, *exception):
        self.client.close()
        self.server.__exit__()

    def upload(self, lines):
        return self.client.files.upload(file=jsonl(lines), config={"mime_type": "application/jsonl"})

    def create(self, n=N, name="t"):
        file = self.upload([{"key": f"s{i}", "request": gemini_request(i)} for i in range(n)])
        return self.client.batches.create(model="m", src=file.name, config={"display_name": name})

    def states(self, batch, looks):
        states = [self.client.batches.get(name=batch.name).state.value for _ in range(looks)]
        return [state.removeprefix("JOB_STATE_") for state in states]


def test_openai_answers_a_batch_in_its_own_order(tmp_path):
    def answer(text, size_wh):
        return text.removeprefix("question ")

    plan = FaultPlan(
        listed={"question 1": "context_length_exceeded", "question 2": "refusal", "question 3": "502"}
    )
    with OpenAIBench(tmp_path, Script(faults=plan, answer=answer, batch=BatchScript(polls=3))) as bench:
        batch = bench.create([openai_line(i) for i in range(N)])
        assert (batch.status, batch.metadata, batch.output_file_id) == ("validating", {"tag": "t"}, None)
        assert bench.statuses(batch, 3) == ["validating", "in_progress", "in_progress"]
        done = bench.client.batches.retrieve(batch.id)
        assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 4, 2)
        good, bad = bench.lines(done.output_file_id), bench.lines(done.error_file_id)
        found = {line["custom_id"]: line["response"]["body"]["choices"][0]["message"] for line in good}
        assert {key: message["content"] for key, message in found.items()} == {
            "s0": "0", "s2": None, "s4": "4", "s5": "5",
        }  # fmt: skip
        assert found["s2"]["refusal"]
        codes = {line["custom_id"]: line["response"]["status_code"] for line in bad}
        assert codes == {"s1": 400, "s3": 502}
        keys = [line["custom_id"] for line in good]
        assert keys != sorted(keys)
        assert bench.client.batches.retrieve(batch.id).output_file_id == done.output_file_id  # made once
        assert bench.server.log.batches() == {batch.id: [item_id(f"question {i}", IMAGE) for i in range(N)]}


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_openai_answers_a_part_of_a_batch_that_ends_early(end, tmp_path):
    with OpenAIBench(tmp_path, Script(batch=BatchScript(polls=0, end=end, unanswered=1 / 3))) as bench:
        batch = bench.create([openai_line(i) for i in range(N)])
        done = bench.client.batches.retrieve(batch.id)
        good, bad = bench.lines(done.output_file_id), bench.lines(done.error_file_id)
        assert (done.status, len(good), len(bad)) == (end, 4, 2)
        assert {line["error"]["code"] for line in bad} == {f"batch_{end}"}
        assert {line["custom_id"] for line in good + bad} == {f"s{i}" for i in range(N)}


@pytest.mark.parametrize(
    ("lines", "code", "line"),
    [
        ([openai_line(0), openai_line(0)], "duplicate_custom_id", 2),
        ([openai_line(0), {"custom_id": "s1"}], "invalid_json_line", 2),
        ([openai_line(0, url="/v1/responses")], "mismatched_endpoint", 1),
        ([openai_line(i) for i in range(N + 1)], "too_many_tasks", None),
        ([], "empty_file", None),
    ],
)
def test_openai_fails_a_batch_whose_file_is_wrong(lines, code, line, tmp_path):
    with OpenAIBench(tmp_path, Script(batch=BatchScript(polls=0, max_requests=N))) as bench:
        batch = bench.client.batches.retrieve(bench.create(lines).id)
        (error,) = batch.errors.data
        assert (batch.status, error.code, error.line, batch.output_file_id) == ("failed", code, line, None)
        assert bench.server.log.batches() == {batch.id: []}  # nothing to pay for


def test_openai_fails_a_batch_for_which_there_is_no_room(tmp_path):
    with OpenAIBench(tmp_path, Script(batch=BatchScript(polls=0, end="failed"))) as bench:
        batch = bench.client.batches.retrieve(bench.create([openai_line(0)]).id)
        assert (batch.status, batch.errors.data[0].code) == ("failed", "token_limit_exceeded")


def test_openai_refuses_what_it_cannot_take(tmp_path):
    with OpenAIBench(tmp_path, Script(batch=BatchScript(max_bytes=100))) as bench:
        with pytest.raises(openai.APIStatusError, match="exceeds 100 bytes"):
            bench.create([openai_line(0)])
        with pytest.raises(openai.NotFoundError, match="No such file"):
            bench.client.batches.create(
                input_file_id="file-x", endpoint="/v1/chat/completions", completion_window="24h"
            )
        for call in (bench.client.batches.retrieve, bench.client.batches.cancel):
            with pytest.raises(openai.NotFoundError, match="No such batch"):
                call("batch_x")
        with pytest.raises(openai.NotFoundError):
            bench.client.files.content("file-x")


def test_openai_lists_cancels_and_deletes(tmp_path):
    with OpenAIBench(tmp_path, Script()) as bench:
        made = [bench.create([openai_line(i)], tag=str(i)) for i in range(5)]
        listed = list(bench.client.batches.list(limit=2))  # three pages, newest first
        assert [batch.metadata["tag"] for batch in listed] == ["4", "3", "2", "1", "0"]
        assert bench.server.log.count(op="list") == 3
        assert bench.client.batches.cancel(made[0].id).status == "cancelling"
        assert bench.statuses(made[0], 1) == ["cancelled"]
        assert bench.statuses(made[1], 1) == ["validating"]  # a list is no look
        assert bench.client.files.delete(made[1].input_file_id).deleted
        with pytest.raises(openai.NotFoundError):
            bench.client.files.retrieve(made[1].input_file_id)


def test_openai_makes_a_batch_whose_answer_is_lost(tmp_path):
    ops = {
        "upload": ("rate_limit",),
        "create": ("lost_answer", "reset_before_headers", "503"),
        "get": ("500",),
    }
    with OpenAIBench(tmp_path, Script(ops=ops)) as bench:
        lines = [openai_line(i) for i in range(N)]
        with pytest.raises(openai.RateLimitError):
            bench.create(lines)
        for error in (openai.APIConnectionError, openai.APIConnectionError, openai.InternalServerError):
            with pytest.raises(error):
                bench.create(lines)
        assert len(list(bench.client.batches.list())) == 1  # the first one was made all the same
        batch = bench.create(lines)
        with pytest.raises(openai.InternalServerError):
            bench.statuses(batch, 1)
        assert sorted(bench.server.log.batched_twice()) == sorted(
            item_id(f"question {i}", IMAGE) for i in range(N)
        )


def test_gemini_answers_a_batch_with_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("google.genai._api_client.CHUNK_SIZE", 500)  # several pieces
    plan = FaultPlan(listed={"question 1": "invalid_image", "question 2": "safety", "question 3": "503"})
    with GeminiBench(tmp_path, Script(faults=plan, batch=BatchScript(polls=3))) as bench:
        batch = bench.create()
        assert (batch.state.value, batch.display_name, batch.dest) == ("JOB_STATE_PENDING", "t", None)
        assert bench.server.log.count(op="upload_bytes") == 3
        assert bench.states(batch, 3) == ["PENDING", "RUNNING", "RUNNING"]
        done = bench.client.batches.get(name=batch.name)
        assert (done.state.value, done.done) == ("JOB_STATE_SUCCEEDED", True)
        content = bench.client.files.download(file=done.dest.file_name).decode()
        found = {entry.pop("key"): entry for entry in map(json.loads, content.splitlines())}
        assert list(found) != sorted(found) == [f"s{i}" for i in range(N)]
        assert {key: entry["error"]["code"] for key, entry in found.items() if "error" in entry} == {
            "s1": 3,
            "s3": 14,
        }
        answer = types.GenerateContentResponse.model_validate(found["s0"]["response"])
        assert (answer.text, answer.model_version) == ("{3}", "m")
        assert found["s2"]["response"]["candidates"][0]["finishReason"] == "SAFETY"
        assert bench.server.log.batches() == {batch.name: [item_id(f"question {i}", IMAGE) for i in range(N)]}


def test_gemini_answers_inside_the_batch(tmp_path):
    """Requests that came in the batch itself; and a file of few requests, where the server likes."""
    with GeminiBench(tmp_path, Script(batch=BatchScript(polls=0, inlined=True))) as bench:
        sources = [{**gemini_request(i), "metadata": {"id": f"s{i}"}} for i in range(N)]
        inlined = bench.client.batches.create(model="m", src=[_snake(source) for source in sources])
        for batch, name in ((inlined, "id"), (bench.create(), "key")):
            answers = bench.client.batches.get(name=batch.name).dest.inlined_responses
            assert sorted(answer.metadata[name] for answer in answers) == [f"s{i}" for i in range(N)]
            assert {answer.response.text for answer in answers} == {"{3}"}


def _snake(source):
    """A request as the SDK takes it."""
    parts = [
        {"inline_data": {"mime_type": "image/png", "data": IMAGE}},
        {"text": source["contents"][0]["parts"][1]["text"]},
    ]
    return {"contents": [{"role": "user", "parts": parts}], "metadata": source["metadata"]}


@pytest.mark.parametrize(("end", "code"), [("expired", 4), ("cancelled", 1)])
def test_gemini_answers_a_part_of_a_batch_that_ends_early(end, code, tmp_path):
    with GeminiBench(tmp_path, Script(batch=BatchScript(polls=0, end=end, unanswered=0.5))) as bench:
        done = bench.client.batches.get(name=bench.create().name)
        content = bench.client.files.download(file=done.dest.file_name).decode()
        found = [json.loads(line) for line in content.splitlines()]
        assert done.state.value == f"JOB_STATE_{end.upper()}"
        assert sorted(entry.get("error", {}).get("code", 0) for entry in found) == [0, 0, 0, code, code, code]


def test_gemini_says_nothing_to_the_sdk_of_why_a_batch_failed(tmp_path):
    with GeminiBench(tmp_path, Script(batch=BatchScript(polls=0, end="failed"))) as bench:
        done = bench.client.batches.get(name=bench.create().name)
        assert (done.state.value, done.error, done.dest) == ("JOB_STATE_FAILED", None, None)


def test_gemini_lists_cancels_and_deletes(tmp_path):
    with GeminiBench(tmp_path, Script(batch=BatchScript(polls=0))) as bench:
        made = [bench.create(1, name=str(i)) for i in range(5)]
        listed = list(bench.client.batches.list(config={"page_size": 2}))
        assert [batch.display_name for batch in listed] == ["4", "3", "2", "1", "0"]
        assert bench.server.log.count(op="list") == 3
        bench.client.batches.cancel(name=made[0].name)
        assert bench.states(made[0], 1) == ["CANCELLED"]
        bench.client.batches.delete(name=made[1].name)
        with pytest.raises(errors.ClientError, match="NOT_FOUND"):
            bench.states(made[1], 1)
        with pytest.raises(errors.ClientError, match="Only generated files"):
            bench.client.files.download(file=bench.upload([{"key": "s0"}]).name)


def test_gemini_refuses_what_it_cannot_take(tmp_path):
    with GeminiBench(tmp_path, Script(batch=BatchScript(max_bytes=5000, max_requests=N - 1))) as bench:
        with pytest.raises(errors.ClientError, match="may not hold 6 requests"):
            bench.create()
        with pytest.raises(errors.ClientError, match="too large"):
            bench.create(60)
        file = bench.upload([{"key": "s0", "request": gemini_request(0)}] * 2)
        with pytest.raises(errors.ClientError, match="a key stands there twice"):
            bench.client.batches.create(model="m", src=file.name)
        assert bench.server.log.batches() == {}


def test_gemini_makes_a_batch_whose_answer_is_lost(tmp_path):
    with GeminiBench(tmp_path, Script(ops={"create": ("lost_answer",), "content": ("503",)})) as bench:
        with pytest.raises(httpx2.ReadError):
            bench.create()
        bench.create()
        assert len(bench.server.log.batched_twice()) == N
        with pytest.raises(errors.ServerError):
            bench.client.files.download(file="files/x")
