"""Seconds that `evalkit --help` and `evalkit tasks` take, beside a bare Python interpreter.

python -m benchmarks.startup [--repeat 10]
"""

import argparse
import subprocess
import sys
import time


def seconds(words: list[str], repeat: int) -> list[float]:
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - start)
    return sorted(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=10)
    repeat = parser.parse_args().repeat
    cases = {
        "python -c pass": ["-c", "pass"],
        "evalkit --help": ["-m", "evalkit", "--help"],
        "evalkit tasks": ["-m", "evalkit", "tasks"],
        "evalkit models": ["-m", "evalkit", "models"],
    }
    base = None
    for name, words in cases.items():
        taken = seconds(words, repeat)
        median = taken[len(taken) // 2]
        base = base or median
        print(
            f"{name:<16} median {median:.3f} s  (min {taken[0]:.3f}, max {taken[-1]:.3f})  {median / base:4.1f} x bare"
        )


if __name__ == "__main__":
    main()
