"""Charts of the leaderboard as Vega-Lite specifications, each with its numbers as a table beside it."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from evalkit.probes import Probe, own
from evalkit.report.pages import plain
from evalkit.report.trios import LABELS, STAGES

_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"  # names the grammar; nothing is fetched
# `currentColor` and a missing background let one drawing serve light, dark and print
_CONFIG = {
    "background": None,
    "font": "system-ui, sans-serif",
    "axis": {
        "labelColor": "currentColor", "titleColor": "currentColor", "domainColor": "currentColor",
        "tickColor": "currentColor", "gridColor": "currentColor", "gridOpacity": 0.12, "labelLimit": 260,
    },
    "header": {"labelColor": "currentColor", "titleColor": "currentColor", "labelFontWeight": "bold"},
    "legend": {"labelColor": "currentColor", "titleColor": "currentColor"},
    "title": {"color": "currentColor"},
    "text": {"color": "currentColor"},
    "view": {"stroke": None},
}  # fmt: skip
_MARK = "#2f6db3"
_STAGE_COLOURS = {"base": "#8b929c", "ntp": "#2f6db3", "klal": "#d1701f"}


def build_charts(board: Mapping[str, Any], probes: Sequence[Probe]) -> list[dict[str, Any]]:
    """[{id, title, about, alt, head, rows, spec}]; charts without anything to show are left out."""
    charts: list[dict[str, Any]] = []
    for section in board["sections"]:
        charts += _accuracies(section)
    charts += _attention(probes)
    for section in board["sections"]:
        for key, title, unit in (
            ("cost_1000", "Accuracy and what it costs", "US dollars for 1,000 answers"),
            ("latency_p50_s", "Accuracy and how long it takes", "median seconds an answer"),
        ):
            charts += _against(section, key, title, unit)
    return [{"id": f"chart{i}", **chart} for i, chart in enumerate(charts)]


def _named(row: Mapping[str, Any]) -> str:
    """The registry's name: titles are too long beside an axis."""
    tail = f" ({row['trained_on']})" if row["trained_on"] else ""
    return plain(f"{row['model']}{tail}")


def _cells(section: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry a finished cell, in percent."""
    return [
        {
            "model": _named(row),
            "task": plain(f"{column['title']}, {column['split']}"),
            "accuracy": 100 * cell["accuracy"],
            "low": 100 * cell["low"],
            "high": 100 * cell["high"],
            "n": cell["n"],
            "chance": None if column["chance"] is None else 100 * column["chance"],
            "latency_p50_s": cell["latency_p50_s"],
            "cost_1000": None if cell["cost_usd"] is None else 1000 * cell["cost_usd"] / max(1, cell["answered"]),
        }
        for row in section["rows"]
        for column, cell in zip(section["columns"], row["cells"], strict=True)
        if cell is not None and cell["status"] == "complete"
    ]  # fmt: skip


def _accuracies(section: Mapping[str, Any]) -> list[dict[str, Any]]:
    cells = _cells(section)
    if not cells:
        return []
    order = list(dict.fromkeys(_named(row) for row in section["rows"]))
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    y = {"field": "model", "type": "nominal", "sort": order, "title": None}
    scale = {"domain": [0, 100]}
    layers = [
        {
            "mark": {"type": "rule", "strokeDash": [2, 3], "color": "currentColor"},
            "encoding": {"x": {"field": "chance", "type": "quantitative", "aggregate": "max", "scale": scale}},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 6, "opacity": 0.35, "color": _MARK},
            "encoding": {
                "y": y,
                "x": {"field": "low", "type": "quantitative", "scale": scale, "title": "accuracy, %"},
                "x2": {"field": "high"},
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 60, "color": _MARK, "opacity": 1},
            "encoding": {"y": y, "x": {"field": "accuracy", "type": "quantitative", "scale": scale}},
        },
    ]  # fmt: skip
    spec = _spec(cells) | {
        "facet": {"field": "task", "type": "nominal", "title": None, "sort": tasks},
        "columns": 3,
        "spec": {"width": 190, "height": {"step": 22}, "layer": layers},
    }  # fmt: skip
    return [
        {
            "title": f"Accuracy with its 95 % interval: {section['title'].partition(':')[0].lower()}",
            "about": "A dot is the accuracy, the band its interval, the dotted line chance.",
            "alt": "Accuracy of each model on each task with intervals; the table below has all numbers.",
            "head": ["Model", "Task", "Accuracy, %", "95 % CI", "n", "Chance, %"],
            "rows": [
                [c["model"], c["task"], f"{c['accuracy']:.1f}", f"{c['low']:.1f}–{c['high']:.1f}", c["n"],
                 "—" if c["chance"] is None else f"{c['chance']:.1f}"]
                for c in cells
            ],
            "spec": spec,
        }
    ]  # fmt: skip


def _attention(probes: Sequence[Probe]) -> list[dict[str, Any]]:
    """Fig. 4: how much more than an average visual token a target token is attended to."""
    bars = _bars(probes)
    if not bars:
        return []
    x = {
        "field": "stage", "type": "nominal", "sort": list(LABELS.values()), "title": None, "axis": {"labelAngle": 0}
    }  # fmt: skip
    colour = {
        "field": "stage", "legend": None,
        "scale": {"domain": list(LABELS.values()), "range": [_STAGE_COLOURS[s] for s in STAGES]},
    }  # fmt: skip
    y = {"field": "ratio", "type": "quantitative", "title": "target / all tokens"}
    low, high = {"field": "low", "type": "quantitative"}, {"field": "high"}
    line = {"type": "rule", "strokeDash": [4, 3], "color": "currentColor"}
    layers = [
        {"mark": {"type": "bar", "width": 34}, "encoding": {"x": x, "y": y, "color": colour}},
        {
            "mark": {"type": "rule", "strokeWidth": 2, "color": "currentColor"},
            "encoding": {"x": x, "y": low, "y2": high},
        },
        {"mark": line, "encoding": {"y": {"datum": 1}}},
    ]
    spec = _spec(bars) | {
        "facet": {"field": "panel", "type": "nominal", "title": None},
        "columns": 4,
        "spec": {"width": 190, "height": 150, "layer": layers},
        "resolve": {"scale": {"y": "independent"}},
    }
    return [
        {
            "title": "Attention on the target (Fig. 4)",
            "about": "Mean attention of the last answer token on target tokens over that on all visual tokens. The "
            "line on a bar is its 95 % interval, of several training seeds the span of their intervals; at the dashed "
            "line the target gets no more than any other place.",
            "alt": "Attention ratio of base, NTP and NTP + KLAL by task and family; the table below has all numbers.",
            "head": ["Model", "Stage", "Task", "Ratio", "Interval", "Seeds", "n"],
            "rows": [
                [bar["family"], bar["stage"], bar["task"], f"{bar['ratio']:.2f}",
                 f"{bar['low']:.2f}–{bar['high']:.2f}", bar["seeds"], bar["n"]]
                for bar in bars
            ],
            "spec": spec,
        }
    ]  # fmt: skip


def _bars(probes: Sequence[Probe]) -> list[dict[str, Any]]:
    """A bar a model and task: the mean over training seeds."""
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for probe in probes:
        stem, _, stage = probe.model.rpartition("-")
        if stage in STAGES and probe.meta["summary"]["n"]:
            elsewhere = not own(probe)
            family = plain(stem + (f", trained on {probe.meta['trained_on']}" if elsewhere else ""))
            key = plain(probe.meta["task"]["title"]), family, stage
            found.setdefault(key, []).append(probe.meta["summary"])
    order = sorted(found, key=lambda key: (key[0], key[1], STAGES.index(key[2])))
    return [
        {
            "panel": f"{task}: {family}",
            "task": task,
            "family": family,
            "stage": LABELS[stage],
            "ratio": fmean(one["ratio"]["value"] for one in summaries),
            "low": min(one["ratio"]["low"] for one in summaries),
            "high": max(one["ratio"]["high"] for one in summaries),
            "seeds": len(summaries),
            "n": sum(one["n"] for one in summaries),
        }
        for task, family, stage in order
        for summaries in [found[task, family, stage]]
    ]


def _against(section: Mapping[str, Any], key: str, title: str, unit: str) -> list[dict[str, Any]]:
    """Accuracy over a price: who is dominated lies to the lower right of another."""
    cells = [cell for cell in _cells(section) if cell[key]]
    if len({cell["model"] for cell in cells}) < 2:
        return []
    x = {"field": key, "type": "quantitative", "scale": {"type": "log"}, "title": unit}
    y = {"field": "accuracy", "type": "quantitative", "title": "accuracy, %", "scale": {"domain": [0, 100]}}
    name = {"type": "text", "align": "left", "dx": 7, "fontSize": 10, "limit": 130, "color": "currentColor"}
    spec = _spec(cells) | {
        "facet": {"field": "task", "type": "nominal", "title": None},
        "columns": 3,
        "spec": {
            "width": 230,
            "height": 190,
            "layer": [
                {
                    "mark": {"type": "point", "filled": True, "size": 60, "color": _MARK, "opacity": 1},
                    "encoding": {"x": x, "y": y},
                },
                {"mark": name, "encoding": {"x": x, "y": y, "text": {"field": "model"}}},
            ],
        },
    }
    return [
        {
            "title": f"{title}: {section['title'].partition(':')[0].lower()}",
            "about": f"Each point is a model on a task; to the right: more {unit}. Runs differ in hardware and load.",
            "alt": f"Accuracy against {unit}; the table below has all numbers.",
            "head": ["Model", "Task", "Accuracy, %", unit],
            "rows": [[c["model"], c["task"], f"{c['accuracy']:.1f}", f"{c[key]:.3g}"] for c in cells],
            "spec": spec,
        }
    ]


def _spec(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"$schema": _SCHEMA, "config": _CONFIG, "data": {"values": list(values)}}
