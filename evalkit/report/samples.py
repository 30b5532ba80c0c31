"""The rows of a run as its page shows them, one by one: replies are cut to what a reader takes in."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evalkit.errors import EvalkitError
from evalkit.prompts import render_text
from evalkit.records import VERDICTS, Sample
from evalkit.report.pages import visible
from evalkit.sharing.scrub import scrub_hosts, scrub_text

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
        prompt = prompts.setdefault(asked(name), len(prompts))
        shown.append(_shown(row, samples.get(name), pictures.get(name), prompt))
    return {
        "verdicts": list(VERDICTS),
        "prompts": list(prompts),
        "fields": FIELDS,
        "rows": shown,
        "maps": dict(maps),
    }


# What stands in a row of the page's data, in this order; the last ones are left out where they are None.
FIELDS = (
    "id", "class", "v", "gold", "answer", "px", "reply", "size", "p", "s", "tokens", "finish", "why", "d", "iou", "img",
    "marks",
)  # fmt: skip


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


def _shown(row: Mapping[str, Any], sample: Sample | None, picture: str | None, prompt: int) -> list[Any]:
    """One row's FIELDS."""
    get = row.get
    reply, usage = get("reply"), get("usage")
    found = [
        visible(row["sample_id"], _LONGEST_NAME),
        visible(get("stratum", ""), _LONGEST_NAME),
        _PLACES[row["verdict"]],
        _value(get("gold")),
        _value(get("answer")),
        _numbers(get("answer_px"), (2, 4)),
        None if reply is None else visible(reply, LONGEST),
        _numbers(get("image_size_wh"), (2,)),
        prompt,
        _number(get("latency_s")),
        [_number(usage.get("input_tokens")), _number(usage.get("output_tokens"))] if isinstance(usage, dict) else None,
        _said(get("finish_reason")),
        _said(scrub_hosts(scrub_text(str(get("reason"))))) if get("reason") else None,
        _number(get("distance")),
        _number(get("iou")),
        picture,
        None if sample is None else _marks(sample),
    ]  # fmt: skip
    while found[-1] is None:
        found.pop()
    return found


_PLACES = {verdict: place for place, verdict in enumerate(VERDICTS)}
_EXACT = 2**53  # integers beyond it are not whole numbers to JavaScript


def _number(value: Any) -> float | None:
    if type(value) is float:
        return round(value, 4)
    return value if type(value) is int and -_EXACT < value < _EXACT else None


def _numbers(value: Any, lengths: tuple[int, ...]) -> list[float] | None:
    """A point, box or size, or None of all else."""
    if type(value) is not list or len(value) not in lengths:
        return None
    found = [_number(v) for v in value]
    return None if None in found else found  # type: ignore[return-value]  # no None is left


def _value(value: Any) -> Any:
    """A gold or an answer: a number, a text, a point or a box."""
    if value is None or type(value) is str:
        return None if value is None else visible(value, _LONGEST_NAME)
    found = _number(value) if type(value) is not list else _numbers(value, (2, 4))
    return visible(value, _LONGEST_NAME) if found is None else found


def _said(value: Any) -> str | None:
    return visible(value, _LONGEST_NAME) if value else None


def _marks(sample: Sample) -> dict[str, Any] | None:
    return {key: sample.geometry[key] for key in _MARKS if sample.geometry.get(key)} or None


def _prompt(template: str, sample: Sample) -> str:
    width, height = sample.image_size_wh
    try:
        return render_text(template, {**sample.variables, "width": width, "height": height})
    except EvalkitError:
        return template
