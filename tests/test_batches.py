"""The batch services' driver: parts under the limits, resume after a kill at any step, nothing submitted twice."""

import itertools
from pathlib import Path

import pytest

pytest.importorskip("tenacity", reason="the `api` extra is not installed")

from evalkit.errors import AdapterError, QuotaExhausted, StoreError
from evalkit.records import Prompt, Reply
from model_adapters.batches import BatchModel, State
from model_adapters.journal import Journal
from model_adapters.retry import Fault, Treatment


class Killed(BaseException):
    """A kill -9 at a step."""


class Provider:
    """What survives a client's death: files, batches with their tags, and how often an item was submitted."""

    def __init__(self):
        self.files, self.batches, self.submitted = {}, {}, []
        self.polls = 0


class Service:
    model, max_requests, max_bytes = "batcher", 4, 10_000

    def __init__(self, provider, kill=None, outcomes=None, states=None):
        self.provider, self.kill, self.outcomes = provider, kill, outcomes or {}
        self.states = states or {}
        self.create_faults = []

    def _step(self, name):
        if self.kill == name:
            self.kill = None
            raise Killed(name)

    def describe(self):
        return {"engine": "batcher"}

    async def open(self): ...

    async def close(self): ...

    def line(self, prompt):
        if prompt.sample_id == "torn":
            raise AdapterError("torn.png: the image cannot be opened.")
        return (prompt.sample_id + "\n").encode()

    async def upload(self, path, tag):
        self._step("before upload")
        self.provider.files[tag] = path.read_text().split()
        self._step("after upload")
        return tag

    async def create(self, file, tag):
        self._step("before create")
        items = self.provider.files[file]
        self.provider.batches[f"batch-{tag}"] = (tag, items)
        self.provider.submitted += items
        self._step("after create")
        if self.create_faults:
            raise self.create_faults.pop()
        return f"batch-{tag}"

    async def find(self, tag):
        return next((name for name, (its, _) in self.provider.batches.items() if its == tag), None)

    async def poll(self, batch):
        self._step("poll")
        self.provider.polls += 1
        return self.states.get(batch) or State("completed", done=True)

    async def results(self, batch, prompts):
        self._step("results")
        found = []
        for item in reversed(self.provider.batches[batch][1]):
            if item in prompts:
                outcome = self.outcomes.get(item, [None])
                one = outcome.pop(0) if len(outcome) > 1 else outcome[0]
                found.append((item, one or Reply(item, f"{{{item}}}", "stop", 0.0)))
        return [pair for pair in found if pair[1] != "absent"]


def prompts(*names):
    return [Prompt(name, "q", Path("x.png"), (8, 8), 16, "0" * 64) for name in names]


def ask(tmp_path, service, names, stored):
    """As the runner does: what is stored is not asked, each reply is stored before the next."""
    model = BatchModel(service, tmp_path / "batches.jsonl", poll_s=0.001)
    for reply in model.replies(prompts(*(name for name in names if name not in stored))):
        assert reply.sample_id not in stored
        stored[reply.sample_id] = reply
    return stored


NAMES = [f"s{i}" for i in range(10)]


def test_parts_stay_under_the_limits(tmp_path):
    provider = Provider()
    stored = ask(tmp_path, Service(provider), NAMES, {})
    assert sorted(len(items) for _, items in provider.batches.values()) == [2, 4, 4]
    assert {name: reply.text for name, reply in stored.items()} == {name: f"{{{name}}}" for name in NAMES}
    assert all(reply.batched and reply.attempts == 1 for reply in stored.values())
    assert not Journal(tmp_path / "batches.jsonl").open_parts()


@pytest.mark.parametrize(
    "step", ["before upload", "after upload", "before create", "after create", "poll", "results"]
)
def test_a_kill_at_any_step_submits_nothing_twice(tmp_path, step):
    provider, stored = Provider(), {}
    with pytest.raises(Killed):
        ask(tmp_path, Service(provider, kill=step), NAMES, stored)
    ask(tmp_path, Service(provider), NAMES, stored)
    assert sorted(stored) == sorted(NAMES)
    assert sorted(provider.submitted) == sorted(NAMES)


def test_a_kill_while_replies_are_stored_collects_the_rest(tmp_path):
    provider, stored = Provider(), {}
    model = BatchModel(Service(provider), tmp_path / "batches.jsonl", poll_s=0.001)
    source = model.replies(prompts(*NAMES))
    for reply in itertools.islice(source, 6):
        stored[reply.sample_id] = reply
    source.close()
    ask(tmp_path, Service(provider), NAMES, stored)
    assert sorted(stored) == sorted(NAMES)
    assert sorted(provider.submitted) == sorted(NAMES)


def test_a_line_of_the_journal_torn_by_a_kill_is_dropped(tmp_path):
    provider = Provider()
    with pytest.raises(Killed):
        ask(tmp_path, Service(provider, kill="poll"), NAMES, {})
    path = tmp_path / "batches.jsonl"
    path.write_bytes(path.read_bytes()[:-9])  # the last `submitted` did not reach the disk
    assert sorted(ask(tmp_path, Service(provider), NAMES, {})) == sorted(NAMES)
    assert sorted(provider.submitted) == sorted(NAMES)


def test_a_create_that_seems_to_fail_is_looked_up(tmp_path, monkeypatch):
    monkeypatch.setattr("model_adapters.retry.random.uniform", lambda low, high: 0.0)
    provider = Provider()
    service = Service(provider)
    service.create_faults = [Fault(Treatment.PASSING, "the connection broke")] * 2
    ask(tmp_path, service, NAMES, {})
    assert sorted(provider.submitted) == sorted(NAMES)


def test_what_a_batch_leaves_unanswered_goes_into_another_three_times_at_most(tmp_path):
    provider = Provider()
    expired = Fault(Treatment.PASSING, "the batch did not answer it (batch_expired)")
    outcomes = {"s1": [expired, None], "s2": [expired], "s3": ["absent", None],
                "s4": [Fault(Treatment.REJECTED, "the request was rejected (400)")]}  # fmt: skip
    stored = ask(tmp_path, Service(provider, outcomes=outcomes), NAMES, {})
    assert (stored["s1"].text, stored["s1"].attempts) == ("{s1}", 2)
    assert (stored["s2"].text, stored["s2"].error, stored["s2"].attempts) == (None, expired.message, 3)
    assert stored["s3"].text == "{s3}"
    assert (stored["s4"].text, stored["s4"].attempts) == (None, 1)
    assert {name: provider.submitted.count(name) for name in ("s0", "s1", "s2", "s3", "s4")} == {
        "s0": 1, "s1": 2, "s2": 3, "s3": 2, "s4": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("treatment", "kind"), [(Treatment.QUOTA, QuotaExhausted), (Treatment.STOP, AdapterError)]
)
def test_a_batch_that_failed_as_a_whole_ends_the_run_and_frees_its_items(tmp_path, treatment, kind):
    provider, stored = Provider(), {}
    service = Service(provider)

    class Failing(dict):
        def get(self, batch):
            return State("failed", failure=Fault(treatment, "it failed (too many queued tokens)"))

    service.states = Failing()
    with pytest.raises(kind, match=r"batcher: batch batch-\w+: it failed \(too many queued tokens\)"):
        ask(tmp_path, service, NAMES[:3], stored)
    assert not stored
    assert sorted(ask(tmp_path, Service(provider), NAMES[:3], stored)) == NAMES[:3]


def test_an_image_that_cannot_be_read_is_a_failed_reply(tmp_path):
    stored = ask(tmp_path, Service(Provider()), ["torn", "s0"], {})
    assert stored["torn"].error == "torn.png: the image cannot be opened."
    assert stored["s0"].text == "{s0}"


def test_images_that_all_cannot_be_read_end_it(tmp_path):
    provider = Provider()
    stored = ask(tmp_path, Service(provider), ["torn"], {})
    assert stored["torn"].error == "torn.png: the image cannot be opened."
    assert not provider.submitted


def test_an_item_of_a_newer_part_is_not_asked_again_by_an_older_one(tmp_path):
    """A run of s0 alone leaves the part of s0 and s1 open; s0 failed in it and is out again in a part of its own."""
    provider, names, stored = Provider(), ["s0", "s1"], {}
    faulty = {"s0": [Fault("late", Treatment.PASSING)]}
    with pytest.raises(Killed):
        ask(tmp_path, Service(provider, kill="poll"), names, stored)  # both are out, nothing is collected
    again = Service(provider, outcomes=faulty)
    again.results = killed_after(again.results, 1)  # type: ignore[method-assign]
    with pytest.raises(Killed):
        ask(tmp_path, again, ["s0"], stored)  # as with a budget; s0 goes into a second part, then the kill
    assert sorted(provider.submitted) == ["s0", "s0", "s1"]
    ask(tmp_path, Service(provider), names, stored)
    assert sorted(provider.submitted) == ["s0", "s0", "s1"]
    assert {name: reply.text for name, reply in stored.items()} == {"s0": "{s0}", "s1": "{s1}"}


def killed_after(results, calls):
    left = itertools.repeat(None, calls)

    async def limited(batch, prompts):
        if next(left, 0) == 0:
            raise Killed("results")
        return await results(batch, prompts)

    return limited


def test_a_batch_that_the_list_shows_late_is_found(tmp_path):
    provider, stored = Provider(), {}
    with pytest.raises(Killed):
        ask(tmp_path, Service(provider, kill="after create"), NAMES[:3], stored)
    late = Service(provider)
    seen = []

    async def find(tag):
        seen.append(tag)
        return None if len(seen) == 1 else await Service.find(late, tag)

    late.find = find  # type: ignore[method-assign]
    ask(tmp_path, late, NAMES[:3], stored)
    assert sorted(provider.submitted) == NAMES[:3]
    assert len(stored) == 3


@pytest.mark.parametrize(
    "line", ["{}", "[1]", '{"event": "sold", "tag": "x"}', '{"event": "submitted", "tag": "x"}']
)
def test_a_file_that_is_no_journal_is_one_line(tmp_path, line):
    (tmp_path / "batches.jsonl").write_text(line + "\n")
    with pytest.raises(StoreError, match=r"batches\.jsonl:1: not a line of a batch journal"):
        Journal(tmp_path / "batches.jsonl")


def test_a_journal_that_cannot_be_written_submits_nothing(tmp_path):
    provider = Provider()
    model = BatchModel(Service(provider), tmp_path / "gone" / "batches.jsonl", poll_s=0.001)
    with pytest.raises(StoreError, match=r"batches\.jsonl: cannot be written \(No such file or directory\)"):
        list(model.replies(prompts(*NAMES)))
    assert provider.submitted == []
