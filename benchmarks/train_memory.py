"""What `evalkit train --plan` counts beside what trainings hold and do: memory and floating-point operations.

Two optimiser steps of each case on random models, tiny (under 2 M weights) and mid-size (180 M), on the CPU; of
several ranks the first is measured. Memory is that of all tensors at once (benchmarks.tracked_memory); operations
are torch's own count, with plain attention, which does 4 products backwards where fused kernels do 5.

    python -m benchmarks.train_memory [--quick]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.memory_models import Case, make_checkpoint, make_spec, make_trainer

_LORA: dict[str, Any] = {"tuning": "lora", "freeze": ("vision", "projector"), "precision": "bfloat16"}
_FROZEN: dict[str, Any] = {"freeze": ("vision", "projector"), "precision": "bfloat16"}
QUICK = (Case(size="tiny", per_device_batch=8), Case(**_LORA, checkpointing=True, per_device_batch=8))
CASES = (
    *QUICK,
    Case(family="llava", size="tiny", per_device_batch=8),
    Case(per_device_batch=4, accumulate=2),
    Case(precision="bfloat16"),
    Case(**_FROZEN, checkpointing=True),
    Case(**_LORA, per_device_batch=8),
    Case(family="llava", per_device_batch=4),
    Case(family="llava", **_LORA, per_device_batch=8),
    Case(family="llava", **_LORA, checkpointing=True, per_device_batch=8),
    Case(**_FROZEN, checkpointing=True, ranks=2),
    Case(**_FROZEN, checkpointing=True, ranks=2, sharding="fsdp"),
    Case(**_LORA, checkpointing=True, ranks=2, sharding="fsdp"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tiny and a mid-size case")
    parser.add_argument("--measure", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        from trainers.ranks import leave

        case = Case(**json.loads(chosen.measure[0]))
        found = measure(case, Path(chosen.measure[1]))
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(found), flush=True)
        if case.ranks > 1:
            leave()
        return
    from evalkit.datasets.build import build

    print("planned / measured; baseline: what was measured", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build("grid_patch", folder / "data", n=64, seed=0, workers=1)
        for case in QUICK if chosen.quick else CASES:
            make_checkpoint(case.family, case.size, folder)
            found = json.loads(_run(case, folder))
            memory, work = found["memory"], found["flops"]
            print(
                f"{case}\n    memory {memory['planned'] / 1e6:.0f} / {memory['measured'] / 1e6:.0f} MB = "
                f"x{memory['planned'] / memory['measured']:.2f} (most in {memory['phase']})"
                + (
                    f"; operations {work['planned'] / 1e9:.1f} / {work['measured'] / 1e9:.1f} G a sample = "
                    f"x{work['planned'] / work['measured']:.2f}"
                    if work
                    else ""
                ),
                flush=True,
            )


def _run(case: Case, folder: Path) -> str:
    """The JSON line of a measurement in a process of its own, or in as many as it has ranks."""
    start = [sys.executable, "-m"]
    if case.ranks > 1:
        start += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(case.ranks), "-m"]
    words = [*start, "benchmarks.train_memory", "--measure", json.dumps(asdict(case)), str(folder)]
    done = subprocess.run(
        words, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return done.stdout.strip().splitlines()[-1]


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """{memory, flops}: planned and measured; memory in bytes, flops of one sample, None of several ranks."""
    import torch
    import transformers

    from benchmarks.tracked_memory import TrackedMemory
    from trainers.flops import MeanSample, flops_of
    from trainers.memory import memory_of
    from trainers.shapes import shape_of

    checkpoint = folder / f"{case.family}-{case.size}"
    trainer = make_trainer(case, checkpoint, folder / "data", folder / "out")
    torch.set_num_threads(1)
    memory, batches = TrackedMemory(), []
    memory.see(trainer.model.parameters())
    compute = trainer.compute_loss

    def watched(model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        memory.phase = "forward"
        batches.append(_batch(case, inputs))
        loss = compute(model, inputs, *rest, **named)
        memory.phase = "backward"
        return loss

    trainer.compute_loss = watched
    trainer.create_optimizer_and_scheduler(2)
    trainer.optimizer.register_step_pre_hook(lambda *_: setattr(memory, "phase", "optimiser step"))
    trainer.optimizer.register_step_post_hook(lambda *_: setattr(memory, "phase", "between steps"))
    with memory:
        trainer.train()
    shape = shape_of(transformers.AutoConfig.from_pretrained(checkpoint), case.family, str(checkpoint))
    batch = max(batches, key=lambda one: one.length)
    spec = make_spec(case)
    planned = memory_of(shape, spec, batch, case.ranks, fused=False)
    work = None
    if case.ranks == 1:
        counted, last = _operations(case, trainer, compute)
        mean = MeanSample(last.length, last.n_visual, last.n_patches, last.n_answer)
        work = {"planned": flops_of(shape, spec, mean).total, "measured": counted}
    phase = max(memory.peaks, key=lambda name: memory.peaks[name])
    held = {"planned": planned.tensors, "measured": memory.peaks[phase], "phase": phase}
    return {"memory": held, "flops": work}


def _batch(case: Case, inputs: dict[str, Any]) -> Any:
    from trainers.batches import IGNORED
    from trainers.memory import Batch

    n, length = inputs["input_ids"].shape
    pixels = inputs["pixel_values"]
    return Batch(
        n=n,
        length=length,
        n_visual=inputs["key_index"].shape[1],
        n_patches=len(pixels) // n if case.family == "qwen2_5_vl" else (pixels.shape[2] // 14) ** 2,
        n_answer=int((inputs["labels"] != IGNORED).any(0).sum()),
        padded=not bool(inputs["attention_mask"].all()),
    )


def _operations(case: Case, trainer: Any, compute: Any) -> tuple[float, Any]:
    """Floating-point operations of one sample's forward and backward pass, counted by torch; and the batch."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    inputs = next(iter(trainer.get_train_dataloader()))
    batch = _batch(case, inputs)
    trainer.model.train()
    half = torch.autocast("cpu", dtype=torch.bfloat16, enabled=case.precision == "bfloat16")
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        with half:
            loss = compute(trainer.model, inputs)
        loss.backward()
    return counter.get_total_flops() / batch.n, batch


if __name__ == "__main__":
    main()
