"""Data on disk: the same whatever the workers, verified, loadable by `datasets`, imported from elsewhere."""

import json
import shutil

import pytest
from PIL import Image
from support import cli, cli_json

from evalkit.datasets.build import build
from evalkit.datasets.disk import fingerprint, list_datasets, read_rows, read_split
from evalkit.errors import ConfigError, DataError

N = 80
TASKS = ("line_intersection", "line_tracing", "grid_patch")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for task in TASKS:
        build(task, folder, n=N)
    return folder


@pytest.mark.parametrize("task", TASKS)
def test_workers_and_runs_give_the_same(data, task, tmp_path):
    again = build(task, tmp_path, n=N, workers=2)
    assert again.fresh
    assert again.fingerprint == build(task, data, n=N).fingerprint
    assert build(task, tmp_path, n=N, seed=1, force=True).fingerprint != again.fingerprint


@pytest.mark.parametrize("task", TASKS)
def test_a_smaller_set_is_a_prefix(data, task, tmp_path):
    build(task, tmp_path, n=15)
    for split in ("train", "test"):
        small = read_rows(tmp_path, task, split)
        assert small == [r for r in read_rows(data, task, split) if int(r["image_id"]) < 15]


@pytest.mark.parametrize("task", TASKS)
def test_images_never_stand_in_both_splits(data, task):
    train, test = ({row["image_id"] for row in read_rows(data, task, split)} for split in ("train", "test"))
    assert not train & test
    assert len(train | test) == N


@pytest.mark.parametrize("task", TASKS)
def test_loads_as_an_imagefolder_with_every_row(data, task, tmp_path, monkeypatch):
    """Several questions share one image; the loader must keep them all."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    datasets.disable_progress_bars()
    loaded = datasets.load_dataset("imagefolder", data_dir=str(data / task), cache_dir=str(tmp_path))
    for split in ("train", "test"):
        rows = {row["sample_id"]: row for row in read_rows(data, task, split)}
        assert sorted(loaded[split]["sample_id"]) == sorted(rows)
        first = loaded[split][0]
        assert first["image"].size == (rows[first["sample_id"]]["width"],) * 2
        assert first["gold"] == rows[first["sample_id"]]["gold"]


def test_the_same_build_again_only_verifies(data):
    written = {p: p.stat().st_mtime_ns for p in (data / "grid_patch").rglob("*") if p.is_file()}
    result = cli("data", "build", "grid_patch", "--n", N, "--data", data)
    assert "there already, verified" in result.stdout
    assert {p: p.stat().st_mtime_ns for p in (data / "grid_patch").rglob("*") if p.is_file()} == written


def test_another_set_is_not_overwritten(data, tmp_path):
    shutil.copytree(data / "grid_patch", tmp_path / "grid_patch")
    result = cli("data", "build", "grid_patch", "--n", N + 1, "--data", tmp_path)
    assert result.exit_code == 1
    assert "holds another set (n 80, seed 0" in result.stderr
    assert cli("data", "build", "grid_patch", "--n", N + 1, "--data", tmp_path, "--force").exit_code == 0
    assert len(read_rows(tmp_path, "grid_patch", "train")) > 0


@pytest.mark.parametrize("whole", [False, True])
def test_a_damaged_set_is_built_anew(data, tmp_path, whole):
    shutil.copytree(data / "grid_patch", tmp_path / "grid_patch")
    if whole:
        shutil.rmtree(tmp_path / "grid_patch/test")
    else:
        next((tmp_path / "grid_patch/test/images").glob("*.png")).unlink()
    assert build("grid_patch", tmp_path, n=N).fresh
    assert not build("grid_patch", tmp_path, n=N).fresh
    assert {p.name for p in (tmp_path / "grid_patch").iterdir()} == {"train", "test", "dataset.json"}
    assert cli("data", "verify", "--data", tmp_path).exit_code == 0


def test_a_set_of_one_image(tmp_path):
    (document,) = cli_json("data", "build", "grid_patch", "--n", 1, "--data", tmp_path, "--sheet")
    assert sum(document["splits"].values()) == 1
    assert cli("data", "verify", "--data", tmp_path).exit_code == 0


def test_build_document(tmp_path):
    (document,) = cli_json("data", "build", "line_tracing", "--n", 25, "--data", tmp_path, "--sheet")
    assert document["images"] == 25
    assert document["answers"]["yes"] == document["answers"]["no"] == document["samples"] / 2
    with Image.open(document["sheet"]) as sheet:
        assert sheet.width > 1000


def test_verify_names_each_damage(data, tmp_path):
    folder = tmp_path / "grid_patch"
    shutil.copytree(data / "grid_patch", folder)
    assert cli_json("data", "verify", "--data", tmp_path)["ok"]
    missing, broken, changed, recoded = sorted((folder / "train/images").glob("*.png"))[:4]
    missing.unlink()
    broken.write_bytes(broken.read_bytes()[:100])
    with Image.open(changed) as image:
        pixels = image.convert("RGB")
        pixels.putpixel((0, 0), (1, 2, 3))
        pixels.save(changed)
        image.convert("RGB").save(recoded.with_suffix(".x.png"))
    with Image.open(recoded) as image:  # another encoding of the same pixels is no damage
        image.convert("RGB").save(recoded, compress_level=9)
    document = cli_json("data", "verify", "--data", tmp_path, exit_code=1)
    faults = [fault for split in document["splits"] for fault in split["faults"]]
    assert len(faults) == 3
    for path, word in ((missing, "missing"), (broken, "cannot be decoded"), (changed, "other pixels")):
        assert any(path.name in fault and word in fault for fault in faults)


def test_verify_sees_changed_rows(data, tmp_path):
    folder = tmp_path / "line_intersection"
    shutil.copytree(data / "line_intersection", folder)
    path = folder / "test/metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["gold"] = 5 - rows[0]["gold"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = cli("data", "verify", "line_intersection", "--data", tmp_path)
    assert result.exit_code == 1
    assert "rows differ from the fingerprint" in result.stdout
    assert f"metadata.jsonl:1: row {rows[0]['sample_id']!r} was changed (gold)" in result.stdout
    assert ": 2 faults" in result.stdout
    assert read_split(tmp_path, "line_intersection", "test").fingerprint == fingerprint(rows)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda folder: shutil.rmtree(folder / "test"), "test: missing, though dataset.json records it"),
        (lambda folder: (folder / "dataset.json").write_text('{"splits": {}}'), "test: not in dataset.json"),
        (
            lambda folder: (folder / "test/metadata.jsonl").write_bytes(b"\xff\n"),
            "metadata.jsonl: cannot be read",
        ),
        (
            lambda folder: (folder / "test/metadata.jsonl").write_text("[]\n"),
            "metadata.jsonl:1: not a JSON object",
        ),
        (
            lambda folder: (folder / "test/metadata.jsonl").write_text("{}\n"),
            "metadata.jsonl:1: key 'file_name'",
        ),
    ],
)
def test_verify_goes_on_past_what_cannot_be_read(data, tmp_path, spoil, fault):
    for task in ("grid_patch", "line_intersection"):
        shutil.copytree(data / task, tmp_path / task)
    spoil(tmp_path / "line_intersection")
    document = cli_json("data", "verify", "--data", tmp_path, exit_code=1)
    faults = {(split["dataset"], split["split"]): split["faults"] for split in document["splits"]}
    assert len(faults) == 4
    assert any(fault in line for line in faults["line_intersection", "test"])
    assert not faults["grid_patch", "test"] + faults["grid_patch", "train"]


def test_verify_names_rows_that_are_missing_or_too_many(data, tmp_path):
    shutil.copytree(data / "grid_patch", tmp_path / "grid_patch")
    path = tmp_path / "grid_patch/test/metadata.jsonl"
    first, second, *others = path.read_text().splitlines()
    path.write_text("\n".join([first, first, *others]) + "\n")
    stdout = cli("data", "verify", "--data", tmp_path).stdout
    assert (
        f"metadata.jsonl:2: row '{json.loads(first)['sample_id']}' does not belong here, or stands twice"
        in stdout
    )
    assert f"metadata.jsonl: row '{json.loads(second)['sample_id']}' is missing" in stdout


@pytest.mark.parametrize("text", ["{", "[]", '{"splits": []}', '{"splits": {"test": 1}}'])
def test_damaged_dataset_json_is_one_line(data, tmp_path, text):
    shutil.copytree(data / "grid_patch", tmp_path / "grid_patch")
    (tmp_path / "grid_patch/dataset.json").write_text(text)
    for words in (["list"], ["verify"], ["build", "grid_patch", "--n", N]):
        result = cli("data", *words, "--data", tmp_path)
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
        assert "dataset.json" in result.stderr


def test_list(data):
    entries = list_datasets(data)
    assert [(e["dataset"], e["split"]) for e in entries] == [(t, s) for t in TASKS for s in ("test", "train")]
    assert cli_json("data", "list", "--data", data) == entries
    assert "grid_patch/test" in cli("data", "list", "--data", data).stdout


def test_show(data, tmp_path):
    sample = read_split(data, "line_tracing", "test").samples[0]
    out = tmp_path / "one.png"
    result = cli("data", "show", "line_tracing", sample.sample_id, "--data", data, "--out", out)
    assert f"gold {sample.gold}, node_a" in result.stdout
    assert "Is node {node_a} connected to node {node_b}?".format(**sample.variables) in result.stdout
    with Image.open(out) as drawn, Image.open(sample.image_path) as plain:
        assert drawn.size == (2 * plain.width + 14, plain.height)  # the target map stands beside
        assert drawn.crop((0, 0, *plain.size)).tobytes() != plain.convert("RGB").tobytes()
    sample = read_split(data, "line_tracing", "train").samples[0]  # found without --split
    assert cli("data", "show", "line_tracing", sample.sample_id, "--data", data, "--out", out).exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no-such"], "No sample 'no-such'"),
        (["000000-0", "--split", "dev"], "No split 'dev'"),
        (["FIRST", "--out", "nowhere/one.png"], "nowhere/one.png: cannot be written"),
    ],
)
def test_show_faults_are_one_line(data, words, message):
    first = read_split(data, "line_tracing", "test").samples[0].sample_id
    words = [first if word == "FIRST" else word for word in words]
    result = cli("data", "show", "line_tracing", *words, "--data", data)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["build", "imagenet"],
            "'imagenet' cannot be built. Synthetic sets: line_intersection, line_tracing",
        ),
        (["build", "refcoco"], "'refcoco' cannot be built, but prepared"),
        (["build", "grid_patch", "pixmo_points"], "'pixmo_points' cannot be built"),
        (["build", "grid_patch", "--n", 0], "must be at least 1"),
        (["build", "grid_patch", "--workers", 0], "must be at least 1"),
        (["verify", "grid_patch"], "No data of grid_patch"),
        (["show", "grid_patch", "x"], "No data of grid_patch"),
        (["show", "nothing", "x"], "No data set named 'nothing'"),
    ],
)
def test_errors_are_one_line(tmp_path, words, message):
    result = cli("data", *words, "--data", tmp_path)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        build("grid_patch", tmp_path / "file", n=2)


def test_numbers_are_checked(tmp_path):
    with pytest.raises(ConfigError):
        build("grid_patch", tmp_path, n=-1)


def images_with_labels(folder, rows, header="image,intersections,image_id"):
    (folder / "images").mkdir(parents=True)
    (folder / "again").symlink_to("images")  # links within the folder are followed
    for i in range(4):
        Image.new("RGB", (20, 10), (i, 0, 0)).save(folder / f"images/{i}.png")
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


GOOD = ["images/0.png,0,7", "images/1.png,2,7", "images/2.png,5,8"]


def test_import(data, tmp_path):
    source = images_with_labels(tmp_path / "made", GOOD)
    shutil.copytree(data / "line_intersection", tmp_path / "data/line_intersection")
    words = ["data", "import", "line_intersection", source, "--name", "mine", "--data", tmp_path / "data"]
    assert cli_json(*words)["samples"] == 3
    assert not cli_json(*words)["fresh"]
    split = read_split(tmp_path / "data", "line_intersection", "mine")
    assert [(s.gold, s.image_id, s.image_size_wh) for s in split.samples] == [
        (0, "0-7", (20, 10)),  # the same geometry id under another label is another picture
        (2, "2-7", (20, 10)),
        (5, "5-8", (20, 10)),
    ]
    assert cli("data", "verify", "--data", tmp_path / "data").exit_code == 0
    # building anew leaves an imported split where it is
    assert (
        cli("data", "build", "line_intersection", "--n", 30, "--force", "--data", tmp_path / "data").exit_code
        == 0
    )
    assert len(read_rows(tmp_path / "data", "line_intersection", "mine")) == 3
    assert {e["split"] for e in list_datasets(tmp_path / "data")} == {"mine", "test", "train"}
    run = ["run", "--model", "fake", "--task", "line_intersection", "--split", "mine", "--set", "reply=2"]
    result = cli_json(*run, "--data", tmp_path / "data", "--results", tmp_path / "results")
    assert (result["n"], result["correct"]) == (3, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["images/9.png,1,1"], "labels.csv:2: image 'images/9.png' is missing"),
        (["images/0.png,six,1"], "labels.csv:2: intersections 'six': expected a whole number of 0 to 5"),
        (["images/0.png,6,1"], "intersections '6'"),
        (["images/0.png,1,1", "images/0.png,1,1"], "labels.csv:3: image 'images/0.png'"),
        (["images/0.png,1,1", "again/0.png,1,1"], "labels.csv:3: image 'again/0.png': a file of this name"),
        (["../secret.png,1,1"], "lies outside"),
        (["/etc/hostname,1,1"], "lies outside"),
        (["labels.csv,1,1"], "cannot be decoded"),
        ([], "no rows"),
    ],
)
def test_import_names_each_bad_row(tmp_path, rows, message):
    source = images_with_labels(tmp_path / "made", rows)
    result = cli("data", "import", "line_intersection", source, "--data", tmp_path / "data")
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "data").exists()


def test_import_other_faults(tmp_path):
    source = images_with_labels(tmp_path / "made", GOOD, header="file,count,image_id")
    assert "no column 'image'" in cli("data", "import", "line_intersection", source).stderr
    assert "cannot be read" in cli("data", "import", "line_intersection", tmp_path).stderr
    (source / "labels.csv").write_text("image,intersections\nimages/0.png,1\n")
    words = ["data", "import", "line_intersection", source, "--data", tmp_path / "d"]
    for name in ("train", "my_test", "dev", "val2"):  # `datasets` would count these to its own splits
        assert "neither train nor test" in cli(*words, "--name", name).stderr
    assert cli(*words).exit_code == 0
    (source / "labels.csv").write_text("image,intersections\nimages/0.png,2\n")
    assert "holds other or damaged images" in cli(*words).stderr


@pytest.mark.real
def test_import_blindtest(real_data, tmp_path):
    words = [
        "data",
        "import",
        "line_intersection",
        real_data / "blindtest_line_intersection",
        "--name",
        "blindtest",
    ]
    assert cli_json(*words, "--data", tmp_path)["samples"] == 336
    samples = read_split(tmp_path, "line_intersection", "blindtest").samples
    assert {sample.gold for sample in samples} == {0, 1, 2}
    assert len({sample.image_id for sample in samples}) < 336  # thicknesses of one drawing are one cluster
