"""Step time and peak memory of KLAL by one row, beside next-token prediction and two other ways to the row.

    python -m benchmarks.klal_step [--quick] [--json] [--only FAMILY] [--sizes S:B,...]

A step is forward and backward, without an optimiser. What is compared is measured in the same run:

    ntp        next-token prediction alone, SDPA: the baseline that all ratios refer to
    one_row    ntp + KLAL, rows from trainers.attention, SDPA
    recompute  ntp + KLAL, rows from output_hidden_states: input norm, q of one position, k of the visual
               positions and RoPE once more for each layer, as GUI-AIMA (arXiv 2511.00810) does; SDPA
    eager      ntp + KLAL, rows sliced from output_attentions
    flash, one_row_flash   CUDA with flash_attn only: ntp and one_row on FlashAttention 2

seconds  Median of the repeats after a warm-up step, then the least over the rounds. Every round starts each
         variant of a case anew, one after the other, so that a slow phase of the machine meets them all.
         CPU: CPU time of one thread, which other processes do not stretch by preempting it; CUDA: wall time.
peak_mb  CPU: the largest resident size of the process, with Python and torch in it, because that is what
         runs out; CUDA: the most memory allocated. Each variant has its own process; least over the rounds.
         Taken in a step of its own, before the timed ones, in which glibc gives freed blocks back at once:
         what it would keep for later differs by up to 20 MB from run to run.
step_mb  What the step adds: peak_mb minus what was held right before it.
klal     The loss term. Variants of a case must agree, or else the exit status is 1.

The models are random: a small one of 8 layers, hidden size 256, in float32; on CUDA in bfloat16, and besides
it 4 layers of the size of Qwen2.5-VL-7B's ("7b_x4"). The vision tower is as cheap as possible and frozen
with its projector, the vocabulary has 1000 entries, samples of a batch are of one length. About 0.8 S of the
S tokens are visual.
"""

import argparse
import ctypes
import json
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.klal_models import BASES, FAMILIES, KV_HEADS, Case, build, loss_of, make_batch

MEASURED = ("seconds", "peak_mb", "step_mb")
CPU_VARIANTS = ("ntp", "one_row", "recompute", "eager")
KLAL_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}  # relative, between variants
OUT_OF_MEMORY = re.compile(r"out of memory|allocate memory|not enough memory|MemoryError")


def clock(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def held_mb(device: str) -> float:
    """Memory in use now; its peak is counted from here on CUDA."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return peak_mb(device)
    return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**20


def peak_mb(device: str) -> float:
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def keep_freed_blocks(largest: int) -> None:
    """glibc keeps freed blocks of fewer bytes than `largest` for later; the system gets back the others."""
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, largest)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2 * largest)  # M_TRIM_THRESHOLD


def step(case: Case, variant: str, model: Any, inputs: tuple[Any, ...]) -> tuple[float, Any]:
    """(seconds, KLAL or None) of one forward and backward."""
    model.zero_grad(set_to_none=True)
    start = clock(case.device)
    loss, attention = loss_of(variant, model, *inputs)
    loss.backward()
    return clock(case.device) - start, attention


def measure(case: Case, variant: str, repeats: int) -> dict[str, Any]:
    """Seconds of the median step, memory and KLAL of one variant, in this process."""
    import torch

    if case.device == "cpu":
        torch.set_num_threads(1)
        with suppress(OSError):  # where memory runs out, this process dies and no other
            Path("/proc/self/oom_score_adj").write_text("1000")
    keep_freed_blocks(2**16)
    model, inputs = build(case, variant), make_batch(case)
    before = held_mb(case.device)
    _, attention = step(case, variant, model, inputs)
    peak = peak_mb(case.device)
    keep_freed_blocks(2**25)  # what glibc itself arrives at: to give back every block would cost time
    seconds = [step(case, variant, model, inputs)[0] for _ in range(1 + repeats)]
    return {
        "seconds": statistics.median(seconds[1:]),
        "peak_mb": peak,
        "step_mb": peak - before,
        "klal": None if attention is None else float(attention),
    }


# ------------------------------------------------------------------------------------------ the comparison


def in_process(case: Case, variant: str, repeats: int) -> dict[str, Any]:
    """`measure` in a fresh process; out of memory it gives an error, any other is raised."""
    task = json.dumps({"case": asdict(case), "variant": variant, "repeats": repeats})
    command = [sys.executable, "-m", "benchmarks.klal_step", "--measure", task]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    last = (done.stderr.strip().splitlines() or [""])[-1]
    killed = done.returncode == -signal.SIGKILL
    if killed or OUT_OF_MEMORY.search(last):
        error = "killed, most likely out of memory" if killed else last
        return {"seconds": None, "peak_mb": None, "step_mb": None, "klal": None, "error": error}
    raise RuntimeError(f"{case}, {variant}: exit status {done.returncode}\n{done.stderr}")


def compare(case: Case, variants: list[str], repeats: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Variant -> what was measured, the least of each number over the rounds."""
    results: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for variant in variants:
            if "error" in results.get(variant, {}):
                continue
            found = in_process(case, variant, repeats)
            if variant in results and "error" not in found:
                for name in MEASURED:
                    found[name] = min(found[name], results[variant][name])
            results[variant] = found
    return results


def disagreement(case: Case, results: dict[str, dict[str, Any]]) -> str | None:
    """A line that says which values of KLAL differ, or None."""
    found = {variant: result["klal"] for variant, result in results.items() if result["klal"] is not None}
    first = next(iter(found.values()), 0.0)
    if all(abs(value - first) <= KLAL_TOLERANCE[case.dtype] * first for value in found.values()):
        return None
    values = ", ".join(f"{variant} {value:.6f}" for variant, value in found.items())
    return f"WARNING {case}: KLAL differs: {values}"


def records(case: Case, results: dict[str, dict[str, Any]], repeats: int) -> Iterator[dict[str, Any]]:
    """One flat record a variant, for --json."""
    for variant, result in results.items():
        record = asdict(case) | {"variant": variant, "repeats": repeats} | result
        first = ("family", "S", "B", "checkpointing", "variant", "seconds", "peak_mb")
        yield {name: record[name] for name in first} | record


def ratio(results: dict[str, dict[str, Any]], variant: str, to: str, name: str) -> float | None:
    """How many times what `to` needs; None where either was not measured."""
    over, under = (results.get(key, {}).get(name) for key in (variant, to))
    return over / under if over is not None and under else None


def times(value: float | None) -> str:
    return "-" if value is None else f"x{value:.2f}"


def table(case: Case, results: dict[str, dict[str, Any]]) -> str:
    titles = ("variant", "seconds", "/ntp", "peak MB", "/ntp", "step MB", "/ntp", "klal")
    lines = [str(case), "  {:<14}{:>9}{:>8}{:>10}{:>8}{:>10}{:>8}{:>12}".format(*titles)]
    for variant, result in results.items():
        if "error" in result:
            lines.append(f"  {variant:<14}  {result['error']}")
            continue
        over = [times(ratio(results, variant, "ntp", name)) for name in MEASURED]
        value = "-" if result["klal"] is None else f"{result['klal']:.6f}"
        lines.append(
            f"  {variant:<14}{result['seconds']:>9.4f}{over[0]:>8}{result['peak_mb']:>10.0f}{over[1]:>8}"
            f"{result['step_mb']:>10.0f}{over[2]:>8}{value:>12}"
        )
    return "\n".join(lines) + "\n"


def summary(found: dict[Case, dict[str, dict[str, Any]]]) -> str:
    """The worst ratios of one_row to ntp, and of eager to one_row in the largest case."""
    lines = ["worst one_row / ntp"]
    for name in MEASURED:
        ratios = {case: ratio(results, "one_row", "ntp", name) for case, results in found.items()}
        measured = {case: value for case, value in ratios.items() if value is not None}
        if measured:
            worst = max(measured, key=lambda case: measured[case])
            lines.append(f"  {name:<8} {times(measured[worst]):>7}  {worst}")
    for over, under in (("eager", "one_row"), ("one_row_flash", "flash")):
        chosen = {case: r for case, r in found.items() if (case.S, case.B) == (2000, 4) and over in r}
        lines += [f"{over} / {under} at S=2000 B=4"] if chosen else []
        for case, results in chosen.items():
            shown = [f"{name} {times(ratio(results, over, under, name))}" for name in MEASURED]
            lines.append(f"  {', '.join(shown)}  {case}")
    return "\n".join(lines)


def surroundings() -> tuple[str, bool]:
    """(cuda or cpu, whether flash_attn can be imported on it), asked of a process of its own."""
    code = (
        "from importlib.util import find_spec; import torch\n"
        "print(torch.cuda.is_available(), find_spec('flash_attn') is not None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    cuda, flash = (word == "True" for word in done.stdout.split())
    return ("cuda", flash) if cuda else ("cpu", False)


def cases(given: argparse.Namespace, device: str) -> Iterator[Case]:
    families = [given.only] if given.only else FAMILIES
    usual = [(256, 1), (256, 2)] if given.quick else [(700, 1), (700, 4), (2000, 1), (2000, 4)]
    checkpointing = (False,) if given.quick else (False, True)
    models, dtype = (("small", "7b_x4"), "bfloat16") if device == "cuda" else (("small",), "float32")
    for model, family, size, on in product(models, families, given.sizes or usual, checkpointing):
        if (family, model) in KV_HEADS:
            yield Case(family, *size, on, model, device, dtype)


def sizes(text: str) -> list[tuple[int, int]]:
    """Tokens and samples of each case: 700:1,2000:4 is [(700, 1), (2000, 4)]."""
    found = [tuple(map(int, pair.split(":"))) for pair in text.split(",")]
    if any(len(pair) != 2 or pair[0] < 64 or pair[0] > 8192 or pair[1] < 1 for pair in found):
        raise argparse.ArgumentTypeError("S:B,... with 64 <= S <= 8192 and B >= 1")
    return [(length, batch) for length, batch in found]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="S=256, B=1 and 2, one repeat, no checkpointing")
    parser.add_argument("--json", action="store_true", help="one JSON line a case and variant")
    parser.add_argument("--only", choices=FAMILIES, help="one family of models")
    parser.add_argument("--sizes", type=sizes, metavar="S:B,...", help="tokens and samples, such as 2000:4")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # the measured processes are started with it
    return parser.parse_args()


def run(given: argparse.Namespace) -> int:
    device, flash = surroundings()
    variants = [v for v in BASES if v in CPU_VARIANTS or flash]
    repeats, rounds = (1, 1) if given.quick else (10 if device == "cuda" else 3, 2)
    found, status = {}, 0
    for case in cases(given, device):
        start = time.monotonic()
        results = found[case] = compare(case, variants, repeats, rounds)
        print(f"done in {time.monotonic() - start:.0f} s: {case}", file=sys.stderr, flush=True)
        lines = (
            [json.dumps(r) for r in records(case, results, repeats)] if given.json else [table(case, results)]
        )
        print("\n".join(lines), flush=True)
        if warning := disagreement(case, results):
            print(warning, file=sys.stderr, flush=True)
            status = 1
    if not given.json:
        print(summary(found))
    return status


def main() -> int:
    given = arguments()
    if given.measure is None:
        return run(given)
    task = json.loads(given.measure)
    print(json.dumps(measure(Case(**task["case"]), task["variant"], task["repeats"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
