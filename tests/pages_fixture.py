"""A results folder with pictures, maps and hostile text, for the tests of its pages."""

import json
import random

import numpy as np
from fixture_runs import write_run
from support import cli, write_jsonl

SCRIPT = "<script>window.pwned = 1</script>"
HOSTILE = [
    SCRIPT,
    "</script><script>window.pwned = 2</script>",
    "<img src=x onerror='window.pwned = 3'>",
    "&lt;img src=x onerror='window.pwned = 4'&gt; & <svg onload=window.pwned=5>",
    "<!--<script>window.pwned = 6",
    "\u202egnp.evil\u202c \u200b\ufeff \u2066x\u2069",
    "\x1b[31mred\x1b]0;title\x07\x00\x08",
    "=cmd|'/c calc'!A1",
    "+1+1", "-2+3", "@SUM(A1)", "\t=1+1",
    "{{7*7}} {% raw %} ${7*7} `id` $(id)",
    "]]>\u2028\u2029'\"\\",
    "javascript:window.pwned=7",
    "x" * 1_000_000,
    "\ud800 lone",
    "a\nb\r\nc",
]  # fmt: skip


def write_hostile(results):
    """One run whose every text is hostile; its folder's name is what a file system takes."""
    n = len(HOSTILE)
    return write_run(
        results, ["correct", "wrong", "unparsed", "truncated", "blocked", "correct"] * 3,
        model="evil'\"&<b>", title=HOSTILE[0], scale=HOSTILE[2], date="2026-11-20", sample_ids=[f"{i} {t[:90]}" for i, t in enumerate(HOSTILE)],
        task_block={"name": "line_intersection", "title": HOSTILE[1], "chance": 0.5, "prompt": HOSTILE[3]},
        model_block={"name": HOSTILE[2][:60], "title": HOSTILE[0], "scale": "full", "objective": HOSTILE[1], "adapter": HOSTILE[4]},
        scores=[
            {"reply": HOSTILE[i], "answer": HOSTILE[(i + 1) % n], "gold": HOSTILE[(i + 2) % n], "reason": HOSTILE[(i + 3) % n],
             "stratum": HOSTILE[(i + 4) % n][:200], "finish_reason": HOSTILE[(i + 5) % n][:50], "image_size_wh": [100, 100]}
            for i in range(n)
        ],
        ran_on={"device": HOSTILE[0], "torch": HOSTILE[7]},
    )  # fmt: skip


def write_pictured(results, data, n=40):
    """Grid Patch with its pictures: replies of three models, imported, and their maps; returns the sample ids."""
    from evalkit.datasets.disk import read_split

    if not (data / "grid_patch").is_dir():
        cli("data", "build", "grid_patch", "--n", 5 * n, "--data", data)
    split = read_split(data, "grid_patch", "test")
    draw = random.Random(0)
    ids = [sample.sample_id for sample in split.samples]
    for stage, skill in (("base", 0.1), ("ntp", 0.4), ("klal", 0.8)):
        rows = []
        for sample in split.samples:
            x, y = (int(v // 28) for v in sample.gold)
            right = draw.random() < skill
            reply = f"({x}, {y})" if right else draw.choice([f"({23 - x}, {(y + 9) % 24})", "I see no cell."])
            rows.append({"sample_id": sample.sample_id, "reply": reply})
        replies = write_jsonl(data / f"{stage}.jsonl", rows)
        cli("import", "--task", "grid_patch", "--split", "test", "--model", f"tiny-qwen-{stage}", "--data", data,
            "--results", results, replies)  # fmt: skip
        _write_probe(results, stage, split.fingerprint, ids)
    return ids


def _write_probe(results, stage, fingerprint, ids):
    folder = results / "probes" / f"tiny-qwen-{stage}" / "grid_patch-test-00000000"
    folder.mkdir(parents=True)
    value = {"base": 1.0, "ntp": 1.3, "klal": 6.0}[stage]
    interval = {"value": value, "low": value - 0.2, "high": value + 0.2}
    meta = {
        "model": {"name": f"tiny-qwen-{stage}"}, "task": {"name": "grid_patch", "title": "Grid Patch"}, "split": "test",
        "trained_on": None, "run": "x", "dataset": {"name": "grid_patch", "fingerprint": fingerprint}, "ended": "2026-11-20",
        "summary": {"n": len(ids), "ratio": interval},
    }  # fmt: skip
    (folder / "probe.json").write_text(json.dumps(meta))
    rows = [
        {"sample_id": i, "cluster": i, "ratio": [value], "share": [0.5], "norm_target": 1.0, "norm_visual": 1.0,
         "answer": SCRIPT}
        for i in ids
    ]  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    maps = np.random.default_rng(0).random((2, 36)).astype(np.float32)
    np.savez_compressed(
        folder / "maps.npz", sample_ids=np.array(ids[3:5]), grids=np.array([[6, 6]] * 2), attention=maps,
        extents_xyxy=np.array([[0.0, 0, 672, 672]] * 2), norm=maps + 1,
    )  # fmt: skip
