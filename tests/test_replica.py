"""One copy of a model, without Ray: what it is given, what it answers, and what it says when it fails."""

import time
from dataclasses import replace

import pytest
from PIL import Image

from evalkit.errors import AdapterError
from evalkit.records import Prompt, Reply
from model_adapters import get_entry, replica
from model_adapters.replica import Parcel, Replica


def prompts(n, path="no such image.png"):
    return [Prompt(f"s{i}", "Where?", path, (8, 8), 16, f"{i:064d}") for i in range(n)]


class Scripted:
    """An adapter that notes how it was handed its prompts."""

    at_once = 2

    def __init__(self, gathers=False, fails_after=None):
        self.gathers, self.fails_after = gathers, fails_after
        self.rounds, self.answered = [], 0

    def replies(self, handed):
        self.rounds.append([])
        for prompt in handed:
            if self.answered == self.fails_after:
                raise AdapterError("The model is gone.")
            self.rounds[-1].append(prompt)
            self.answered += 1
            yield Reply(prompt.sample_id, str(prompt.image_path), "stop", 0.0)

    def describe(self):
        return {"engine": "scripted"}

    def close(self):
        pass


@pytest.fixture
def copy_of(monkeypatch):
    def make(adapter):
        monkeypatch.setattr(replica, "load_adapter", lambda entry: adapter)
        made = Replica()
        return made, made.load(get_entry("fake"))

    return make


def taken(copy, n):
    found = []
    while len(found) < n:
        found += copy.take(5.0)
    return found


def test_a_stream_is_one_round_however_often_it_is_fed(copy_of):
    adapter = Scripted()
    copy, loaded = copy_of(adapter)
    assert loaded.window == 16
    assert loaded.description == {"engine": "scripted"}
    for prompt in prompts(5):
        copy.give([Parcel(prompt)])
        assert [reply.sample_id for reply in taken(copy, 1)] == [prompt.sample_id]
    assert len(adapter.rounds) == 1


def test_a_model_that_gathers_is_handed_lists(copy_of):
    adapter = Scripted(gathers=True)
    copy, loaded = copy_of(adapter)
    assert loaded.window == 16  # two rounds of four batches of two
    copy.give([Parcel(prompt) for prompt in prompts(19)])
    assert sorted(reply.sample_id for reply in taken(copy, 19)) == sorted(p.sample_id for p in prompts(19))
    assert max(map(len, adapter.rounds)) <= 8
    copy.give([Parcel(prompts(1)[0])])
    assert len(taken(copy, 1)) == 1


def test_what_was_answered_comes_before_the_error(copy_of):
    copy, _ = copy_of(Scripted(fails_after=3))
    copy.give([Parcel(prompt) for prompt in prompts(5)])
    assert len(taken(copy, 3)) == 3
    for _ in range(2):
        with pytest.raises(AdapterError, match="The model is gone"):
            copy.take(5.0)
        copy._out.put(AdapterError("The model is gone."))


def test_waiting_in_vain_is_no_error(copy_of):
    copy, _ = copy_of(Scripted())
    started = time.monotonic()
    assert copy.take(0.05) == []
    assert time.monotonic() - started < 2


def test_an_image_from_elsewhere_is_there_while_it_is_asked_and_gone_after(copy_of, tmp_path):
    path = tmp_path / "dot.png"
    Image.new("RGB", (8, 8), "red").save(path)
    copy, _ = copy_of(Scripted())
    prompt = replace(prompts(1)[0], image_path=path)
    copy.give([Parcel(prompt, path.read_bytes())])
    unpacked = copy._images["s0"]
    assert unpacked != path
    assert unpacked.suffix == ".png"
    assert [reply.text for reply in taken(copy, 1)] == [str(unpacked)]
    assert not unpacked.exists()
    copy.close()
    assert not unpacked.parent.exists()
