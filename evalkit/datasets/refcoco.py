"""evalkit data prepare refcoco: annotations -> checked refs -> one sample a sentence, with or without pictures."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from evalkit import __version__
from evalkit.datasets.coco_images import CocoImages, rgb_sha256
from evalkit.datasets.disk import DATASET_FILE, fingerprint, read_info, splits_of, write_json
from evalkit.datasets.place import put_in_place, split_entry, sweep, write_metadata
from evalkit.datasets.refcoco_refs import PUBLISHED, Ref, count, size_faults
from evalkit.datasets.refcoco_sources import Annotations, read_annotations
from evalkit.datasets.verify import damage
from evalkit.errors import DataError
from evalkit.records import Sample
from evalkit.sampling import stratified

TASK = "refcoco"
LICENCE = (
    "sentences: RefCOCO (UNC), Apache-2.0 as lichengunc/refer; boxes: COCO, CC BY 4.0; "
    "photographs: Flickr's terms of use"
)
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Wish:
    """images: a folder or zip of train2014, or None for a set without. sample: sentences a split, seeded."""

    annotations: str
    splits: tuple[str, ...]
    images: Path | None
    sample: int | None = None
    seed: int = 42
    partial: bool = False
    unc_val: str | None = None


def prepare(data_dir: Path, wish: Wish, *, force: bool = False, jobs: int = 2) -> list[dict[str, Any]]:
    """Put the splits in place; one entry each, as dataset.json has it, with `fresh`.

    Raises DataError: malformed annotations, sizes that are not the published ones, pictures that are missing or
    of another size, another set in the way. Nothing is put in place then.
    """
    annotations = _annotations(wish)
    if not wish.partial and (faults := size_faults(annotations.refs, wish.splits, by_box=annotations.by_box)):
        raise DataError(
            f"--annotations {wish.annotations}: {'; '.join(faults)}. --partial takes a part of the set on purpose."
        )
    made_by = {
        split: {
            "annotations": _digest(_own(annotations.refs, split)),
            "form": annotations.form,
            "images": wish.images is not None,
            "sample": wish.sample,
            "seed": wish.seed if wish.sample else None,
            "partial": wish.partial,
        }
        for split in wish.splits
    }
    info = read_info(data_dir, TASK)
    present = [split for split in wish.splits if split in splits_of(data_dir, TASK)]
    same = [split for split in present if info["splits"].get(split, {}).get("made_by") == made_by[split]]
    if present and not force:
        if other := [split for split in present if split not in same]:
            raise DataError(f"{data_dir / TASK / other[0]} holds another set; --force replaces it.")
        if len(same) == len(wish.splits) and not any(damage(data_dir, TASK, split) for split in same):
            return [{"split": split, **info["splits"][split], "fresh": False} for split in wish.splits]
    rows = {split: _rows(_own(annotations.refs, split), wish) for split in wish.splits}
    if empty := [split for split, own in rows.items() if not own]:
        raise DataError(f"--annotations {wish.annotations}: no sentence of {', '.join(empty)} in it.")
    entries = _put(data_dir, rows, wish, annotations, made_by, info, jobs)
    return [{"split": split, **entries[split], "fresh": True} for split in wish.splits]


def _annotations(wish: Wish) -> Annotations:
    """The refs; those of lmms-lab's val only as far as they are UNC's."""
    found = read_annotations(wish.annotations, wish.splits)
    if found.form != "lmms" or "val" not in wish.splits or wish.partial:
        return found
    if wish.unc_val is None:
        raise DataError(
            f"--annotations {wish.annotations}: the val of lmms-lab/RefCOCO mixes Google's with UNC's (8,811 rows). "
            "Give --unc-val, annotations of another form whose val says which are UNC's, or take --splits testA,testB."
        )
    kept = {ref.img_id for ref in read_annotations(wish.unc_val, ("val",)).refs}
    refs = tuple(ref for ref in found.refs if ref.split != "val" or ref.img_id in kept)
    return replace(found, refs=refs)


def _digest(refs: Iterable[Ref]) -> str:
    """sha256 over the refs of a split, whatever their order and whichever other splits were read with them."""
    return fingerprint(map(asdict, sorted(refs, key=lambda ref: _place(ref.img_id))))


def _own(refs: Sequence[Ref], split: str) -> list[Ref]:
    return [ref for ref in refs if ref.split == split]


def _rows(refs: Sequence[Ref], wish: Wish) -> list[dict[str, Any]]:
    """One row a sentence, by img_id; of them the sample that --limit would take of the whole split."""
    rows = [row for ref in sorted(refs, key=lambda ref: _place(ref.img_id)) for row in _rows_of(ref)]
    if wish.sample is None:
        return rows
    chosen = {sample.sample_id for sample in stratified([_bare(row) for row in rows], wish.sample, wish.seed)}
    return [row for row in rows if row["sample_id"] in chosen]


def _place(img_id: str) -> tuple[str, int, str]:
    """The same order whatever the source's; numbers by size."""
    image, _, number = img_id.rpartition("_")
    return (image, int(number), "") if number.isdecimal() else (image, 0, number)


def _rows_of(ref: Ref) -> list[dict[str, Any]]:
    return [
        {
            "file_name": f"images/{ref.image}.jpg",
            "sample_id": f"{ref.split}/{ref.img_id}#{k}",
            "image_id": ref.image,
            "split": ref.split,
            "expression": sentence,
            "gold": list(ref.bbox_xyxy),
            "stratum": _box_size(ref.bbox_xyxy),
            "width": ref.size_wh[0],
            "height": ref.size_wh[1],
            "pixels_sha256": None,
            "geometry": {"bbox_xyxy": list(ref.bbox_xyxy)},
        }
        for k, sentence in enumerate(ref.sentences)
    ]


def _box_size(bbox_xyxy: Sequence[float]) -> str:
    """COCO's bounds, 32 x 32 and 96 x 96 pixels, on the box's area."""
    x0, y0, x1, y1 = bbox_xyxy
    area = (x1 - x0) * (y1 - y0)
    return "small" if area < 32**2 else "medium" if area < 96**2 else "large"


def _bare(row: Mapping[str, Any]) -> Sample:
    """As much of a sample as sampling looks at."""
    return Sample(
        sample_id=row["sample_id"],
        image_id=row["image_id"],
        split=row["split"],
        image_path=Path(row["file_name"]),
        image_size_wh=(row["width"], row["height"]),
        pixels_sha256=None,
        gold=row["gold"],
        stratum=row["stratum"],
        variables={},
        geometry={},
    )


def _put(
    data_dir: Path,
    rows: Mapping[str, list[dict[str, Any]]],
    wish: Wish,
    annotations: Annotations,
    made_by: Mapping[str, Mapping[str, Any]],
    info: Mapping[str, Any],
    jobs: int,
) -> dict[str, dict[str, Any]]:
    folder = data_dir / TASK
    entries: dict[str, dict[str, Any]] = dict(info["splits"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder, ".preparing-")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".preparing-") as temporary:
            if wish.images is not None:
                _copy_images(wish.images, rows, Path(temporary), jobs)
            for split, own in rows.items():
                (Path(temporary) / split).mkdir(exist_ok=True)
                write_metadata(Path(temporary) / split, own)
                images, refs, sentences = count(_own(annotations.refs, split))
                entries[split] = split_entry(own, _source(annotations, wish), LICENCE) | {
                    "made_by": dict(made_by[split]),
                    "annotated": {"images": images, "refs": refs, "sentences": sentences},
                    "published": dict(zip(("images", "refs", "sentences"), PUBLISHED[split], strict=True)),
                }
            # first: after a kill the splits do not fit it and are put anew
            write_json(folder / DATASET_FILE, {"dataset": TASK, "evalkit": __version__, "splits": entries})
            for split in rows:
                put_in_place(Path(temporary) / split, folder / split)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}).") from None
    return entries


def _source(annotations: Annotations, wish: Wish) -> str:
    words = f"RefCOCO (UNC), {annotations.name}"
    words += f" @ {annotations.revision}" if annotations.revision else ""
    words += "" if wish.images else "; without pictures"
    words += f"; {wish.sample} sentences a split, seed {wish.seed}" if wish.sample else ""
    return words + ("; a part of the published set" if wish.partial else "")


def _copy_images(place: Path, rows: Mapping[str, list[dict[str, Any]]], folder: Path, jobs: int) -> None:
    """Copy every picture that is asked about, as it is, and note its pixels' hash in its rows.

    Raises DataError, which names the first that are missing, damaged or of another size than annotated.
    """
    images = CocoImages(place)
    todo: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for split, own in rows.items():
        (folder / split / "images").mkdir(parents=True)
        for row in own:
            todo.setdefault((split, row["file_name"]), []).append(row)

    def copy(item: tuple[tuple[str, str], list[dict[str, Any]]]) -> str | None:
        (split, file_name), own = item
        name = file_name.rpartition("/")[2]
        sizes_wh = list(dict.fromkeys((row["width"], row["height"]) for row in own))
        if len(sizes_wh) > 1:
            return (
                f"{name} is annotated with two sizes, {' and '.join(f'{w} x {h}' for w, h in sizes_wh[:2])}"
            )
        try:
            content = images.read(name)
            if content is None:
                return f"{name} is missing"
            sha256 = rgb_sha256(content, sizes_wh[0])
        except ValueError as error:
            return f"{name} {error}"
        (folder / split / file_name).write_bytes(content)
        for row in own:
            row["pixels_sha256"] = sha256
        return None

    try:
        with ThreadPoolExecutor(jobs) as pool:
            done = tqdm(
                pool.map(copy, todo.items()), total=len(todo), desc="copying", unit="picture", disable=None
            )
            faults = [fault for fault in done if fault]
    finally:
        images.close()
    if faults:
        more = f" and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise DataError(f"--images {place}: {'; '.join(faults[:_NAMED])}{more}.")
