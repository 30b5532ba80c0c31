"""What replies cost, what a question will cost at most, and a budget that holds while many are in flight."""

import threading
from collections import deque
from pathlib import Path

import pytest

from evalkit.costs import Budget, cost_usd
from evalkit.records import Prompt
from model_adapters import get_entry
from model_adapters.estimate import Estimate, estimate, image_tokens, text_tokens
from model_adapters.registry import ImageTokens

PRICES = {"input_usd": 2.0, "output_usd": 10.0, "batch_factor": 0.5}


def row(sample_id, n_input, n_output, **more):
    return {"sample_id": sample_id, "usage": {"input_tokens": n_input, "output_tokens": n_output}, **more}


def prompt(i, size_wh=(512, 512), text="how many?", max_new_tokens=16):
    return Prompt(f"s{i}", text, Path("x.png"), size_wh, max_new_tokens, "0" * 64)


@pytest.mark.parametrize(
    ("rows", "usd"),
    [
        ([], 0.0),
        ([row("a", 1_000_000, 0)], 2.0),
        ([row("a", 500_000, 100_000), row("b", 0, 0)], 2.0),
        ([row("a", 1_000_000, 100_000, batched=True)], 1.5),  # half of 2 + 1
        ([{"sample_id": "a", "usage": {}}], 0.0),  # failed: the provider counted nothing
    ],
)
def test_cost_of_rows(rows, usd):
    assert cost_usd(PRICES, rows) == pytest.approx(usd)
    assert cost_usd(None, rows) is None


@pytest.mark.parametrize(
    ("rule", "size_wh", "options", "tokens"),
    [
        # the provider's own examples: 1024 x 1024 -> 768 x 768 -> 4 tiles; 2048 x 4096 -> 768 x 1536 -> 6
        ({"rule": "tiles_512", "base": 85, "per_tile": 170}, (1024, 1024), {}, 765),
        ({"rule": "tiles_512", "base": 85, "per_tile": 170}, (2048, 4096), {}, 1105),
        ({"rule": "tiles_512", "base": 85, "per_tile": 170}, (4096, 8192), {"detail": "low"}, 85),
        ({"rule": "tiles_512", "base": 85, "per_tile": 170}, (336, 336), {}, 255),
        ({"rule": "patches_32"}, (1024, 1024), {}, 1024),
        ({"rule": "patches_32", "factor": 1.62, "limit": 1536}, (336, 336), {}, 197),  # 11 x 11 = 121
        ({"rule": "patches_32", "limit": 1536}, (4000, 4000), {}, 1536),
        ({"rule": "tiles_768", "base": 258, "per_tile": 258}, (384, 384), {}, 258),
        ({"rule": "tiles_768", "base": 258, "per_tile": 258}, (1536, 800), {}, 1032),
        ({"rule": "fixed", "base": 1120}, (10, 10), {}, 1120),
        (None, (10, 10), {}, 0),
    ],
)
def test_tokens_of_an_image(rule, size_wh, options, tokens):
    assert image_tokens(ImageTokens(**rule) if rule else None, size_wh, options) == tokens


def test_estimate_of_a_run():
    entry = get_entry("gemini-3.8-flash")  # 1,120 an image, 4,096 of room to think
    about = estimate(entry, [prompt(i) for i in range(10)])
    assert about == Estimate(10 * (1120 + text_tokens("how many?")), 10 * (16 + 4096))
    assert entry.prices is not None
    full = about.usd(entry.prices.model_dump())
    assert full == pytest.approx((11_230 * 0.75 + 41_120 * 3.75) / 1e6)
    assert about.usd(entry.prices.model_dump(), batch=True) == pytest.approx(full / 2)


def spend(budget, n, usage, in_flight):
    """Questions answered when up to in_flight of them are asked at once, as the runner does."""
    left, asked = deque(prompt(i) for i in range(n)), []
    while left and budget.has_room_for(left[0]):
        source, flying = budget.handed(left), []
        while True:
            while len(flying) < in_flight and (one := next(source, None)) is not None:
                flying.append(one)
            if not flying:
                break
            done = flying.pop(0)
            asked.append(done.sample_id)
            budget.charge(row(done.sample_id, *usage))
    return asked


@pytest.mark.parametrize("in_flight", [1, 4, 64])
@pytest.mark.parametrize(("limit", "at_most"), [(0.0, 0), (0.0009, 0), (0.001, 1), (0.0105, 10), (1.0, 100)])
def test_the_budget_is_used_and_never_exceeded(in_flight, limit, at_most):
    """A question costs 0.001 dollars, as was expected of it."""
    budget = Budget(limit, PRICES, lambda prompt: 0.001)
    asked = spend(budget, 100, (0, 100), in_flight)
    assert len(asked) == at_most


@pytest.mark.parametrize("in_flight", [1, 8])
def test_what_was_reserved_too_high_is_given_back(in_flight):
    budget = Budget(0.1, PRICES, lambda prompt: 0.01)  # each costs 0.001 in the end
    asked = spend(budget, 1000, (0, 100), in_flight)
    assert len(asked) == 91  # 91 + one more expected at 0.01 would exceed 0.1


def test_a_dearer_reply_teaches():
    budget = Budget(0.01, PRICES, lambda prompt: 0.0001)
    asked = spend(budget, 100, (0, 300), in_flight=1)  # 0.003 each, thirty times what was expected
    assert len(asked) == 3


def test_a_resumed_run_counts_what_is_stored():
    budget = Budget(0.01, PRICES, lambda prompt: 0.001)
    budget.charge_stored([row(f"old{i}", 0, 100) for i in range(8)])
    assert len(spend(budget, 100, (0, 100), in_flight=4)) == 2


def test_handing_out_and_charging_in_two_threads():
    budget = Budget(0.5, PRICES, lambda prompt: 0.001)
    left, flying, asked = deque(prompt(i) for i in range(2000)), [], []

    thread = threading.Thread(target=lambda: flying.extend(budget.handed(left)))
    thread.start()
    while thread.is_alive() or flying:
        if flying:
            one = flying.pop(0)
            asked.append(one.sample_id)
            budget.charge(row(one.sample_id, 0, 100))
    thread.join()
    assert len(asked) <= 500
    assert len(set(asked)) == len(asked)
