"""Random and mutated strings through every parser: no exception, no slow parse.

python -m benchmarks.parser_fuzz [--n 100000] [--seed 0]
"""

import argparse
import random
import time
from collections.abc import Iterator

from evalkit.parsers import PARSERS, parse

SEEDS = (
    "The blue and red lines do not intersect at any point.",
    "They cross 2 times: once near the top left and once at the right.",
    "\\boxed{two} so the answer is **3**, or 4.",
    '```json\n[{"bbox_2d": [10, 20, 110, 220], "label": "dish"}]\n```',
    '<points coords="1 1 199 239 2 279 307" alt="x">x</points>',
    '<point x="61.5" y="40.4" alt="y">',
    "[(284, 572), (410, 572), (410, 829), (284, 829)]",
    "<think>is it yes or no?</think> No, node A is not connected to node D.",
    "<|box_start|>(1,2),(3,4)<|box_end|> {<1><2><3><4>} x1=1, y1=2, x2=3, y2=4",
    "I'm sorry, I can't assist with that request.",
)
PIECES = (
    *"[](){}<>,.;:=\"'`*_#/\\-+|0123456789 \n\t", "not ", "no ", "yes ", "two ", "there are ", "answer is ",
    "x1=", "y=", "coords=\"", "\\boxed{", "<point ", "bbox_2d\": [", "\u00a0", "\u200b", "\ud800", "（", "３", "\x00",
    "touch ", "times ", "a" * 50, "1" * 400, " " * 300, "[" * 300, "9.", "and ",
)  # fmt: skip


def mutate(text: str, chance: random.Random) -> str:
    for _ in range(chance.randint(1, 8)):
        at = chance.randint(0, len(text))
        match chance.randrange(4):
            case 0:
                text = text[:at] + chance.choice(PIECES) + text[at:]
            case 1:
                text = text[:at] + text[at + chance.randint(0, 10) :]
            case 2:
                text = text[:at] + text[max(0, at - 30) : at] * chance.randint(1, 20) + text[at:]
            case _:
                text = text[:at] + chr(chance.randrange(0x11000)) + text[at:]
    return text


def strings(n: int, seed: int) -> Iterator[str]:
    """Half mutated replies, half random pieces; every thousandth a long run of one piece."""
    chance = random.Random(seed)
    for i in range(n):
        if i % 1000 == 0:
            yield chance.choice((*PIECES, *SEEDS)) * chance.randint(1_000, 20_000)
        elif i % 2:
            yield mutate(chance.choice(SEEDS), chance)
        else:
            yield "".join(chance.choices(PIECES, k=chance.randint(0, 60)))


def slowest(parser: str, n: int, seed: int) -> tuple[float, str]:
    """Seconds of the slowest parse, and its text; an exception of the parser goes through."""
    worst, text = 0.0, ""
    for candidate in strings(n, seed):
        start = time.perf_counter()
        parse(parser, candidate)
        taken = time.perf_counter() - start
        if taken > worst:
            # a scheduler's pause is not the parser's: a candidate for the worst is timed again
            for _ in range(3):
                start = time.perf_counter()
                parse(parser, candidate)
                taken = min(taken, time.perf_counter() - start)
            if taken > worst:
                worst, text = taken, candidate
    return worst, text


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--n", type=int, default=100_000)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    for parser in PARSERS:
        start = time.perf_counter()
        worst, text = slowest(parser, given.n, given.seed)
        rate = given.n / (time.perf_counter() - start)
        print(
            f"{parser:<8} {given.n} strings, 0 exceptions, slowest {1000 * worst:6.2f} ms "
            f"({len(text)} characters: {text[:40]!r}), {rate:,.0f}/s"
        )


if __name__ == "__main__":
    main()
