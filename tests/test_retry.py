"""The retry and concurrency policy: what is tried again, how often, how many at once, what ends a run."""

import asyncio

import pytest

pytest.importorskip("tenacity", reason="the `api` extra is not installed")

from model_adapters.retry import Fault, Limits, Pacer, Policy, Treatment, Window

R, P, X, D, J, S, Q = (
    Treatment.RATE, Treatment.PASSING, Treatment.REFUSED, Treatment.DOUBTFUL, Treatment.REJECTED,
    Treatment.STOP, Treatment.QUOTA,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("model_adapters.retry.random.uniform", lambda low, high: 0.0)


def asking(*outcomes):
    """An ask() that ends so, one after another, and then answers."""
    left = list(outcomes)

    async def ask():
        await asyncio.sleep(0)
        if left:
            outcome = left.pop(0)
            raise outcome if isinstance(outcome, Fault) else Fault(outcome, f"{outcome.value} fault")
        return "answer"

    return ask


def call(*outcomes, limits=None, before=0):
    """(answer, attempts), or the fault, of one call after `before` calls that were answered."""

    async def main():
        policy = Policy(limits or Limits())
        for _ in range(before):
            await policy.call(asking())
        try:
            return await policy.call(asking(*outcomes))
        except Fault as fault:
            return fault.treatment, fault.attempts

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ((), ("answer", 1)),
        ((P,), ("answer", 2)),
        ((P,) * 7, ("answer", 8)),
        ((P,) * 8, (P, 8)),
        ((D, D), ("answer", 3)),
        ((D, D, D), (D, 3)),
        ((R,) * 12, ("answer", 13)),
        ((R,) * 20, (R, 20)),
        ((P, D, R, D, P), ("answer", 6)),  # each kind has its own count
        ((P, D, D, D), (D, 4)),
        ((J,), (J, 1)),
        ((S,), (S, 1)),
        ((Q,), (Q, 1)),
        ((Fault(P, "tomorrow", delay_s=86_400),), (Q, 1)),
        ((Fault(R, "later", delay_s=601),), (Q, 1)),  # a server that asks for hours is out of quota
    ],
)
def test_what_is_tried_again(outcomes, expected):
    assert call(*outcomes) == expected


@pytest.mark.parametrize(("before", "expected"), [(0, (S, 3)), (1, ("answer", 8))])
def test_refused_connections_stop_a_run_that_never_had_an_answer(before, expected):
    assert call(*(X,) * 7, before=before) == expected


def test_the_first_five_rejected_alike_stop_the_run():
    async def main(kinds, proven=False):
        policy, ends = Policy(Limits(), proven=proven), []
        for alike in kinds:
            try:
                await policy.call(asking(Fault(J, f"no {alike}", alike=alike)) if alike else asking())
                ends.append("answer")
            except Fault as fault:
                ends.append(fault.treatment)
        return ends

    assert asyncio.run(main(["a"] * 5)) == [J] * 4 + [S]
    assert asyncio.run(main(["a"] * 5, proven=True)) == [J] * 5  # the questions' fault, not the model's
    assert asyncio.run(main(["a", "b", "a", "a", "a"])) == [J] * 5
    assert asyncio.run(main(["a", None, "a", "a", "a", "a"])) == [J, "answer", J, J, J, J]


def test_our_own_deadline_ends_a_call_that_trickles():
    async def main():
        policy = Policy(Limits(timeout_s=0.02))
        calls = []

        async def ask():
            calls.append(1)
            await asyncio.sleep(30)

        with pytest.raises(Fault, match=r"no answer within 0\.02 s") as caught:
            await policy.call(ask)
        return len(calls), caught.value.treatment, policy.window.in_flight

    assert asyncio.run(main()) == (3, D, 0)


def test_nothing_is_tried_again_once_the_run_stops():
    async def main():
        policy = Policy(Limits())
        policy.stopped = True
        with pytest.raises(Fault):
            await policy.call(asking(P))
        return True

    assert asyncio.run(main())


def test_the_window_halves_once_a_round_and_widens_again():
    async def main():
        window = Window(16)
        sent = [await window.enter() for _ in range(16)]
        await asyncio.sleep(0.001)
        for at in sent:  # sixteen refusals of one round
            window.narrow(at, 0.0)
        after_round = window.limit
        for _ in range(16):
            window.leave()
        again = await window.enter()
        window.narrow(again, 0.0)
        after_next = window.limit
        for _ in range(200):
            window.widen()
        return after_round, after_next, window.cuts, round(window.limit)

    assert asyncio.run(main()) == (8.0, 4.0, 2, 16)


def test_all_wait_out_the_servers_delay_and_retries_go_first():
    async def main():
        loop, window, order = asyncio.get_running_loop(), Window(1), []
        started = await window.enter()

        async def wait(name, again):
            at = await window.enter(again=again)
            order.append((name, at - started >= 0.05))
            window.leave()

        new = loop.create_task(wait("new", False))
        await asyncio.sleep(0)
        window.narrow(started, 0.05)
        retry = loop.create_task(wait("retry", True))
        await asyncio.sleep(0)
        window.leave()
        await asyncio.gather(new, retry)
        return order

    assert asyncio.run(main()) == [("retry", True), ("new", True)]


def test_a_cancelled_wait_gives_its_place_back():
    async def main():
        window = Window(1)
        await window.enter()
        waiting = asyncio.create_task(window.enter())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        window.leave()
        await asyncio.wait_for(window.enter(), 1)
        return window.in_flight

    assert asyncio.run(main()) == 1


@pytest.mark.parametrize(("rpm", "tpm", "tokens"), [(6000, None, 0), (None, 600_000, 100)])
def test_a_known_limit_paces(rpm, tpm, tokens):
    """Nine tenths of 100 requests, or of 10,000 tokens, a second: eleven more take 0.11 to 0.13 s."""

    async def main():
        pacer, loop = Pacer(rpm, tpm), asyncio.get_running_loop()
        while True:  # until the bucket is empty
            before = loop.time()
            await pacer.wait(tokens)
            if loop.time() - before > 0.002:
                break
        started = loop.time()
        for _ in range(11):
            await pacer.wait(tokens)
        return loop.time() - started

    assert 0.1 <= asyncio.run(main()) < 0.5


def test_a_server_that_asks_for_no_delay_gets_one(monkeypatch):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr("model_adapters.retry.asyncio.sleep", sleep)
    monkeypatch.setattr("model_adapters.retry.random.uniform", lambda low, high: high)
    assert call(*[Fault(R, "full", delay_s=0.0)] * 12) == ("answer", 13)
    assert [w for w in waits if w] == [1, 2, 4, 8, 16, 32, 60, 60]  # after four that are as the server says
