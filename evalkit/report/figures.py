"""Figures 3-5 from stored probes and runs, as PNG and SVG: the same stored files give the same figures.

fig4-<task>     attention of target tokens over that of all visual tokens, base / NTP / NTP + KLAL
layers-<task>   the same by layer, and which share of the answer's attention goes to visual tokens at all
fig3-<family>   attention of the last answer token over the image, a row a task
fig5-<family>   the attention map above, the map of token norms below
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evalkit.datasets.disk import read_split
from evalkit.datasets.pictures import FORMATS
from evalkit.errors import StoreError, Unavailable
from evalkit.probes import Probe, own, paper_probes, read_maps
from evalkit.records import Sample
from evalkit.report.pages import plain
from evalkit.report.trios import LABELS, STAGES, Trio
from evalkit.store import read_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"base": "#8b929c", "ntp": "#2f6db3", "klal": "#d1701f"}
RIGHT, WRONG, SOFT = "#1a7f37", "#b42318", "#5b6470"


@dataclass(frozen=True, slots=True)
class Drawn:
    """Where figures are drawn, and what is said beneath each of them."""

    out_dir: Path
    footnote: str


def draw_figures(results_dir: Path, data_dir: Path, trios: Sequence[Trio], drawn: Drawn) -> list[Path]:
    """All figures for which there are probes. Raises Unavailable without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise Unavailable("Figures need matplotlib: pip install 'evalkit-vlm[figures]'.") from None
    probes = paper_probes(results_dir)
    tasks = list(dict.fromkeys(probe.meta["task"]["name"] for probe in probes))
    paths: list[Path] = []
    # our own canvas, no window; SVG without a date and with ids that do not change
    with matplotlib.rc_context(_STYLE):
        for task in sorted(tasks):
            of_task = [probe for probe in probes if probe.meta["task"]["name"] == task and own(probe)]
            paths += _bars(task, of_task, trios, drawn)
            paths += _layers(task, of_task, trios, drawn)
        for trio in trios:
            paths += _maps(results_dir, data_dir, probes, trio, drawn)
    return paths


def described(folder: Path) -> list[dict[str, str]]:
    """The PNG figures of a folder, in the paper's order, with a text for those who cannot see them."""
    found = []
    for pattern, text in _WORDS.items():
        for path in sorted(folder.glob(f"{pattern}*.png")):
            about = path.stem.removeprefix(pattern).replace("_", " ")
            data = base64.b64encode(path.read_bytes()).decode()
            found.append({"name": path.stem, "alt": text.format(about=about), "base64": data})
    return found


_WORDS = {
    "fig3-": "Figure 3, {about}: attention of the last answer token over the image, for base, NTP and NTP + KLAL. "
    "Each row is the first sample of a seeded draw, not a chosen one.",
    "fig4-": "Figure 4, {about}: mean attention of target tokens over that of all visual tokens.",
    "fig5-": "Figure 5, {about}: attention of the last answer token above, norm of the visual tokens below.",
    "layers-": "By layer, {about}: attention ratio above, share of the attention on visual tokens below.",
}


_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8b929c",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "svg.hashsalt": "evalkit",
    "svg.fonttype": "path",
    "figure.dpi": 110,
    "savefig.dpi": 160,
}


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: "Figure", name: str, drawn: Drawn) -> list[Path]:
    figure.supxlabel(drawn.footnote, fontsize=7, color=SOFT, x=0.01, ha="left")
    paths = [drawn.out_dir / f"{name}.{kind}" for kind in ("png", "svg")]
    try:
        drawn.out_dir.mkdir(parents=True, exist_ok=True)
        figure.savefig(paths[0], metadata={"Software": None}, facecolor="white")
        figure.savefig(paths[1], metadata={"Date": None, "Creator": None}, facecolor="white")
    except OSError as error:
        raise StoreError(f"{drawn.out_dir}: cannot be written ({error.strerror}).") from None
    return paths


def _of(probes: Sequence[Probe], model: str) -> list[Probe]:
    """The probes of a model with something to show, one a training seed, in their order."""
    return sorted((p for p in probes if p.model == model and p.meta["summary"]["n"]), key=lambda p: p.seed)


def _bars(task: str, probes: Sequence[Probe], trios: Sequence[Trio], drawn: Drawn) -> list[Path]:
    """Fig. 4: a bar is the mean over training seeds; the line its 95 % interval, or each seed's value as a dot."""
    shown = [(trio, {s: _of(probes, trio.models[s]) for s in STAGES}) for trio in trios]
    shown = [(trio, found) for trio, found in shown if any(found.values())]
    if not shown:
        return []
    figure = _figure(2.6 * len(shown) + 0.8, 3.4)
    for i, (trio, found) in enumerate(shown):
        axes = figure.add_subplot(1, len(shown), i + 1)
        for at, stage in enumerate(STAGES):
            _bar(axes, at, [p.meta["summary"] for p in found[stage]], COLOURS[stage])
        axes.axhline(1, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xticks(range(3), [LABELS[s] for s in STAGES])
        axes.set_title(trio.title)
        axes.set_ylim(bottom=0, top=max(1.25, axes.get_ylim()[1] * 1.12))
        if i == 0:
            axes.set_ylabel("attention of target tokens\n/ of all visual tokens")
    counts = sorted({p.meta["summary"]["n"] for _, found in shown for ps in found.values() for p in ps})
    seeds = max(len(ps) for _, found in shown for ps in found.values())
    title = next(p.meta["task"]["title"] for _, found in shown for ps in found.values() for p in ps)
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
    spread = f", {seeds} training seeds (dots)" if seeds > 1 else ", 95 % interval"
    figure.suptitle(
        f"{plain(title)}: attention of the last answer token\nn = {n} answers{spread}", fontsize=9.5
    )
    return _save(figure, f"fig4-{task}", drawn)


def _bar(axes: "Axes", at: int, summaries: Sequence[dict[str, Any]], colour: str) -> None:
    if not summaries:
        axes.text(at, 0.05, "no probe", ha="center", va="bottom", color=SOFT, fontsize=8, rotation=90)
        return
    values = [s["ratio"]["value"] for s in summaries]
    mean = float(np.mean(values))
    axes.bar(at, mean, color=colour, width=0.66)
    if len(values) > 1:
        axes.plot(np.linspace(at - 0.12, at + 0.12, len(values)), values, "o", color="#1d2126", markersize=3)
        top = max(values)
    else:
        ratio = summaries[0]["ratio"]
        low, high = max(0.0, mean - ratio["low"]), max(0.0, ratio["high"] - mean)
        axes.errorbar(at, mean, [[low], [high]], color="#1d2126", capsize=3, linewidth=1)
        top = ratio["high"]
    axes.annotate(f"{mean:.2f}", (at, top), xytext=(0, 4), textcoords="offset points", ha="center")


def _layers(task: str, probes: Sequence[Probe], trios: Sequence[Trio], drawn: Drawn) -> list[Path]:
    """The ratio and the visual share by layer, the mean over training seeds."""
    shown = [trio for trio in trios if any(_of(probes, trio.models[s]) for s in STAGES)]
    if not shown:
        return []
    from matplotlib.ticker import MaxNLocator

    figure = _figure(2.9 * len(shown) + 0.6, 4.6)
    rows = (
        ("ratio_by_layer", "attention of target tokens\n/ of all visual tokens"),
        ("share_by_layer", "share of attention\non visual tokens"),
    )
    for i, trio in enumerate(shown):
        for j, (name, label) in enumerate(rows):
            axes = figure.add_subplot(2, len(shown), j * len(shown) + i + 1)
            for stage in STAGES:
                found = [p.meta["summary"][name] for p in _of(probes, trio.models[stage])]
                if found:
                    means = np.mean([[layer["value"] for layer in one] for one in found], axis=0)
                    axes.plot(
                        range(1, len(means) + 1),
                        means,
                        "o-",
                        color=COLOURS[stage],
                        label=LABELS[stage],
                        ms=3.5,
                    )
            axes.set_xlim(left=0.7)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_ylim(0, 1.03) if j else axes.set_ylim(bottom=0)
            if j == 0:
                axes.set_title(trio.title)
                axes.axhline(1, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
            else:
                axes.set_xlabel("layer of the language model")
            if i == 0:
                axes.set_ylabel(label)
                if j == 0:
                    axes.legend(frameon=False, fontsize=8)
    return _save(figure, f"layers-{task}", drawn)


@dataclass(frozen=True, slots=True)
class _Panel:
    """One sample as one model saw it."""

    attention: Any  # (rows, cols)
    norm: Any
    extent_xyxy: Any
    answer: str
    verdict: str


def _maps(results_dir: Path, data_dir: Path, probes: Sequence[Probe], trio: Trio, drawn: Drawn) -> list[Path]:
    """Figs. 3 and 5 of one family; the sample is the first of the draw, whatever the models answered."""
    found: list[tuple[str, Sample, dict[str, _Panel]]] = []
    for task in dict.fromkeys(p.meta["task"]["name"] for p in probes):
        of_task = [p for p in probes if p.meta["task"]["name"] == task and own(p)]
        firsts = {stage: _of(of_task, trio.models[stage])[:1] for stage in STAGES}
        if all(firsts.values()):
            row = _common(results_dir, data_dir, task, {s: ps[0] for s, ps in firsts.items()})
            found += [row] if row else []
    if not found:
        return []
    order = ("line_intersection", "line_tracing", "grid_patch")
    found.sort(key=lambda row: (order.index(row[0]) if row[0] in order else len(order), row[0]))
    paths = _fig3(found, trio, drawn)
    for task, sample, panels in found:
        name = f"fig5-{trio.family}" + ("" if task == found[0][0] else f"-{task}")
        paths += _fig5(sample, panels, trio, name, drawn)
    return paths


def _common(
    results_dir: Path, data_dir: Path, task: str, probes: Mapping[str, Probe]
) -> tuple[str, Sample, dict[str, _Panel]] | None:
    maps = {
        stage: read_maps(probe.folder)
        for stage, probe in probes.items()
        if (probe.folder / "maps.npz").is_file()
    }
    if len(maps) < len(STAGES):
        return None
    ids = [
        i
        for i in maps["base"]["sample_ids"].tolist()
        if all(i in m["sample_ids"].tolist() for m in maps.values())
    ]
    if not ids:
        return None
    # where crossings are counted, of an image with about three: neither nothing nor a tangle
    meta = probes["base"].meta
    split = read_split(data_dir, meta["dataset"]["name"], meta["split"])
    samples = {sample.sample_id: sample for sample in split.samples}
    chosen = sorted((i for i in ids if i in samples), key=lambda i: (_crowding(samples[i]), ids.index(i)))
    if not chosen:
        return None
    return task, samples[chosen[0]], {s: _panel(results_dir, probes[s], maps[s], chosen[0]) for s in STAGES}


def _crowding(sample: Sample) -> int:
    """Distance from three crossings where crossings are counted; else all alike."""
    return abs(sample.gold - 3) if isinstance(sample.gold, int) else 0


def _panel(results_dir: Path, probe: Probe, maps: Mapping[str, Any], sample_id: str) -> _Panel:
    k = maps["sample_ids"].tolist().index(sample_id)
    rows, cols = maps["grids"][k].tolist()
    run = results_dir / "runs" / probe.meta["run"]
    if not run.resolve().is_relative_to((results_dir / "runs").resolve()):
        raise StoreError(
            f"{probe.folder}: its run {probe.meta['run']!r} lies outside of {results_dir / 'runs'}."
        )
    verdicts = {row["sample_id"]: row["verdict"] for row in read_rows(run)}
    return _Panel(
        attention=maps["attention"][k, : rows * cols].reshape(rows, cols),
        norm=maps["norm"][k, : rows * cols].reshape(rows, cols),
        extent_xyxy=maps["extents_xyxy"][k],
        answer=str(probe.rows[sample_id]["answer"]),
        verdict=str(verdicts.get(sample_id, "")),
    )


def _picture(axes: "Axes", sample: Sample) -> Any:
    from PIL import Image

    axes.set_axis_off()
    with Image.open(sample.image_path, formats=FORMATS) as image:
        pixels = np.asarray(image.convert("RGB"))
    axes.imshow(pixels, interpolation="lanczos", extent=(0, pixels.shape[1], pixels.shape[0], 0))
    return pixels


def _overlay(axes: "Axes", sample: Sample, panel: _Panel, values: Any, peak: float) -> None:
    """A map over the faded image, from 0 to `peak`; the square root lets what is faint be seen."""
    pixels = _picture(axes, sample)
    axes.imshow(np.full_like(pixels, 255), alpha=0.35, extent=(0, pixels.shape[1], pixels.shape[0], 0))
    x0, y0, x1, y1 = panel.extent_xyxy
    strength = np.sqrt(values / peak) if peak > 0 else np.zeros_like(values)
    axes.imshow(
        strength, cmap="inferno_r", vmin=0, vmax=1, extent=(x0, x1, y1, y0), alpha=0.2 + 0.7 * strength
    )
    axes.set_xlim(0, pixels.shape[1])
    axes.set_ylim(pixels.shape[0], 0)


def _answered(axes: "Axes", stage: str, panel: _Panel, *, label: bool) -> None:
    answer = plain(panel.answer.strip())
    answer = answer if len(answer) <= 22 else answer[:21] + "…"
    if label:
        axes.text(0.5, 1.16, LABELS[stage], transform=axes.transAxes, ha="center", weight="bold")
    colour = RIGHT if panel.verdict == "correct" else WRONG
    axes.set_title(f"“{answer}” {panel.verdict}", fontsize=8, weight="normal", color=colour, parse_math=False)


def _fig3(found: Sequence[tuple[str, Sample, dict[str, _Panel]]], trio: Trio, drawn: Drawn) -> list[Path]:
    figure = _figure(9.2, 2.6 * len(found) + 0.5)
    for i, (_, sample, panels) in enumerate(found):
        axes = figure.add_subplot(len(found), 4, 4 * i + 1)
        _picture(axes, sample)
        axes.set_title(_question(sample), fontsize=8, weight="normal", parse_math=False)
        for j, stage in enumerate(STAGES):
            axes = figure.add_subplot(len(found), 4, 4 * i + j + 2)
            _overlay(axes, sample, panels[stage], panels[stage].attention, _peak(panels))
            _answered(axes, stage, panels[stage], label=i == 0)
    figure.suptitle(
        f"{trio.title}: attention of the last answer token, mean over heads and layers\n"
        "(one colour scale a row, square root)\n",
        fontsize=10,
    )
    return _save(figure, f"fig3-{trio.family}", drawn)


def _peak(panels: Mapping[str, _Panel]) -> float:
    """The largest attention of the three models: they share a colour scale."""
    return max(float(panel.attention.max()) for panel in panels.values())


def _question(sample: Sample) -> str:
    """What is asked, in a word or two, and the gold."""
    if "node_a" in sample.variables:
        return f"{sample.variables['node_a']}–{sample.variables['node_b']} joined? gold: {sample.gold}"
    cell = sample.geometry.get("cell_xy")
    if cell:
        return f"where is the red cell? gold: ({cell[0]}, {cell[1]})"
    return f"how many crossings? gold: {sample.gold}" if isinstance(sample.gold, int) else "gold as annotated"


def _fig5(sample: Sample, panels: Mapping[str, _Panel], trio: Trio, name: str, drawn: Drawn) -> list[Path]:
    figure = _figure(7.2, 5.4)
    for j, stage in enumerate(STAGES):
        above, below = figure.add_subplot(2, 3, j + 1), figure.add_subplot(2, 3, j + 4)
        _overlay(above, sample, panels[stage], panels[stage].attention, _peak(panels))
        _answered(above, stage, panels[stage], label=True)
        low, high = float(panels[stage].norm.min()), float(panels[stage].norm.max())
        _overlay(below, sample, panels[stage], panels[stage].norm - low, high - low)
        below.text(
            0.5, -0.09, f"norm {low:.1f} to {high:.1f}", transform=below.transAxes, ha="center", fontsize=8
        )
    figure.suptitle(
        f"{trio.title}: attention of the last answer token (above),\nL2 norm of the visual tokens after the last layer "
        "(below, each its own range)",
        fontsize=10,
    )  # fmt: skip
    return _save(figure, name, drawn)
