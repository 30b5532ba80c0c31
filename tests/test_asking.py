"""Prompts through a thread with an event loop: order, early ends, what is drawn, what is lost (nothing)."""

import asyncio
import threading
from collections import deque
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("tenacity", reason="the `api` extra is not installed")

from evalkit.costs import Budget
from evalkit.errors import AdapterError, QuotaExhausted
from evalkit.records import Prompt, Reply
from model_adapters.asking import ModelNames, png_bytes, redacted, stream
from model_adapters.retry import Fault, Limits, Treatment


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("model_adapters.retry.random.uniform", lambda low, high: 0.0)


def prompts(n):
    return [Prompt(f"s{i}", "how many?", Path("none.png"), (8, 8), 16, "0" * 64) for i in range(n)]


class Scripted:
    """An asker that does with each sample what its script says: seconds to wait, or a Fault to raise."""

    model = "scripted"

    def __init__(self, script=None, wait_s=0.0):
        self.script, self.wait_s = script or {}, wait_s
        self.calls, self.most, self._now, self.closed = [], 0, 0, False

    async def open(self):
        self.thread = threading.current_thread()

    async def close(self):
        self.closed = True

    def prepare(self, prompt):
        if self.script.get(prompt.sample_id) == "unreadable":
            raise AdapterError("none.png: the image cannot be opened.")
        return prompt.text

    def tokens(self, prompt):
        return 1

    async def ask(self, prompt, request):
        self.calls.append(prompt.sample_id)
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            what = self.script.get(prompt.sample_id, self.wait_s)
            if isinstance(what, BaseException):
                raise what
            await asyncio.sleep(what)
        finally:
            self._now -= 1
        return Reply(prompt.sample_id, "{3}", "stop", 0.01)


def test_every_prompt_is_answered_once_and_no_more_are_in_flight_than_allowed():
    asker = Scripted(wait_s=0.001)
    replies = list(stream(prompts(50), asker, Limits(concurrency=7)))
    assert sorted(r.sample_id for r in replies) == sorted(p.sample_id for p in prompts(50))
    assert asker.most == 7
    assert asker.closed
    assert not asker.thread.is_alive()


def test_the_quick_do_not_wait_for_the_slow():
    asker = Scripted({"s0": 0.3})
    replies = [r.sample_id for r in stream(prompts(20), asker, Limits(concurrency=2))]
    assert replies[-1] == "s0"


def test_prompts_are_drawn_only_when_there_is_room():
    drawn = []

    def handed():
        for prompt in prompts(20):
            drawn.append(prompt.sample_id)
            yield prompt

    source = stream(handed(), Scripted(wait_s=0.02), Limits(concurrency=3))
    next(source)
    assert len(drawn) <= 7  # three in flight, and what the first answers made room for
    source.close()


def test_closing_early_drops_what_is_in_flight_and_ends_the_thread():
    asker = Scripted({"s1": 30.0})
    source = stream(prompts(2), asker, Limits(concurrency=2))
    assert next(source).sample_id == "s0"
    source.close()
    assert asker.closed
    assert not asker.thread.is_alive()


def test_an_item_that_fails_is_a_reply_with_its_reason():
    script = {"s1": "unreadable", "s2": Fault(Treatment.DOUBTFUL, "the answer holds no choice")}
    replies = {r.sample_id: r for r in stream(prompts(4), Scripted(script), Limits())}
    assert replies["s1"].error == "none.png: the image cannot be opened."
    assert (replies["s2"].text, replies["s2"].error, replies["s2"].attempts) == (
        None,
        "the answer holds no choice",
        3,
    )
    assert replies["s3"].text == "{3}"


@pytest.mark.parametrize(
    ("treatment", "kind"), [(Treatment.STOP, AdapterError), (Treatment.QUOTA, QuotaExhausted)]
)
def test_a_run_that_cannot_go_on_hands_on_what_it_has_and_then_stops(treatment, kind):
    script = {"s3": Fault(treatment, "the key is refused"), "s2": 0.05}
    got = []
    asker = Scripted(script, wait_s=0.001)
    source = stream(prompts(40), asker, Limits(concurrency=2))
    with pytest.raises(kind, match=r"^scripted: the key is refused\.$"):
        got.extend(reply.sample_id for reply in source)  # extend keeps what came before the end
    assert "s2" in got  # in flight when the run stopped
    assert "s3" not in got  # no failed item: it shall be asked another time
    assert len(asker.calls) < 8


def test_handing_out_no_more_ends_a_run_with_every_reply_that_was_asked_for():
    budget, asker, got = Budget(), Scripted(wait_s=0.05), []
    for reply in stream(budget.handed(deque(prompts(30))), asker, Limits(concurrency=4)):
        got.append(reply.sample_id)
        budget.stop()
    assert sorted(got) == sorted(asker.calls)
    assert 4 <= len(got) <= 9


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ExceptionGroup) as caught:
        list(stream(prompts(2), Scripted({"s0": ZeroDivisionError("a bug")}), Limits()))
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)


@pytest.mark.parametrize(
    ("asked", "answered", "warns"),
    [
        ("gpt-4o", "gpt-4o", False),
        ("gpt-4o", "gpt-4o-2024-08-06", False),
        ("gemini-3.8-flash", "models/gemini-3.8-flash-001", False),
        ("gpt-4o", "gpt-4o-mini", True),
        ("gemini-2.5-flash", "gemini-3.8-flash", True),
        ("gpt-4o", None, False),
    ],
)
def test_another_model_than_the_one_asked_is_told_once(asked, answered, warns, caplog):
    names = ModelNames(asked)
    names.check(answered)
    names.check(answered)
    assert len(caplog.records) == warns


def test_a_key_in_an_error_is_struck_out():
    assert redacted("bad key sk-secret-123\n in header", "sk-secret-123") == "bad key *** in header"
    assert len(redacted("x" * 5000, None)) == 300


@pytest.mark.parametrize(
    ("mode", "form", "exif", "as_it_is"),
    [("RGB", "PNG", False, True), ("L", "PNG", False, True), ("RGBA", "PNG", False, False),
     ("P", "PNG", False, True), ("RGB", "JPEG", False, False), ("RGB", "PNG", True, False)],
)  # fmt: skip
def test_images_go_out_as_png_of_the_declared_pixels(tmp_path, mode, form, exif, as_it_is):
    path = tmp_path / "image"
    picture = Image.linear_gradient("L").resize((24, 16)).convert(mode)
    tags = Image.Exif()
    tags[0x0112] = 6  # turned: annotations are in stored pixels, so it must not be
    picture.save(path, form, **({"exif": tags} if exif else {}))
    sent = png_bytes(Prompt("s", "q", path, (24, 16), 8, "0" * 64))
    assert (sent == path.read_bytes()) == as_it_is
    with Image.open(BytesIO(sent)) as back:
        assert (back.format, back.size, "exif" in back.info) == ("PNG", (24, 16), False)


def test_an_image_of_another_size_than_declared_is_refused(tmp_path):
    Image.new("RGB", (24, 16)).save(tmp_path / "a.png")
    with pytest.raises(AdapterError, match="24 x 16 px, its sample says 20 x 16"):
        png_bytes(Prompt("s", "q", tmp_path / "a.png", (20, 16), 8, "0" * 64))
