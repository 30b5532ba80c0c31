"""A few refs written in each form that RefCOCO is published in."""

import gzip
import io
import json
import pickle

from PIL import Image

# split, image number, (width, height), bbox xywh as COCO has it, ref number, sentences
REFS = [
    ("val", 580957, (640, 428), [468.3, 0.91, 171.7, 116.12], 4, ["dish in top right corner", "white pot"]),
    ("val", 580957, (640, 428), [0.0, 93.18, 361.12, 330.52], 2, ["front bowl"]),
    ("val", 42, (427, 640), [103.93, 299.99, 134.22, 177.42], 16, ["lady", "lady", "blue shirt"]),
    ("testA", 7, (120, 80), [10.5, 20.25, 30.0, 31.5], 0, ["man on right"]),
    ("testB", 8, (50, 70), [0.0, 0.0, 50.0, 70.0], 3, ["everything", "the whole picture"]),
]
SPLITS = ("val", "testA", "testB")
WORDS = {"val": "validation", "testA": "test", "testB": "testB"}  # jxu124's names


def stem(number):
    return f"COCO_train2014_{number:012d}"


def jpeg(size_wh, exif=None):
    buffer = io.BytesIO()
    picture = Image.linear_gradient("L").resize(size_wh).convert("RGB")
    picture.save(buffer, "JPEG", **({"exif": exif} if exif else {}))
    return buffer.getvalue()


def xyxy(xywh):
    x, y, w, h = xywh
    return [x, y, x + w, y + h]


def write_unc(folder, protocol=2):
    refs, images, annotations = [], {}, []
    for i, (split, number, (width, height), xywh, ref, sentences) in enumerate(REFS):
        texts = [
            {"tokens": s.split(), "raw": s.upper(), "sent_id": k, "sent": s} for k, s in enumerate(sentences)
        ]
        name = f"{stem(number)}_{ref}.jpg"
        refs.append(
            {"sent_ids": [0], "file_name": name, "ann_id": 100 + i, "ref_id": i, "image_id": number, "split": split,
             "sentences": texts, "category_id": 1}
        )  # fmt: skip
        images[number] = {"id": number, "file_name": f"{stem(number)}.jpg", "width": width, "height": height}
        annotations.append({"id": 100 + i, "bbox": xywh, "image_id": number})
    folder.mkdir(parents=True)
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=protocol))
    (folder / "refs(google).p").write_bytes(b"not to be read")
    (folder / "instances.json").write_text(
        json.dumps({"images": list(images.values()), "annotations": annotations})
    )
    return folder


def write_minigpt4(folder):
    folder.mkdir(parents=True)
    for split in SPLITS:
        rows = [
            {"img_id": f"{stem(n)}_{r}", "sents": s, "bbox": xywh, "height": h, "width": w}
            for own, n, (w, h), xywh, r, sentences in REFS
            for s in sentences
            if own == split
        ]
        (folder / f"refcoco_{split}.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
    (folder / "refcoco+_val.json").write_text("[]")
    return folder


def write_qwen(folder):
    folder.mkdir(parents=True)
    for split in SPLITS:
        rows = [
            {
                "image": f"data/coco/train2014/{stem(n)}.jpg",
                "sent": s,
                "bbox": xyxy(xywh),
                "height": h,
                "width": w,
            }
            for own, n, (w, h), xywh, _, sentences in REFS
            for s in sentences
            if own == split
        ]
        (folder / f"refcoco_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_lmms(folder, more_val=()):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "data").mkdir(parents=True)
    for split in (*SPLITS, "test"):
        rows = [
            {"question_id": str(r), "image": {"bytes": jpeg(size), "path": None}, "question": "?", "answer": sentences,
             "bbox": xywh, "file_name": f"{stem(n)}_{r}.jpg"}
            for own, n, size, xywh, r, sentences in (*REFS, *more_val)
            if own == split
        ]  # fmt: skip
        rows = rows or [
            {"question_id": "g", "answer": ["Google's"], "bbox": [0.0] * 4, "file_name": "x", "image": None}
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def write_jxu124(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "data").mkdir(parents=True)
    for split in SPLITS:
        rows = [
            {"file_name": f"{stem(n)}_{r}.jpg", "split": split, "bbox": xyxy(xywh),
             "sentences": [{"raw": s.upper(), "sent": s, "sent_id": k} for k, s in enumerate(sentences)],
             "raw_image_info": json.dumps({"width": w, "height": h, "file_name": f"{stem(n)}.jpg"})}
            for own, n, (w, h), xywh, r, sentences in REFS
            if own == split
        ]  # fmt: skip
        pq.write_table(
            pa.Table.from_pylist(rows), folder / "data" / f"{WORDS[split]}-00000-of-00001-abc.parquet"
        )
    return folder


FORMS = {
    "unc": write_unc,
    "minigpt4": write_minigpt4,
    "lmms": write_lmms,
    "jxu124": write_jxu124,
    "qwen": write_qwen,
}


def write_images(folder, exif=None):
    (folder / "train2014").mkdir(parents=True)
    for _, number, size_wh, *_ in REFS:
        (folder / "train2014" / f"{stem(number)}.jpg").write_bytes(jpeg(size_wh, exif))
    return folder
