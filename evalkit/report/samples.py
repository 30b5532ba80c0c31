"""The rows of a run as its page shows them, one by one: replies are cut to what a reader takes in."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evalkit.errors import EvalkitError
from evalkit.prompts import render_text
from evalkit.records import VERDICTS, Sample
from evalkit.report.pages import visible

LONGEST = 4_000  # characters of a reply or a prompt; the whole stands in rows.jsonl
_LONGEST_NAME = 200
_MARKS = ("crossings_xy", "queried_xy", "path_xy")


def sample_table(
    rows: Sequence[Mapping[str, Any]],
    asked: Callable[[str], str],
    samples: Mapping[str, Sample],
    pictures: Mapping[str, str],
    maps: Mapping[str, Any],
) -> dict[str, Any]:
    """What the page's script reads.

    asked: sample id -> the prompt; samples: of the run's data, by id, empty where they are not here; pictures:
    sample id -> relative address. Prompts that many samples share stand there once.
    """
    prompts: dict[str, int] = {}
    shown = []
    for row in rows:
        name = row["sample_id"]
        one = _shown(row, samples.get(name), pictures.get(name))
        one["p"] = prompts.setdefault(asked(name), len(prompts))
        shown.append(one)
    return {"verdicts": list(VERDICTS), "prompts": list(prompts), "rows": shown, "maps": dict(maps)}


class Prompts:
    """What was asked, sample by sample: of each template and data set rendered once for all runs."""

    def __init__(self) -> None:
        self._rendered: dict[tuple[str, str], dict[str, str]] = {}

    def of(self, template: str, fingerprint: str, samples: Mapping[str, Sample]) -> Callable[[str], str]:
        known = self._rendered.setdefault((template, fingerprint), {})
        bare = visible(template, LONGEST)

        def asked(name: str) -> str:
            if name not in samples:
                return bare
            if name not in known:
                known[name] = visible(_prompt(template, samples[name]), LONGEST)
            return known[name]

        return asked


def _shown(row: Mapping[str, Any], sample: Sample | None, picture: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": visible(row["sample_id"], _LONGEST_NAME),
        "class": visible(row.get("stratum", ""), _LONGEST_NAME),
        "v": VERDICTS.index(row["verdict"]),
        "gold": _value(row.get("gold")),
        "answer": _value(row.get("answer")),
        "px": _place(row.get("answer_px")),
        "goldpx": _place(row.get("gold")),
        "reply": None if row.get("reply") is None else visible(row["reply"], LONGEST),
        "size": _size(row.get("image_size_wh")),
    }
    for key, short in (("distance", "d"), ("iou", "iou"), ("latency_s", "s")):
        if isinstance(row.get(key), int | float):
            found[short] = round(float(row[key]), 4)
    if row.get("reason"):
        found["why"] = visible(row["reason"], _LONGEST_NAME)
    if row.get("finish_reason"):
        found["finish"] = visible(row["finish_reason"], _LONGEST_NAME)
    usage = row.get("usage")
    if isinstance(usage, dict) and isinstance(usage.get("output_tokens"), int):
        found["tokens"] = [usage.get("input_tokens"), usage["output_tokens"]]
    if picture is not None:
        found["img"] = picture
    if sample is not None:
        marks = {key: sample.geometry[key] for key in _MARKS if sample.geometry.get(key)}
        if marks:
            found["marks"] = marks
    return found


def _prompt(template: str, sample: Sample) -> str:
    width, height = sample.image_size_wh
    try:
        return render_text(template, {**sample.variables, "width": width, "height": height})
    except EvalkitError:
        return template


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"{v:.4g}" if isinstance(v, float) else visible(v, 40) for v in value[:8])
    return "" if value is None else visible(value, _LONGEST_NAME)


def _place(value: Any) -> list[float] | None:
    """A point or box in pixels, or None of all else."""
    fits = isinstance(value, list) and len(value) in (2, 4)
    if not fits or not all(isinstance(v, int | float) and abs(v) < 1e7 for v in value):
        return None
    return [round(float(v), 2) for v in value]


def _size(value: Any) -> list[int] | None:
    fits = isinstance(value, list) and len(value) == 2 and all(isinstance(v, int) and v > 0 for v in value)
    return list(value) if fits else None
