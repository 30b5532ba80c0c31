"""RefCOCO from five forms: the same boxes and rows, published sizes, pictures of the annotated size, no code run."""

import gzip
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import refcoco_fixture as fixture
from PIL import Image
from support import cli, cli_json

from evalkit.datasets import refcoco
from evalkit.datasets.disk import pixels_sha256, read_rows, read_split
from evalkit.datasets.refcoco_pickle import load_plain
from evalkit.datasets.refcoco_sources import read_annotations
from evalkit.errors import DataError
from evalkit.frames import Frame
from evalkit.sampling import stratified

PARQUET = ("lmms", "jxu124")


@pytest.fixture(params=fixture.FORMS)
def form(request):
    if request.param in PARQUET:
        pytest.importorskip("pyarrow", reason="the `data` extra is not installed")
    return request.param


def prepare(where, annotations, *words, exit_code=0, partial=True):
    base = ["data", "prepare", "refcoco", "--data", where, "--annotations", annotations, *words]
    base += ["--partial"] * partial
    if exit_code == 0:
        return cli_json(*base)
    result = cli(*base)
    assert result.exit_code == exit_code, result.output
    assert result.stderr.count("\n") == 1 or exit_code == 2
    return result.stderr


def test_each_form_gives_the_same_refs(tmp_path, form):
    found = read_annotations(str(fixture.FORMS[form](tmp_path / form)), fixture.SPLITS)
    assert found.form == form
    boxes = {(ref.split, ref.image, ref.sentences): (ref.bbox_xyxy, ref.size_wh) for ref in found.refs}
    assert boxes == {
        ("val", "COCO_train2014_000000580957", ("dish in top right corner", "white pot")): (
            (468.3, 0.91, 640.0, 117.03), (640, 428)),
        ("val", "COCO_train2014_000000580957", ("front bowl",)): ((0.0, 93.18, 361.12, 423.7), (640, 428)),
        ("val", "COCO_train2014_000000000042", ("lady", "lady", "blue shirt")): (
            (103.93, 299.99, 238.15, 477.41), (427, 640)),
        ("testA", "COCO_train2014_000000000007", ("man on right",)): ((10.5, 20.25, 40.5, 51.75), (120, 80)),
        ("testB", "COCO_train2014_000000000008", ("everything", "the whole picture")): ((0.0, 0.0, 50.0, 70.0), (50, 70)),
    }  # fmt: skip


def test_each_form_gives_the_same_rows(tmp_path, form):
    entries = prepare(tmp_path / "data", fixture.FORMS[form](tmp_path / form), "--no-images")
    assert [(e["split"], e["samples"], e["annotated"]["refs"]) for e in entries] == [
        ("val", 6, 3), ("testA", 1, 1), ("testB", 2, 1)]  # fmt: skip
    rows = read_rows(tmp_path / "data", "refcoco", "val")
    if form == "qwen":
        assert rows[0]["sample_id"] == "val/COCO_train2014_000000000042_box103.93,299.99,238.15,477.41#0"
        return
    assert [row["sample_id"] for row in rows] == [
        "val/COCO_train2014_000000000042_16#0",
        "val/COCO_train2014_000000000042_16#1",
        "val/COCO_train2014_000000000042_16#2",
        "val/COCO_train2014_000000580957_2#0",
        "val/COCO_train2014_000000580957_4#0",
        "val/COCO_train2014_000000580957_4#1",
    ]
    reference = prepare(tmp_path / "other", fixture.write_minigpt4(tmp_path / "reference"), "--no-images")
    assert [e["fingerprint"] for e in entries] == [e["fingerprint"] for e in reference]


def test_sizes_that_are_not_the_published_ones(tmp_path):
    message = prepare(
        tmp_path / "data", fixture.write_minigpt4(tmp_path / "m"), "--no-images", exit_code=1, partial=False
    )
    assert "val: 2 images found, 1,500 published; val: 3 refs found, 3,811 published" in message
    assert "testB: 2 sentences found, 5,095 published" in message
    assert not (tmp_path / "data").exists()


def test_googles_rows_in_val_of_lmms_lab(tmp_path):
    pytest.importorskip("pyarrow", reason="the `data` extra is not installed")
    google = ("val", 99, (60, 40), [1.0, 1.0, 9.0, 9.0], 1, ["of Google"])
    source = fixture.write_lmms(tmp_path / "lmms", more_val=[google])
    message = prepare(tmp_path / "data", source, "--no-images", exit_code=1, partial=False)
    assert "mixes Google's with UNC's (8,811 rows)" in message
    unc = fixture.write_minigpt4(tmp_path / "m")
    message = prepare(tmp_path / "data", source, "--no-images", "--unc-val", unc, exit_code=1, partial=False)
    assert "val: 3 refs found, 3,811 published" in message  # four, less Google's


def test_a_ref_of_both_googles_and_uncs_val_of_lmms_lab_is_one(tmp_path):
    pytest.importorskip("pyarrow", reason="the `data` extra is not installed")
    source = fixture.write_lmms(tmp_path / "lmms", more_val=[fixture.REFS[0]])
    assert len(read_annotations(str(source), ("val",)).refs) == 3
    split, number, size, _, ref, sentences = fixture.REFS[0]
    other = fixture.write_lmms(tmp_path / "o", more_val=[(split, number, size, [1.0] * 4, ref, sentences)])
    with pytest.raises(DataError, match="val/COCO_train2014_000000580957_4 stands there twice"):
        read_annotations(str(other), ("val",))


@pytest.mark.parametrize("packed", [False, True])
def test_pictures_from_a_folder_or_a_zip(tmp_path, packed):
    """An orientation tag is not applied: boxes are on the pixels as they are stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    images = fixture.write_images(tmp_path / "coco", exif)
    if packed:
        with zipfile.ZipFile(tmp_path / "train2014.zip", "w") as archive:
            for path in images.glob("*/*.jpg"):
                archive.write(path, f"train2014/{path.name}")
            archive.writestr("../../escape.jpg", b"")
    place = tmp_path / "train2014.zip" if packed else images
    source = fixture.write_unc(tmp_path / "unc")
    entries = prepare(tmp_path / "data", source, "--images", place)
    split = read_split(tmp_path / "data", "refcoco", "val")
    for sample in split.samples:
        with Image.open(sample.image_path) as image:
            assert image.size == sample.image_size_wh
            assert pixels_sha256(image.size, image.convert("RGB").tobytes()) == sample.pixels_sha256
    assert cli_json("data", "verify", "refcoco", "--data", tmp_path / "data")["ok"]
    again = prepare(tmp_path / "data", source, "--images", place)
    assert [e | {"fresh": True} for e in again] == entries
    assert not any(e["fresh"] for e in again)
    other = prepare(tmp_path / "data", source, "--no-images", exit_code=1)
    assert "holds another set; --force replaces it" in other


def test_a_split_is_known_again_beside_others(tmp_path, form):
    source = fixture.FORMS[form](tmp_path / form)
    (first,) = prepare(tmp_path / "data", source, "--no-images", "--splits", "val")
    val, _ = prepare(tmp_path / "data", source, "--no-images", "--splits", "val,testA")
    assert [val["fingerprint"], val["made_by"]] == [first["fingerprint"], first["made_by"]]
    assert not any(e["fresh"] for e in prepare(tmp_path / "data", source, "--no-images", "--splits", "testA"))


def test_another_unc_val_is_another_set(tmp_path):
    pytest.importorskip("pyarrow", reason="the `data` extra is not installed")
    refs = read_annotations(str(fixture.write_lmms(tmp_path / "lmms")), ("val",)).refs
    assert refcoco._digest(refs) == refcoco._digest(refs[::-1])
    assert refcoco._digest(refs) != refcoco._digest(refs[1:])


def test_pictures_that_do_not_fit_are_named_and_nothing_is_put_in_place(tmp_path):
    images = fixture.write_images(tmp_path / "coco")
    (images / "train2014" / f"{fixture.stem(42)}.jpg").write_bytes(fixture.jpeg((640, 427)))
    (images / "train2014" / f"{fixture.stem(7)}.jpg").unlink()
    torn = images / "train2014" / f"{fixture.stem(8)}.jpg"
    torn.write_bytes(torn.read_bytes()[:300])
    message = prepare(tmp_path / "data", fixture.write_unc(tmp_path / "unc"), "--images", images, exit_code=1)
    assert "COCO_train2014_000000000042.jpg has 640 x 427 pixels, annotated are 427 x 640" in message
    assert "COCO_train2014_000000000007.jpg is missing" in message
    assert "COCO_train2014_000000000008.jpg cannot be decoded" in message
    assert not (tmp_path / "data/refcoco/val").exists()


def test_refs_that_give_one_picture_two_sizes(tmp_path):
    row = {
        "img_id": f"{fixture.stem(580957)}_4",
        "sents": "dish",
        "bbox": [1, 2, 3, 4],
        "height": 428,
        "width": 640,
    }
    other = {"img_id": f"{fixture.stem(580957)}_5", "bbox": [900, 2, 30, 4], "width": 1000}
    (tmp_path / "refcoco_val.json").write_text(json.dumps([row, row | other]))
    words = ("--images", fixture.write_images(tmp_path / "coco"), "--splits", "val")
    message = prepare(tmp_path / "data", tmp_path / "refcoco_val.json", *words, exit_code=1)
    assert "COCO_train2014_000000580957.jpg is annotated with two sizes, 640 x 428 and 1000 x 428" in message
    assert not (tmp_path / "data/refcoco/val").exists()


def encrypted(content):
    """As if the first member had a password."""
    content[content.find(b"PK\x03\x04") + 6] |= 1
    content[content.find(b"PK\x01\x02") + 8] |= 1


def of_unknown_method(content):
    content[content.find(b"PK\x03\x04") + 8] = content[content.find(b"PK\x01\x02") + 10] = 77


def torn(content):
    content[100:110] = bytes(10)


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
@pytest.mark.parametrize("damage", [encrypted, of_unknown_method, torn])
def test_a_damaged_zip_is_one_line(tmp_path, method, damage):
    place, name = tmp_path / "train2014.zip", f"{fixture.stem(7)}.jpg"
    with zipfile.ZipFile(place, "w", method) as archive:
        archive.writestr(f"train2014/{name}", fixture.jpeg((120, 80)))
    content = bytearray(place.read_bytes())
    damage(content)
    place.write_bytes(content)
    source = fixture.write_unc(tmp_path / "unc")
    message = prepare(tmp_path / "data", source, "--images", place, "--splits", "testA", exit_code=1)
    assert f"--images {place}: {name} cannot be read (" in message


def test_without_pictures_nothing_can_be_asked_but_replies_score(tmp_path):
    prepare(tmp_path, fixture.write_unc(tmp_path / "unc"), "--no-images")
    result = cli("run", "--model", "fake", "--task", "refcoco", "--data", tmp_path, "--results", tmp_path)
    assert result.exit_code == 1
    assert "refcoco/val was prepared without its images" in result.stderr
    replies = [
        {"sample_id": r["sample_id"], "reply": str(r["gold"])} for r in read_rows(tmp_path, "refcoco", "val")
    ]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(reply) + "\n" for reply in replies[:4]))
    scored = cli_json(
        *("import", "--task", "refcoco", "--split", "val", "--model", "elsewhere", "--frame", "pixel"),
        *("--data", tmp_path, "--results", tmp_path / "results", tmp_path / "r.jsonl"),
    )
    assert (scored["correct"], scored["n"], scored["sample_of"], scored["mean_iou"]) == (4, 4, 6, 1.0)


def test_sampling_takes_what_limit_takes(tmp_path):
    source = fixture.write_unc(tmp_path / "unc")
    prepare(tmp_path / "all", source, "--no-images", "--splits", "val")
    prepare(tmp_path / "some", source, "--no-images", "--splits", "val", "--sample", "3", "--seed", "42")
    whole = read_split(tmp_path / "all", "refcoco", "val").samples
    some = read_split(tmp_path / "some", "refcoco", "val").samples
    assert [s.sample_id for s in some] == [s.sample_id for s in stratified(whole, 3, 42)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"img_id": "../../x"}, "row 0: img_id '../../x'; expected COCO_train2014_<12 digits>_<number>"),
        ({"img_id": 5}, "row 0: img_id '5'"),
        ({"bbox": [1, 2, 0, 4]}, "row 0: bbox_xyxy [1.0, 2.0, 1.0, 6.0] has no area or leaves the picture"),
        ({"bbox": [1, 2, 700, 4]}, "has no area or leaves the picture of 640 x 428"),
        ({"bbox": [1, 2, float("nan"), 4]}, "expected four finite numbers"),
        ({"bbox": [10**400, 2, 3, 4]}, "expected four finite numbers"),
        ({"bbox": ["1", 2, 3, 4]}, "expected four finite numbers"),
        ({"bbox": "1234"}, "expected four numbers"),
        ({"bbox": None}, "expected four numbers"),
        ({"sents": " "}, "a sentence is missing or empty"),
        ({"sents": 3}, "a sentence is missing or empty"),
        ({"sents": "red \x1b[31m"}, "a sentence has control characters: 'red \\x1b[31m'"),
        ({"sents": "\ud800"}, "a sentence has control characters"),
        ({"width": 640.0}, "expected whole numbers above 0"),
        ({"height": None}, "expected whole numbers above 0"),
    ],
)
def test_malformed_rows_are_named(tmp_path, change, message):
    row = {
        "img_id": "COCO_train2014_000000580957_4",
        "sents": "dish",
        "bbox": [1, 2, 3, 4],
        "height": 428,
        "width": 640,
    }
    (tmp_path / "refcoco_val.json").write_text(json.dumps([row | change]))
    assert message in prepare(
        tmp_path, tmp_path / "refcoco_val.json", "--no-images", "--splits", "val", exit_code=1
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("refcoco_val.json", "{", "not JSON"),
        ("refcoco_val.json", "{}", "expected a list of rows, found dict"),
        ("refcoco_val.json", "[1]", "row 0: "),
        ("refcoco_val.json", "[" * 100_000, "not JSON"),
        ("refcoco_val.jsonl", "{}\n", "row 0: 'image' is missing"),
        ("refcoco_val.jsonl", "nonsense\n", "row 0: "),
        ("refcoco_val.jsonl", "[" * 100_000, "row 0: "),
        ("refcoco_val.json.gz", "no gzip", "cannot be read"),
        ("notes.txt", "", "no RefCOCO of val there. Known: refs(unc).p"),
        ("refs(unc).p", "", "needs instances.json beside it"),
    ],
)
def test_files_that_are_no_annotations(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    assert message in prepare(tmp_path / "data", tmp_path, "--no-images", "--splits", "val", exit_code=1)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": {"bytes": b"no picture", "path": None}}, "row 0: the picture cannot be opened"),
        ({"answer": "one text"}, "row 0: sentences 'one text'; expected a list of texts"),
        ({"bbox": [1.0, 2.0]}, "row 0: bbox '[1.0, 2.0]'; expected four numbers"),
    ],
)
def test_malformed_parquet_is_named(tmp_path, row, message):
    pa = pytest.importorskip("pyarrow", reason="the `data` extra is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="the `data` extra is not installed")
    good = {
        "image": {"bytes": fixture.jpeg((60, 40)), "path": None},
        "answer": ["a"],
        "bbox": [1.0, 2.0, 3.0, 4.0],
        "file_name": "COCO_train2014_000000000001_1.jpg",
    }
    parquet.write_table(pa.Table.from_pylist([good | row]), tmp_path / "testA-00000.parquet")
    words = ("--no-images", "--splits", "testA")
    assert message in prepare(tmp_path / "data", tmp_path / "testA-00000.parquet", *words, exit_code=1)


def test_parquet_text_that_is_no_utf8_is_one_line(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="the `data` extra is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="the `data` extra is not installed")
    file = next((fixture.write_jxu124(tmp_path / "j") / "data").glob("testB*"))
    table = parquet.read_table(file)
    offsets = pa.py_buffer((0).to_bytes(4, "little") + (2).to_bytes(4, "little"))
    torn = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(b"\xff\xfe"))
    parquet.write_table(table.set_column(table.schema.names.index("file_name"), "file_name", torn), file)
    message = prepare(tmp_path / "data", tmp_path / "j", "--no-images", "--splits", "testB", exit_code=1)
    assert f"{file}: cannot be read ('utf-8' codec can't decode" in message


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_separators_inside_a_sentence_end_no_line(tmp_path, mark):
    row = {
        "image": f"{fixture.stem(7)}.jpg",
        "sent": "a\u2028b",
        "bbox": [1, 2, 3, 4],
        "height": 80,
        "width": 120,
    }
    text = mark + json.dumps(row, ensure_ascii=False) + "\n"
    (tmp_path / "refcoco_testA.jsonl").write_text(text, encoding="utf-8")
    (ref,) = read_annotations(str(tmp_path), ("testA",)).refs
    assert ref.sentences == ("a b",)


class Payload:
    """What a hostile pickle would do: make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_something_is_refused(tmp_path, protocol):
    folder, trace = fixture.write_unc(tmp_path / "unc"), tmp_path / "trace"
    (folder / "refs(unc).p").write_bytes(
        pickle.dumps([{"split": "val", "x": Payload(trace)}], protocol=protocol)
    )
    message = prepare(tmp_path / "data", folder, "--no-images", exit_code=1)
    assert "refused: it is no plain data, its pickle uses" in message
    assert "Nothing of it was run" in message
    assert not trace.exists()


@pytest.mark.parametrize(
    ("stream", "opcode"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "GLOBAL"),
        (b"(S'true'\nios\nsystem\n.", "INST"),
        (b"\x80\x02\x8c\x02os\x8c\x06system\x93.", "STACK_GLOBAL"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02\x83\x01\x00.", "EXT2"),
        (b"\x80\x02\x84\x01\x00\x00\x00.", "EXT4"),
        (b"\x80\x02}}b.", "BUILD"),
        (b"}(o.", "OBJ"),
        (b"Pthing\n.", "PERSID"),
        (b"K\x01Q.", "BINPERSID"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\xff.", "byte 0xff"),
    ],
)
def test_opcodes_that_plain_data_has_no_need_of(tmp_path, stream, opcode):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(stream)
    with pytest.raises(DataError, match=f"its pickle uses {opcode}"):
        load_plain(path)


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b".",
        b"K\x01r\xff\xff\xff\xff",  # a memo index of four billion
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",  # a text of 2**63 bytes
        b"\x80\x02\x8b\xff\xff\xff\x7f",  # a number of 2**31 bytes
        b"I" + b"9" * 5000 + b"\n.",
        b"\x80\x63.",
        b"]" * 1000 + b"a" * 2000 + b".",
        b"h\x05.",
        b"S'torn",
    ],
)
def test_torn_and_swollen_pickles_are_one_line(tmp_path, stream):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(stream)
    with pytest.raises(DataError, match="not a pickle that can be read") as refused:
        load_plain(path)
    assert "\n" not in str(refused.value)


# 60 tuples, each of the one before twice: their hash looks at 2**60
LAUGHTER = b")" + b"2\x86" * 60


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "stream", [b"}" + LAUGHTER + b"K\x01s.", b"}(" + LAUGHTER + b"K\x01u.", b"(" + LAUGHTER + b"K\x01d."]
)
def test_tuples_that_take_for_ever_to_hash_are_no_keys(tmp_path, stream):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(b"\x80\x02" + stream)
    with pytest.raises(DataError, match="its pickle uses a tuple as a key"):
        load_plain(path)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("key", ["ann_id", "image_id"])
def test_tuples_that_take_for_ever_to_hash_are_no_ids(tmp_path, key):
    folder = fixture.write_unc(tmp_path / "unc")
    ref = {"split": "val", "file_name": "x.jpg", "ann_id": 100, "image_id": 580957, "sentences": []}
    plain = pickle.dumps([ref], protocol=2).removesuffix(b"ua.")  # within the marks of the ref
    name = b"X" + len(key).to_bytes(4, "little") + key.encode()
    (folder / "refs(unc).p").write_bytes(plain + name + LAUGHTER + b"ua.")
    message = prepare(tmp_path / "data", folder, "--no-images", "--splits", "val", exit_code=1)
    assert "row 0: an id of type tuple; expected a whole number" in message


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_every_protocol(tmp_path, protocol):
    value = [{"a": [1, 2**70, -3, 1.5, True, None], "b": ("x", "é ü", ()), "c": {"d": []}}, "x" * 300]
    path = tmp_path / "plain.p"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    assert load_plain(path) == value


def test_byte_strings_of_python_2(tmp_path):
    path = tmp_path / "two.p"
    path.write_bytes(b"\x80\x02]q\x00U\x04caf\xe9q\x01a.")
    assert load_plain(path) == ["café"]


@pytest.mark.real
def test_the_published_splits(tmp_path, real_data):
    entries = prepare(tmp_path, real_data / "refcoco_unc", "--no-images", partial=False)
    assert {e["split"]: tuple(e["annotated"].values()) for e in entries} == {
        "val": (1_500, 3_811, 10_834),
        "testA": (750, 1_975, 5_657),
        "testB": (750, 1_810, 5_095),
    }
    assert [e["samples"] for e in entries] == [10_834, 5_657, 5_095]


@pytest.mark.real
def test_eight_real_sentences_from_picture_to_verdict(tmp_path, real_data):
    source = json.loads(gzip.decompress((real_data / "refcoco_unc/refcoco_val.json.gz").read_bytes()))
    (tmp_path / "refcoco_val.json").write_text(json.dumps(source[:8]))
    prepare(
        tmp_path / "data",
        tmp_path / "refcoco_val.json",
        "--images",
        real_data / "refcoco_unc",
        "--splits",
        "val",
    )
    split = read_split(tmp_path / "data", "refcoco", "val")
    assert len(split.samples) == 8
    assert {s.image_id for s in split.samples} == {"COCO_train2014_000000580957"}
    shown = cli(
        *("data", "show", "refcoco", "val/COCO_train2014_000000580957_4#2", "--data", tmp_path / "data"),
        *("--out", tmp_path / "shown.png"),
    )
    assert shown.exit_code == 0, shown.output
    assert "white dish in the top right corner" in shown.output
    assert Path(tmp_path / "shown.png").stat().st_size > 10_000
    shutil.rmtree(tmp_path / "data")


@pytest.mark.real
def test_gold_boxes_in_each_frame_read_in_each(real_data):
    """All correct in their own frame; a mistake costs nearly everything, but for frames that nearly agree on COCO."""
    from benchmarks.frame_table import accuracy

    source = json.loads(gzip.decompress((real_data / "refcoco_unc/refcoco_testB.json.gz").read_bytes()))
    rows = [
        {"gold": fixture.xyxy(row["bbox"]), "width": row["width"], "height": row["height"]}
        for row in source[::25]
    ]
    frames = [Frame(kind) for kind in ("pixel", "resized_pixel", "unit", "per_mille", "padded_unit")]
    frames.append(Frame("per_mille", "yx"))
    alike = [{"pixel", "resized_pixel"}, {"unit", "padded_unit"}]
    for spoken in frames:
        for read in frames:
            share = accuracy(rows, spoken, read)
            if spoken == read:
                assert share == 1.0
            elif {spoken.kind, read.kind} in alike:
                assert share > 0.8
            else:
                assert share < 0.2
