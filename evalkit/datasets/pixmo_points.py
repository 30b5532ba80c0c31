"""evalkit data prepare pixmo_points: rows -> candidates -> downloads -> the two splits and the manifest."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from evalkit import __version__
from evalkit.datasets.disk import fingerprint, read_info, splits_of
from evalkit.datasets.fetching import Fetcher, FetchLimits
from evalkit.datasets.pictures import Picture, examine
from evalkit.datasets.pixmo_choice import choose, split_names
from evalkit.datasets.pixmo_gathering import Gathering, Need, Ranked
from evalkit.datasets.pixmo_manifest import SCHEMA, Entry, Log, read_manifest
from evalkit.datasets.pixmo_placing import MANIFEST, TASK, put
from evalkit.datasets.pixmo_source import PointRow, eligible_rows, open_source, read_held_out
from evalkit.datasets.verify import damage
from evalkit.errors import ConfigError, DataError
from evalkit.extras import require

_DOWNLOADS = ".downloads"


@dataclass(frozen=True, slots=True)
class Web:
    """How downloads are made. allow_private: see addresses.check_address."""

    limits: FetchLimits = field(default_factory=FetchLimits)
    allow_private: bool | Collection[str] = False
    retry: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """What came of it. missing: label -> how many pictures it is short of. fresh: False where it was there."""

    info: Mapping[str, Any]
    missing: Mapping[str, int]
    lost: Sequence[Entry]  # of a manifest: the pictures that could not be had
    in_place: bool
    fresh: bool


def prepare(
    data_dir: Path,
    *,
    source: str,
    holdout: str,
    n: int,
    categories: int,
    seed: int,
    web: Web,
    force: bool = False,
) -> Prepared:
    """Choose n pictures of so many categories from the published rows, fetch them, and put train and test in place.

    Raises ConfigError, Unavailable, or DataError where another set is in the way or nothing can be chosen.
    """
    if not 1 <= categories <= n:
        raise ConfigError(f"--n {n}, --categories {categories}: expected 1 <= categories <= n.")
    made_by = {
        "n": n,
        "categories": categories,
        "seed": seed,
        "source": _called(source),
        "holdout": _called(holdout),
    }
    there = _already(data_dir, made_by, web.retry, force)
    if there and not Path(source).is_dir():  # what the Hub has now is not asked
        return there
    require("data prepare pixmo_points", "data", "pyarrow", "aiohttp", "tenacity")
    found = open_source(source)
    if there and there.info.get("source") == found.describe():
        return there
    if there:
        raise DataError(
            f"{data_dir / TASK} holds a set of other files than those in {source}; --force replaces it."
        )
    held_out, held_out_words = read_held_out(holdout, source)
    rejected: Counter[str] = Counter()
    titles = iter(("counting labels", "ranking pictures"))

    def rows() -> Iterable[PointRow]:
        rejected.clear()  # both passes meet the same rows
        every = eligible_rows(found, held_out, rejected)
        return tqdm(every, desc=next(titles), unit="row", disable=None, leave=False)

    chosen, n_ambiguous = choose(rows, n, categories, seed)
    header = {
        "schema": SCHEMA,
        "evalkit": __version__,
        "made_by": made_by,
        "source": found.describe(),
        "held_out": held_out_words,
        "rejected": dict(sorted(rejected.items())) | {"ambiguous among the categories": n_ambiguous},
    }
    needs = [
        Need(category.label, category.need, [Ranked(i, row) for i, row in enumerate(category.candidates)])
        for category in chosen
    ]
    alive, log, pictures = _gather(data_dir, needs, header, web)
    missing = {
        need.label: need.n - len(alive[need.label]) for need in needs if len(alive[need.label]) < need.n
    }
    labels = sorted(alive)
    entries = [sorted(alive[label], key=lambda entry: entry.rank) for label in labels]
    splits = split_names(map(len, entries))
    named = [
        replace(entry, split=split)
        for group, names in zip(entries, splits, strict=True)
        for entry, split in zip(group, names, strict=True)
    ]
    info = put(data_dir, named, log, header, pictures, missing)
    return Prepared(info, missing, (), in_place=True, fresh=True)


def prepare_from(
    data_dir: Path, manifest: Path, *, web: Web, partial: bool = False, force: bool = False
) -> Prepared:
    """Make the set of a manifest again. Where pictures are gone it is put in place only when `partial`.

    Raises DataError for a file that is no manifest, or where another set is in the way.
    """
    header, entries = read_manifest(manifest)
    inside = [entry for entry in entries if entry.split]
    if not inside:
        raise DataError(f"{manifest}: no picture in it is of the set (`split`).")
    made_by = {"manifest": fingerprint([{"row": entry.sample_id, "split": entry.split} for entry in inside])}
    if there := _already(data_dir, made_by, web.retry or not partial, force):
        return there
    require("data prepare pixmo_points", "data", "aiohttp", "tenacity")
    header = {
        "schema": SCHEMA,
        "evalkit": __version__,
        "made_by": made_by,
        "source": {"name": f"manifest {manifest.name}", "of": header.get("source")},
        "held_out": _printable(header.get("held_out", "unknown what was held out")),
        "rejected": {},
    }
    labels = sorted({entry.row.label for entry in inside})
    needs = [
        Need(label, len(own), own)
        for label in labels
        for own in [[Ranked(e.rank, e.row) for e in inside if e.row.label == label]]
    ]
    alive, log, pictures = _gather(data_dir, needs, header, web)
    had = {entry.row.sha256: entry for group in alive.values() for entry in group}
    named = [replace(had[e.row.sha256], split=e.split) for e in inside if e.row.sha256 in had]
    lost = [log.entries[e.row.sha256] for e in inside if e.row.sha256 not in had]
    missing = dict(Counter(entry.row.label for entry in lost))
    if lost and not (partial and named):
        return Prepared({}, missing, lost, in_place=False, fresh=True)
    info = put(data_dir, named, log, header, pictures, missing)
    return Prepared(info, missing, lost, in_place=True, fresh=True)


def _called(place: str) -> str:
    """A folder by its own name: where it lies is nobody's business."""
    return place if place in ("hub", "auto", "none") else Path(place).resolve().name


def _printable(text: Any) -> str:
    """A line of somebody else's, as it can stand on a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text)[:200])


def _already(data_dir: Path, made_by: Mapping[str, Any], retry: bool, force: bool) -> Prepared | None:
    """The set where it is there and whole, or short and not to be tried again. Raises DataError for another one."""
    info = read_info(data_dir, TASK)
    there = splits_of(data_dir, TASK)
    if not there or force:
        return None
    if info.get("made_by") != made_by:
        raise DataError(
            f"{data_dir / TASK} holds another set ({_words(info.get('made_by'))}); --force replaces it by one of "
            f"{_words(made_by)}."
        )
    missing = info.get("missing") or {}
    if any(damage(data_dir, TASK, split) for split in there) or (missing and retry):
        return None
    return Prepared(info, missing, (), in_place=True, fresh=False)


def _words(made_by: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{key} {value}" for key, value in made_by.items()) if made_by else "unknown origin"


def _gather(
    data_dir: Path, needs: Sequence[Need], header: Mapping[str, Any], web: Web
) -> tuple[dict[str, list[Entry]], Log, dict[str, Picture]]:
    """Fetch what is needed; the entries that are alive a label, the log, and the pictures that were examined."""
    folder = data_dir / TASK / _DOWNLOADS
    pictures: dict[str, Picture] = {}

    def inspect(sha256: str, path: Path) -> None:
        pictures[sha256] = examine(path)

    try:
        log = Log(folder / MANIFEST, header)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}).") from None
    gathering = Gathering(needs, log, retry=web.retry)
    fetcher = Fetcher(folder, web.limits, web.allow_private, inspect)
    failed: Counter[str] = Counter()
    with tqdm(
        total=sum(need.n for need in needs), desc=f"preparing {TASK}", unit="picture", disable=None
    ) as bar:
        for fate in fetcher.fetch(gathering.wanted()):
            entry = gathering.ended(fate)
            if entry.outcome == "ok":
                bar.update(1)
            else:
                failed[entry.outcome] += 1
                bar.set_postfix_str(
                    ", ".join(f"{kind} {n}" for kind, n in sorted(failed.items())), refresh=False
                )
    return gathering.alive, log, pictures
