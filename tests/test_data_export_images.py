"""Images that readers would turn, odd file and split names, and what is no export: pixels and rows stay the set's."""

import io
import json

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from support import cli, cli_json, write_jsonl

from evalkit.datasets.disk import pixels_sha256, read_split
from evalkit.exporting.images import check_images, image_bytes
from evalkit.exporting.names import image_names, safe_splits

XMP = (
    b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="8"/></x:xmpmeta>'
)


def picture(seed, size_wh=(31, 17)):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (size_wh[1], size_wh[0], 3), np.uint8))


def exif(orientation):
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def with_segment(jpeg, payload, fill=b""):
    """An APP1 segment behind the start of a JPEG, after fill bytes."""
    return jpeg[:2] + fill + b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload + jpeg[2:]


def one_split(folder, files, split="odd", dataset="line_intersection", ids="{:03}"):
    """A split of one question an image, whose rows say what plain Pillow decodes."""
    target = folder / dataset / split
    rows = []
    for number, (name, data) in enumerate(files.items()):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        with Image.open(path) as image:
            sha256, (width, height) = pixels_sha256(image.size, image.convert("RGB").tobytes()), image.size
        rows.append(
            {
                "file_name": name, "sample_id": ids.format(number + 1), "image_id": f"{number:06}", "split": split,
                "gold": number, "stratum": str(number), "width": width, "height": height, "pixels_sha256": sha256,
                "geometry": {},
            }
        )  # fmt: skip
    write_jsonl(target / "metadata.jsonl", rows)
    return read_split(folder, dataset, split)


TURNED = {
    "jpeg.jpg": encoded(picture(1), "JPEG", exif=exif(6), icc_profile=b"profile" * 9),
    "xmp.jpeg": with_segment(encoded(picture(2), "JPEG"), XMP, fill=b"\xff\xff"),
    "png.png": encoded(picture(3), "PNG", exif=exif(3)),
    "webp.webp": encoded(picture(4), "WEBP", exif=exif(8), lossless=True),
    "grey.jpg": encoded(picture(5).convert("L"), "JPEG", exif=exif(5)),
}
STRAIGHT = {
    "plain.jpg": encoded(picture(7), "JPEG", exif=exif(1)),
    "tiff.tif": encoded(picture(6), "TIFF", tiffinfo={274: 6}),  # turned by Pillow itself, for everybody
    "cmyk.jpg": encoded(picture(8).convert("CMYK"), "JPEG"),
    "palette.png": encoded(picture(9).quantize(8), "PNG"),
}


@pytest.mark.parametrize("name", TURNED)
def test_a_turned_image_goes_out_straight(name, tmp_path):
    split = one_split(tmp_path, {f"images/{name}": TURNED[name]})
    (sample,) = split.samples
    with Image.open(sample.image_path) as image:  # the trap: who follows the tag sees another picture
        assert ImageOps.exif_transpose(image).convert("RGB").tobytes() != image.convert("RGB").tobytes()
    stored = check_images([split])[str(sample.image_path)]
    assert stored.straightened
    with Image.open(io.BytesIO(image_bytes(sample.image_path, stored))) as image:
        straight = ImageOps.exif_transpose(image).convert("RGB")
        assert stored.suffix == (".jpg" if image.format == "JPEG" else ".png")
        assert image.format == (
            "JPEG" if name.endswith(("jpg", "jpeg")) else "PNG"
        )  # a JPEG is not coded anew
    assert pixels_sha256(straight.size, straight.tobytes()) == sample.pixels_sha256


@pytest.mark.parametrize("name", STRAIGHT)
def test_any_other_goes_out_as_it_is(name, tmp_path):
    split = one_split(tmp_path, {f"images/{name}": STRAIGHT[name]})
    stored = check_images([split])
    assert [image_bytes(sample.image_path, stored[str(sample.image_path)]) for sample in split.samples] == [
        STRAIGHT[name]
    ]


ODD_FILES = {
    "images/.hidden.jpg": STRAIGHT["plain.jpg"],
    "images/__x.png": STRAIGHT["palette.png"],
    "a::b #1?.jpg": TURNED["jpeg.jpg"],
    "images/deep/x.png": TURNED["png.png"],
    "metadata/X.PNG": encoded(picture(11), "PNG"),
    "no_suffix": encoded(picture(12), "PNG"),
    "wrong.txt": encoded(picture(13), "JPEG"),
}


@pytest.mark.parametrize("format_name", ["hf", "parquet"])
def test_datasets_loads_odd_names_and_turned_images(format_name, tmp_path, monkeypatch):
    """Also ids that look like numbers, rows without geometry, and splits whose names `datasets` would refuse."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    splits = {
        name: one_split(tmp_path / "data", files, split=name)
        for name, files in (
            ("my-test [1]", ODD_FILES),
            ("my_test_1", {"images/1.png": STRAIGHT["palette.png"]}),
        )
    }
    words = ("--format", format_name, "--out", tmp_path / "out", "--data", tmp_path / "data")
    document = cli_json("data", "export", "line_intersection", *words)
    exported = {name: entry["exported_as"] for name, entry in document["splits"].items()}
    assert exported == {"my-test [1]": "my_test__1", "my_test_1": "my_test_1"}
    assert document["straightened"] == 2
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    for name, split in splits.items():
        rows = {row["sample_id"]: row for row in loaded[exported[name]]}
        assert set(rows) == {sample.sample_id for sample in split.samples}
        for sample in split.samples:
            image = rows[sample.sample_id]["image"].convert("RGB")
            assert pixels_sha256(image.size, image.tobytes()) == sample.pixels_sha256
            assert rows[sample.sample_id]["split"] == name
            assert json.loads(rows[sample.sample_id]["geometry"]) == {}


def test_ids_that_look_like_dates_keep_their_type_or_are_refused(tmp_path):
    datasets = pytest.importorskip("datasets")
    one_split(tmp_path / "data", {"images/1.png": STRAIGHT["palette.png"]}, ids="2024-01-{:02}")
    words = (
        "data",
        "export",
        "line_intersection",
        "--data",
        tmp_path / "data",
        "--out",
        tmp_path / "out",
        "--format",
    )
    result = cli(*words, "hf")
    assert result.exit_code == 1
    assert "every sample_id looks like a date ('2024-01-01')" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert cli(*words, "parquet").exit_code == 0
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert loaded["odd"]["sample_id"][:] == ["2024-01-01"]


@pytest.mark.parametrize(
    ("names", "exported"),
    [
        (["train", "testA"], ["train", "testA"]),
        (["a-b", "a b", "a_b"], ["a_b", "a_b_2", "a_b_3"]),
        (["Test", "test"], ["Test", "test_2"]),  # one folder where case does not count
        (["ü", "…"], ["split", "split_2"]),
    ],
)
def test_split_names(names, exported):
    assert list(safe_splits(names).values()) == exported


def test_image_names_are_once_each(tmp_path):
    files = dict.fromkeys(("a/x.png", "b/x.png", "b/X.png", "ä.png"), STRAIGHT["palette.png"])
    split = one_split(tmp_path, files)
    suffixes = {str(sample.image_path): ".png" for sample in split.samples}
    assert list(image_names(split.samples, suffixes).values()) == [
        "images/x.png",
        "images/x_2.png",
        "images/X_3.png",
        "images/image.png",
    ]


def test_a_set_without_images_is_refused(tmp_path):
    one_split(tmp_path / "data", {"images/1.png": STRAIGHT["palette.png"]})
    path = tmp_path / "data/line_intersection/odd/metadata.jsonl"
    write_jsonl(path, [json.loads(path.read_text()) | {"pixels_sha256": None}])
    result = cli(
        "data",
        "export",
        "line_intersection",
        "--format",
        "hf",
        "--data",
        tmp_path / "data",
        "--out",
        tmp_path / "out",
    )
    assert result.exit_code == 1
    assert "was prepared without its images" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_link_to_an_export_is_followed_and_links_inside_are_not(tmp_path):
    one_split(tmp_path / "data", {"images/1.png": STRAIGHT["palette.png"]})
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("kept")
    (tmp_path / "link").symlink_to("real")
    words = (
        "data",
        "export",
        "line_intersection",
        "--format",
        "hf",
        "--data",
        tmp_path / "data",
        "--out",
        tmp_path / "link",
    )
    assert cli(*words).exit_code == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real/README.md").exists()
    (tmp_path / "real/odd/more").symlink_to(tmp_path / "precious")
    assert "did not write (odd/more)" in cli(*words, "--force").stderr
    (tmp_path / "real/odd/more").unlink()
    assert cli(*words, "--force").exit_code == 0
    assert (tmp_path / "precious/file").read_text() == "kept"
