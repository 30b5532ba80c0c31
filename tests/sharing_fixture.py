"""Whole runs, as `evalkit import` makes them, and archives that were tampered with."""

import json
import random
import zipfile

from support import cli, write_jsonl


def make_results(folder, models=("gpt-4o", "qwen-base"), n=24):
    """Results of two models on Grid Patch: RESULTS with one whole run each."""
    from evalkit.datasets.disk import read_split

    data, results = folder / "data", folder / "results"
    if not data.is_dir():
        cli("data", "build", "grid_patch", "--n", 5 * n, "--data", data)
    samples = read_split(data, "grid_patch", "test").samples
    for model in models:
        draw = random.Random(model)
        replies = []
        for sample in samples:
            x, y = (int(v // 28) for v in sample.gold)
            reply = (
                f"({x}, {y})"
                if draw.random() < 0.5
                else draw.choice([f"({23 - x}, {y})", "No idea.", "/home/me/x is not a path of ours"])
            )
            replies.append({"sample_id": sample.sample_id, "reply": reply})
        file = write_jsonl(folder / f"{model}.jsonl", replies)
        cli(
            "import",
            "--task",
            "grid_patch",
            "--split",
            "test",
            "--model",
            model,
            "--data",
            data,
            "--results",
            results,
            file,
        )
    return results


def rewrite(archive, target, change, compression=zipfile.ZIP_DEFLATED):
    """The archive again, each member passed through change(name, content) -> content, None to leave it out."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def rows_of(content):
    return [json.loads(line) for line in content.splitlines()]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
