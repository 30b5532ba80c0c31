"""Preparing PixMo-Points: pictures a second from a loopback server, and memory over millions of rows.

    python -m benchmarks.pixmo_prepare [--rows 2400000] [--pictures 1500] [--latency-ms 5]

The baseline is urllib in a pool of 16 threads, which hashes and stores and does nothing else.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, nargs="*", default=[600_000, 2_400_000])
    options.add_argument("--pictures", type=int, nargs="*", default=[500, 1500])
    options.add_argument("--latency-ms", type=float, default=5.0)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        memory(Path(folder), chosen.rows)
        throughput(Path(folder), chosen.pictures, chosen.latency_ms)


def memory(folder: Path, sizes: list[int]) -> None:
    print("rows in parquet   filtered and ranked   rows/s   peak memory")
    for n in sizes:
        source = folder / f"rows-{n}"
        write_rows(source, n)
        program = f"from benchmarks.pixmo_prepare import chosen_from; chosen_from({str(source)!r})"
        done = subprocess.run(
            [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout)
        print(
            f"{n:>15,}   {found['seconds']:>17.1f} s   {n / found['seconds']:>6,.0f}   {found['mb']:>8,.0f} MB"
        )


def chosen_from(source: str) -> None:
    """In a process of its own: 150 categories of 10 from the rows; prints seconds and the peak of memory."""
    from collections import Counter

    from evalkit.datasets.pixmo_choice import choose
    from evalkit.datasets.pixmo_source import NOTHING_HELD_OUT, eligible_rows, open_source

    began = time.perf_counter()
    found = open_source(source)
    categories, _ = choose(lambda: eligible_rows(found, NOTHING_HELD_OUT, Counter()), 1500, 150, 0)
    assert all(len(category.candidates) >= category.need for category in categories)
    print(json.dumps({"seconds": time.perf_counter() - began, "mb": peak_mb()}))


def peak_mb() -> float:
    """The most memory this process had (ru_maxrss would count the parent's, from before its exec)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def write_rows(folder: Path, n: int) -> None:
    """The published schema in two files: a heavy tail of labels, URLs of 90 letters, a third by counting."""
    import numpy as np
    import pixmo_fixture as fixture
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    random = np.random.default_rng(0)
    for part, rows in enumerate(_parts(range(n), (n + 1) // 2)):
        with pq.ParquetWriter(folder / f"train-0000{part}-of-00002.parquet", fixture.schema()) as writer:
            for some in _parts(rows, 100_000):
                labels = (random.pareto(0.7, len(some)) * 20).astype(np.int64) % 400_000
                table = [
                    fixture.row(
                        f"https://host{i % 9973}.example/{'pictures/' * 6}{i:012d}.jpg",
                        hashlib.sha256(str(i).encode()).hexdigest(),
                        f"label {label}",
                        ((i % 101, 50.0),) * (1 if i % 10 < 6 else 3),
                        method="counting" if i % 3 == 0 else "pointing",
                    )
                    for i, label in zip(some, labels.tolist(), strict=True)
                ]
                writer.write_table(pa.Table.from_pylist(table, schema=fixture.schema()))


def _parts(numbers: range, size: int) -> Iterator[range]:
    return (numbers[i : i + size] for i in range(0, len(numbers), size))


def throughput(folder: Path, sizes: list[int], latency_ms: float) -> None:
    import picture_server
    import pixmo_fixture as fixture

    log = folder / "log"
    server = subprocess.Popen(
        [sys.executable, picture_server.__file__, "--log", str(log), "--latency-ms", str(latency_ms)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}"
    try:
        print(f"\npictures   what                      pictures/s at {latency_ms:g} ms   peak memory")
        for n in sizes:
            rows, _ = fixture.web_rows(url, n, 50)
            source = fixture.write(folder / f"web-{n}", rows)
            base = plain(rows, folder / f"plain-{n}")
            print(f"{n:>8,}   urllib, 16 threads        {base:>8.0f}")
            for jobs in (1, 4, 16, 64):
                rate, mb = prepared(source, url, folder / f"data-{n}-{jobs}", n, jobs)
                print(
                    f"{n:>8,}   evalkit, --jobs {jobs:<3}       {rate:>8.0f}   x {rate / base:.2f}   {mb:>8.0f} MB"
                )
    finally:
        server.kill()
        server.communicate()


def plain(rows: list[dict[str, object]], folder: Path) -> float:
    folder.mkdir()

    def get(row: dict[str, object]) -> None:
        with urllib.request.urlopen(str(row["image_url"])) as response:
            content = response.read()
        assert hashlib.sha256(content).hexdigest() == row["image_sha256"]
        (folder / str(row["image_sha256"])).write_bytes(content)

    began = time.perf_counter()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(get, rows))
    return len(rows) / (time.perf_counter() - began)


def prepared(source: Path, url: str, data: Path, n: int, jobs: int) -> tuple[float, float]:
    """The whole command: rows, downloads, decoding, splits. Pictures a second, and the peak of memory in MB."""
    words = [
        "data",
        "prepare",
        "pixmo_points",
        "--source",
        str(source),
        "--holdout",
        "none",
        "--data",
        str(data),
    ]
    words += ["--n", str(n), "--categories", "50", "--jobs", str(jobs), "--per-host", str(jobs)]
    words += [f"--allow-private={url.removeprefix('http://')}", "--json"]
    program = (
        "import sys\nfrom evalkit.cli import main\nfrom benchmarks.pixmo_prepare import peak_mb\n"
        f"try: main({words!r})\nexcept SystemExit as end: assert not end.code\n"
        "print(peak_mb(), file=sys.stderr)"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - began
    return n / seconds, float(done.stderr.split()[-1])


if __name__ == "__main__":
    main()
