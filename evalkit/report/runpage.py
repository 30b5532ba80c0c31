"""The document behind the page of one run: what came out, where it is right, its provenance, how to repeat it."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.probes import Probe
from evalkit.records import VERDICTS
from evalkit.report.breakdown import by_class, by_difficulty, confusion, histogram
from evalkit.report.mapshots import sample_maps
from evalkit.report.samples import Prompts, sample_table
from evalkit.report.shelf import Shelf
from evalkit.sharing.scrub import scrub_meta
from evalkit.store import read_meta, read_rows


def build_run_page(
    folder: Path, listed: Mapping[str, Any], shelf: Shelf, prompts: Prompts, probes: Sequence[Probe]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(document, samples): of the page, and of its browser. listed: the run as the leaderboard lists it.

    Raises StoreError, or KeyError, TypeError and ValueError of rows of another shape than a run's.
    """
    meta, rows = read_meta(folder), list(read_rows(folder, fast=True))
    data = data_of(meta)
    samples, pictures = shelf.samples(*data), shelf.pictures(*data)
    about = {
        "task": listed["task"],
        "split": listed["split"],
        "dataset": data[2],
        "trained_on": listed["trained_on"],
        "seed": int((meta.get("training") or {}).get("seed", 0)),
    }
    maps = sample_maps(probes, listed["model"], about)
    template = str(meta["task"].get("prompt", ""))
    up = "../" * (len(Path(listed["run"]).parts) - 1)
    document = {
        "run": dict(listed),
        "up": up,
        "verdicts": [{"name": name, "n": listed["verdicts"][name]} for name in VERDICTS],
        "classes": by_class(rows),
        "difficulty": by_difficulty(rows, samples),
        "confusion": confusion(rows),
        "histogram": histogram(rows),
        "prompt": template,
        "provenance": list(_flat(scrub_meta(meta))),  # pages are made to be shown
        "command": command(meta),
        "n_rows": len(rows),
        "with_pictures": bool(pictures),
        "with_maps": len(maps),
    }
    shown = sample_table(
        rows,
        prompts.of(template, data[2], samples),
        samples,
        {name: up + place for name, place in pictures.items()},
        maps,
    )
    return document, shown


def data_of(meta: Mapping[str, Any]) -> tuple[str, str, str]:
    """(data set, split, fingerprint) of a run."""
    return str(meta["dataset"].get("name", "")), str(meta["split"]), str(meta["dataset"]["fingerprint"])


def command(meta: Mapping[str, Any]) -> str:
    """What runs this again, or scores its replies again where they came from elsewhere."""
    task, split, model = str(meta["task"]["name"]), str(meta["split"]), str(meta["model"]["name"])
    if meta["origin"] == "import":
        words = ["evalkit", "import", "--task", task, "--split", split, "--model", model, "replies.jsonl"]
        return shlex.join(words)
    words = ["evalkit", "run", "--model", model, "--task", task, "--split", split]
    if meta["trained_on"]:
        words += ["--trained-on", str(meta["trained_on"])]
    if seed := (meta.get("training") or {}).get("seed"):
        words += ["--train-seed", str(seed)]
    selection = meta["selection"]
    if selection.get("limit"):
        words += ["--limit", str(selection["limit"]), "--seed", str(selection.get("seed", 0))]
    return shlex.join(words)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """run.json as lines: dotted key, value."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif value is not None and value != {} and value != []:
        yield path, value if isinstance(value, str) else repr(value)
