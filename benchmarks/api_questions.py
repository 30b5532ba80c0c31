"""What the API benchmarks share: questions on disk, `evalkit run` and bare SDK loops as measured processes."""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evalkit.datasets.disk import METADATA, pixels_sha256

ROOT = Path(__file__).resolve().parents[1]
TASK, SPLIT = "line_intersection", "test"


def write_questions(data: Path, n: int, side: int) -> None:
    """n questions, each on a noise image of its own of side x side px: a PNG that does not compress."""
    folder = data / TASK / SPLIT
    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(n):
        pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i:05d}.png", compress_level=1)
        row = {
            "file_name": f"images/{i:05d}.png",
            "sample_id": f"{i:05d}",
            "image_id": f"{i:05d}",
            "split": SPLIT,
            "gold": i % 6,
            "stratum": str(i % 6),
            "width": side,
            "height": side,
            "pixels_sha256": pixels_sha256((side, side), pixels.tobytes()),
            "geometry": {},
        }
        rows.append(json.dumps(row) + "\n")
    (folder / METADATA).write_text("".join(rows), encoding="utf-8")


def image_files(data: Path) -> list[Path]:
    return sorted((data / TASK / SPLIT / "images").iterdir())


def evalkit_command(folder: Path, data: Path, url: str, concurrency: int, limit: int | None) -> list[str]:
    """`evalkit run` on these questions, with a registry and results of its own in `folder`."""
    entry = {
        "adapter": "openai_api",
        "checkpoint": "loopback",
        "runtime": {"base_url": f"{url}/v1", "concurrency": concurrency},
    }
    registry = folder / "models.yaml"
    registry.write_text(json.dumps({"loopback": entry}), encoding="utf-8")  # JSON is YAML
    words = ["run", "--model", "loopback", "--task", TASK, "--split", SPLIT, "--json"]
    words += ["--data", str(data), "--results", str(folder / "results"), "--models", str(registry)]
    if limit is not None:
        words += ["--limit", str(limit)]
    return [sys.executable, "-m", "evalkit", *words]


def bare_command(
    data: Path, url: str, concurrency: int, limit: int | None, transport: str, retries: int = 0
) -> list[str]:
    """A loop of the openai SDK over the same questions; transport: default | aiohttp."""
    words = [sys.executable, "-m", "benchmarks.api_bare", url, str(data), "--transport", transport]
    words += ["--concurrency", str(concurrency), "--retries", str(retries)]
    return words if limit is None else [*words, "--limit", str(limit)]


@dataclass(frozen=True)
class Ended:
    """A process that has ended: its standard output as JSON, its CPU time, and when it was started (time.time())."""

    told: dict[str, Any]
    cpu_s: float
    started: float
    wall_s: float


def measured(command: list[str], allowed: tuple[int, ...] = (0,)) -> Ended:
    """Run it to its end. Raises RuntimeError with what it said when its exit status is not allowed."""
    environment = os.environ | {"OPENAI_API_KEY": "loopback", "OMP_NUM_THREADS": "1"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    wall_s, after = time.time() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode not in allowed:
        raise RuntimeError(
            f"{' '.join(command[:6])} ... ended with {process.returncode}: {process.stderr[-2000:]}"
        )
    # no other child is reaped meanwhile: a server ends after the one that asks it
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ended(json.loads(process.stdout), cpu_s, started, wall_s)
