"""A small PixMo-Points in the published schema, whose pictures a loopback server has, some of them in a bad way."""

import pyarrow as pa
import pyarrow.parquet as pq
from picture_server import HAZARDS, MENDED, sha256

POINT = pa.struct([("x", pa.float64()), ("y", pa.float64())])


def schema(label="label"):
    return pa.schema(
        [
            ("image_url", pa.string()),
            ("image_sha256", pa.string()),
            ("points", pa.list_(POINT)),
            ("count", pa.int64()),
            (label, pa.string()),
            ("collection_method", pa.string()),
        ]
    )


def row(url, sha, label, points=((50.0, 25.0),), count=None, method="pointing"):
    return {
        "image_url": url,
        "image_sha256": sha,
        "points": [{"x": x, "y": y} for x, y in points],
        "count": len(points) if count is None else count,
        "label": label,
        "collection_method": method,
    }


def write(folder, rows, label="label", name="train-00000-of-00001.parquet"):
    folder.mkdir(parents=True, exist_ok=True)
    renamed = [{label if key == "label" else key: value for key, value in one.items()} for one in rows]
    pq.write_table(pa.Table.from_pylist(renamed, schema=schema(label)), folder / name, row_group_size=500)
    return folder


def web_rows(server_url, n, n_labels, bad_turns=(), kinds=tuple(HAZARDS) + MENDED):
    """Picture i has label i % n_labels; on the turns of `bad_turns` something is wrong with it, each kind in its turn.

    Returns the rows and the kind of each picture.
    """
    rows, chosen, bad = [], {}, 0
    for i in range(n):
        kind = "ok"
        if i // n_labels in bad_turns:
            kind, bad = kinds[bad % len(kinds)], bad + 1
        chosen[i] = kind
        point = ((i * 7 % 1000) / 10, (i * 13 % 1000) / 10)
        rows.append(row(f"{server_url}/{kind}/{i}.jpg", sha256(kind, i), f"Thing {i % n_labels}", (point,)))
    return rows, chosen


def eval_set(folder, rows):
    """pixmo-points-eval: the pictures that must not be used."""
    table = [{"image_url": one["image_url"], "image_sha256": one["image_sha256"]} for one in rows]
    kind = pa.schema([("image_url", pa.string()), ("image_sha256", pa.string())])
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table, schema=kind), folder / "test.parquet")
    return folder
