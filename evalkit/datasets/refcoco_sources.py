"""RefCOCO (UNC) as five sources publish it -> refs. Each one's box convention is fixed here.

    unc       refs(unc).p with instances.json beside it (https://github.com/lichengunc/refer)   xywh
    minigpt4  refcoco_<split>.json, a row a sentence (Vision-CAIR/MiniGPT-4)                    xywh
    lmms      lmms-lab/RefCOCO, parquet, a row a ref, pictures inside                           xywh
    jxu124    jxu124/refcoco, parquet, a row a ref                                              xyxy
    qwen      refcoco_<split>.jsonl, a row a sentence, without img_id (QwenLM/Qwen-VL)          xyxy

A source is told by its files and columns, never by its numbers.
"""

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.datasets.coco_images import size_of
from evalkit.datasets.hub import snapshot
from evalkit.datasets.refcoco_pickle import load_plain
from evalkit.datasets.refcoco_refs import Ref, check_refs, from_xywh, make_ref, numbers, ref_of_box
from evalkit.errors import DataError
from evalkit.extras import require

HUB_IDS = ("lmms-lab/RefCOCO", "jxu124/refcoco")
_SPLIT = re.compile(r"(?:^|[_.\-])(train|validation|val|testA|testB|test)(?=[_.\-])")
_OWN_NAMES = {"validation": "val"}
_MAX_BYTES = 1 << 30  # unpacked; instances.json has about 130 MB


@dataclass(frozen=True, slots=True)
class Annotations:
    """form: a key of the table above; by_box: the source has no img_id."""

    form: str
    name: str
    revision: str | None
    refs: tuple[Ref, ...]

    @property
    def by_box(self) -> bool:
        return self.form == "qwen"


def read_annotations(source: str, splits: tuple[str, ...]) -> Annotations:
    """The refs of some splits from a file, a folder or a Hub id. Raises DataError or Unavailable."""
    place, revision = Path(source), None
    if source in HUB_IDS and not place.exists():
        place, revision = snapshot(source, ["**/*.parquet"], "A local copy serves too.")
    form, files = _recognised(place, splits)
    refs = [ref for ref in _READERS[form](files, splits) if ref.split in splits]
    check_refs(refs, source)
    name = source if revision else f"{form} ({', '.join(file.name for file in files)})"
    return Annotations(form, name, revision, tuple(refs))


def _recognised(place: Path, splits: tuple[str, ...]) -> tuple[str, tuple[Path, ...]]:
    if place.is_file():
        files = [place]
    elif place.is_dir():
        files = sorted(file for file in place.rglob("*") if file.is_file())
    else:
        raise DataError(f"--annotations {place}: no such file or folder, nor one of {', '.join(HUB_IDS)}.")
    if pickles := [file for file in files if file.suffix == ".p" and "google" not in file.name]:
        instances = pickles[0].parent / "instances.json"
        if not instances.is_file():
            raise DataError(f"{pickles[0]}: needs instances.json beside it, which has the boxes.")
        return "unc", (pickles[0], instances)
    if parquet := [
        file for file in files if file.suffix == ".parquet" and _split_of(file) in (*splits, "test")
    ]:
        return _parquet_form(parquet[0]), tuple(parquet)
    of_one = len(files) == 1
    lines = [f for f in files if f.name.endswith((".jsonl", ".jsonl.gz")) and _named_well(f, splits, of_one)]
    if lines:
        return "qwen", tuple(lines)
    arrays = [f for f in files if f.name.endswith((".json", ".json.gz")) and _named_well(f, splits, of_one)]
    if arrays:
        return "minigpt4", tuple(arrays)
    raise DataError(
        f"--annotations {place}: no RefCOCO of {', '.join(splits)} there. Known: refs(unc).p with instances.json; "
        "refcoco_<split>.json (MiniGPT-4) or .jsonl (Qwen), gzipped or not; parquet of "
        f"{' or '.join(HUB_IDS)} with the split in its name."
    )


def _split_of(file: Path) -> str | None:
    found = _SPLIT.search(file.name)
    return _OWN_NAMES.get(found[1], found[1]) if found else None


def _named_well(file: Path, splits: tuple[str, ...], of_one: bool) -> bool:
    """In a folder others may lie beside (refcoco+, refcocog); a single file is what it says."""
    return _split_of(file) in splits and (of_one or file.name.startswith("refcoco_"))


def _parquet_form(file: Path) -> str:
    require("Parquet", "data", "pyarrow")
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        names = set(parquet.read_schema(file).names)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a parquet file ({str(error)[:120]}).") from None
    if {"raw_image_info", "sentences", "bbox", "file_name"} <= names:
        return "jxu124"
    if {"image", "answer", "bbox", "file_name"} <= names:
        return "lmms"
    raise DataError(f"{file}: columns of neither {' nor '.join(HUB_IDS)}: {', '.join(sorted(names))}.")


def _unc(files: tuple[Path, ...], splits: tuple[str, ...]) -> Iterator[Ref]:
    refs, instances = load_plain(files[0]), _json(files[1])
    with _saying(files[1], None):
        images = {image["id"]: (image["width"], image["height"]) for image in instances["images"]}
        boxes = {annotation["id"]: annotation["bbox"] for annotation in instances["annotations"]}
    if not isinstance(refs, list):
        raise DataError(f"{files[0]}: expected a list of refs, found {type(refs).__name__}.")
    for number, ref in enumerate(refs):
        with _saying(files[0], number):
            if ref["split"] in splits:
                yield make_ref(
                    ref["split"],
                    ref["file_name"].removesuffix(".jpg"),
                    from_xywh(boxes[_key(ref["ann_id"])]),
                    images[_key(ref["image_id"])],
                    [sentence["sent"] for sentence in ref["sentences"]],
                )


def _key(value: Any) -> int:
    """An id of a pickle, which may hold what takes for ever to hash. Raises ValueError."""
    if not isinstance(value, int):
        raise ValueError(f"an id of type {type(value).__name__}; expected a whole number")
    return value


def _minigpt4(files: tuple[Path, ...], splits: tuple[str, ...]) -> Iterator[Ref]:
    for file in files:
        rows = _json(file)
        if not isinstance(rows, list):
            raise DataError(f"{file}: expected a list of rows, found {type(rows).__name__}.")
        split = _split_of(file) or ""
        for group in _groups(file, rows, lambda row: row["img_id"]):
            with _saying(file, group[0][0]):
                first = group[0][1]
                _same(group, "bbox")
                size_wh = (first["width"], first["height"])
                texts = [row["sents"] for _, row in group]
                yield make_ref(split, first["img_id"], from_xywh(first["bbox"]), size_wh, texts)


def _qwen(files: tuple[Path, ...], splits: tuple[str, ...]) -> Iterator[Ref]:
    for file in files:
        split = _split_of(file) or ""
        rows = [
            _json_line(file, number, line)
            for number, line in enumerate(_text(file).split("\n"))
            if line.strip()
        ]
        for group in _groups(file, rows, lambda row: (row["image"], tuple(row["bbox"]))):
            with _saying(file, group[0][0]):
                first = group[0][1]
                image = re.split(r"[/\\]", first["image"])[-1].removesuffix(".jpg")
                size_wh = (first["width"], first["height"])
                texts = [row["sent"] for _, row in group]
                yield ref_of_box(split, image, numbers(first["bbox"]), size_wh, texts)


def _jxu124(files: tuple[Path, ...], splits: tuple[str, ...]) -> Iterator[Ref]:
    """Its split `test` is testA."""
    for file in files:
        split = {"test": "testA"}.get(_split_of(file) or "", _split_of(file) or "")
        if split not in splits:
            continue
        for number, row in enumerate(
            _parquet_rows(file, ["file_name", "bbox", "sentences", "raw_image_info"])
        ):
            with _saying(file, number):
                info = json.loads(row["raw_image_info"])
                texts = [sentence["sent"] for sentence in row["sentences"]]
                name = row["file_name"].removesuffix(".jpg")
                yield make_ref(split, name, numbers(row["bbox"]), (info["width"], info["height"]), texts)


def _lmms(files: tuple[Path, ...], splits: tuple[str, ...]) -> Iterator[Ref]:
    """Its `test` is Google's and left alone. Its `val` has Google's rows among UNC's: see refcoco.py.

    Both are splits of the same 50,000 refs, so that a ref which both took stands there twice: it is one.
    """
    known: dict[str, Ref] = {}
    for file in files:
        split = _split_of(file) or ""
        if split not in splits:
            continue
        for number, row in enumerate(_parquet_rows(file, ["file_name", "bbox", "answer", "image"])):
            with _saying(file, number):
                size_wh = size_of(row["image"]["bytes"])
                name = row["file_name"].removesuffix(".jpg")
                ref = make_ref(split, name, from_xywh(row["bbox"]), size_wh, row["answer"])
                if split == "val" and known.get(ref.img_id) == ref:
                    continue
                known[ref.img_id] = ref
                yield ref


_READERS: dict[str, Callable[[tuple[Path, ...], tuple[str, ...]], Iterator[Ref]]] = {
    "unc": _unc,
    "minigpt4": _minigpt4,
    "lmms": _lmms,
    "jxu124": _jxu124,
    "qwen": _qwen,
}


class _saying:
    """Whatever a malformed row raises becomes one DataError that names it; rows count from 0."""

    def __init__(self, file: Path, row: int | None) -> None:
        self._where = str(file) if row is None else f"{file}: row {row}"

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyError):
            raise DataError(f"{self._where}: {str(error)[:80]} is missing.") from None
        if isinstance(error, ValueError | TypeError | AttributeError | IndexError | OSError | RecursionError):
            raise DataError(f"{self._where}: {' '.join(str(error).split())[:200]}.") from None


def _groups(file: Path, rows: list[Any], key: Callable[[Any], Any]) -> Iterator[list[tuple[int, Any]]]:
    """Rows of one ref, wherever they stand, with their numbers; in the order of each ref's first."""
    groups: dict[Any, list[tuple[int, Any]]] = {}
    for number, row in enumerate(rows):
        with _saying(file, number):
            groups.setdefault(key(row), []).append((number, row))
    yield from groups.values()


def _same(group: list[tuple[int, Any]], key: str) -> None:
    if any(row[key] != group[0][1][key] for _, row in group):
        raise ValueError(f"one img_id with two {key}")


def _parquet_rows(file: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(64, columns=columns):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{file}: cannot be read ({str(error)[:120]}).") from None


def _json_line(file: Path, number: int, line: str) -> Any:
    with _saying(file, number):
        return json.loads(line)


def _json(file: Path) -> Any:
    try:
        return json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON ({str(error)[:120]}).") from None


def _text(file: Path) -> str:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            content = opened.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES:,} bytes")
        return content.decode("utf-8-sig")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{file}: cannot be read ({str(error)[:120]}).") from None
