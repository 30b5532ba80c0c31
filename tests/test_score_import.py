"""evalkit score re-reads stored replies; evalkit import scores replies made elsewhere."""

import json
from pathlib import Path

import pytest
from support import cli, cli_json, read_rows, write_jsonl

from evalkit.datasets.disk import read_split
from evalkit.frames import Frame, from_pixels


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for task in ("line_intersection", "grid_patch"):
        assert cli("data", "build", task, "--n", 30, "--data", folder).exit_code == 0
    return folder


@pytest.fixture
def where(data, tmp_path):
    return ["--data", data, "--results", tmp_path / "results"]


@pytest.fixture
def samples(data):
    return read_split(data, "line_intersection", "test").samples


def importing(where, file, *words, task="line_intersection", model="gpt-4o", exit_code=0):
    base = ["import", "--task", task, "--split", "test", "--model", model, *where]
    return cli_json(*base, *words, file, exit_code=exit_code)


def test_import_scores_like_a_run(where, samples, tmp_path):
    replies = [{"sample_id": s.sample_id, "reply": f"They touch {s.gold} times."} for s in samples]
    result = importing(where, write_jsonl(tmp_path / "r.jsonl", replies))
    assert result["accuracy"] == 1.0
    assert result["status"] == "complete"
    assert result["sample_of"] is None
    assert json.loads((Path(result["run"]) / "run.json").read_text())["origin"] == "import"
    again = importing(where, tmp_path / "r.jsonl")
    assert again == result


def test_partial_import_is_marked(where, samples, tmp_path):
    result = importing(
        where, write_jsonl(tmp_path / "r.jsonl", [{"sample_id": samples[0].sample_id, "reply": "9"}])
    )
    assert (result["n"], result["correct"], result["sample_of"]) == (1, 0, len(samples))


def test_missing_reply_is_failed_not_wrong(where, samples, tmp_path):
    result = importing(
        where,
        write_jsonl(tmp_path / "r.jsonl", [{"sample_id": samples[0].sample_id, "reply": None}]),
        exit_code=3,
    )
    assert result["verdicts"]["failed"] == 1
    assert result["status"] == "unfinished"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"sample_id": "nope", "reply": "1"}'], "sample id 'nope' not in line_intersection/test"),
        (['{"sample_id": "ID", "reply": "1"}'] * 2, "sample id 'ID' given more than once"),
        (['{"sample_id": "ID"}'], r'expected {"sample_id": "...", "reply": "..."}'),
        (["[1]"], "expected {"),
        (["nonsense"], ":1: not a JSON object"),
        (['{"sample_id": "ID", "reply": 3}'], "reply must be a string or null, found int"),
        (['{"sample_id": "ID", "reply": "", "finish_reason": "eos"}'], "finish_reason 'eos'; allowed: stop"),
        (['{"sample_id": "ID", "reply": "", "latency_s": -1}'], "expected a number of at least 0, found -1"),
        (
            ['{"sample_id": "ID", "reply": "", "latency_s": 1%s}' % ("0" * 400)],
            "latency_s: expected a number",
        ),
        (
            ['{"sample_id": "ID", "reply": "", "usage": {"in": 1%s}}' % ("0" * 400)],
            "usage.in: expected a number",
        ),
        (["[" * 100_000], ":1: not a JSON object"),
        (['{"sample_id": "ID", "reply": "", "usage": [1]}'], "usage"),
        ([], "no replies in it"),
    ],
)
def test_bad_files_are_refused_whole(where, samples, tmp_path, lines, message):
    file = tmp_path / "r.jsonl"
    good = json.dumps({"sample_id": samples[1].sample_id, "reply": "1"})
    file.write_text("\n".join([*lines, *([good] if lines else [])]).replace("ID", samples[0].sample_id))
    result = cli("import", "--task", "line_intersection", "--split", "test", "--model", "x", *where, file)
    assert result.exit_code == 1
    assert message.replace("'ID'", repr(samples[0].sample_id)) in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("run.json"))


def test_a_byte_order_mark_is_no_part_of_the_first_line(where, samples, tmp_path):
    file = tmp_path / "r.jsonl"
    file.write_text(json.dumps({"sample_id": samples[0].sample_id, "reply": "1"}), encoding="utf-8-sig")
    result = cli("import", "--task", "line_intersection", "--split", "test", "--model", "x", *where, file)
    assert result.exit_code == 0, result.output


FRAMES = ["pixel", "unit", "percent", "per_mille", "per_mille:yx", "padded_unit", "grid_24"]


@pytest.mark.parametrize("spoken", FRAMES)
def test_frames_of_imported_points(where, data, tmp_path, spoken):
    """Right in the declared frame; read in another, the same numbers are (almost) never right."""
    points = read_split(data, "grid_patch", "test").samples
    kind, _, order = spoken.partition(":")
    frame = Frame(kind, order or "xy")
    stated = {s.sample_id: from_pixels(s.gold, frame, s.image_size_wh) for s in points}
    replies = [{"sample_id": key, "reply": f"({x:.6f}, {y:.6f})"} for key, (x, y) in stated.items()]
    file = write_jsonl(tmp_path / "r.jsonl", replies)
    assert importing(where, file, "--frame", spoken, task="grid_patch")["accuracy"] == 1.0
    for other in ("pixel", "per_mille", "percent"):  # on square images padded_unit is unit
        if other != kind:
            assert importing(where, file, "--frame", other, task="grid_patch")["accuracy"] < 0.5


def test_frame_of_a_task_without_coordinates(where, samples, tmp_path):
    file = write_jsonl(tmp_path / "r.jsonl", [{"sample_id": samples[0].sample_id, "reply": "1"}])
    result = cli(
        "import",
        "--task",
        "line_intersection",
        "--split",
        "test",
        "--model",
        "x",
        "--frame",
        "unit",
        *where,
        file,
    )
    assert result.exit_code == 1
    assert "has no coordinates" in result.stderr


def test_model_name_cannot_leave_the_results_folder(where, samples, tmp_path):
    file = write_jsonl(tmp_path / "r.jsonl", [{"sample_id": samples[0].sample_id, "reply": "1"}])
    result = importing(where, file, model="../../etc/evil name")
    assert Path(result["run"]).parent.parent == tmp_path / "results" / "runs"


def test_score_asks_no_model_and_keeps_replies(where, samples, tmp_path):
    replies = [{"sample_id": s.sample_id, "reply": str(s.gold)} for s in samples]
    first = importing(where, write_jsonl(tmp_path / "r.jsonl", replies))
    rows_file = Path(first["run"]) / "rows.jsonl"
    before = rows_file.read_bytes()
    assert cli_json("score", first["run"], *where) == first | {"flipped": []}
    assert rows_file.read_bytes() == before

    rows = read_rows(first["run"])  # as a parser with a fault would have stored them
    for row in rows[:2]:
        row |= {"verdict": "unparsed", "answer": None, "reason": "no number"}
    write_jsonl(rows_file, rows)
    assert "2 verdicts changed" in cli("score", first["run"], *where).stderr
    assert cli_json("score", "--all", *where) == [first | {"flipped": []}]
    assert rows_file.read_bytes() == before


def test_score_follows_the_registrys_frame(where, data, tmp_path):
    """A frame declared wrongly in the registry is mended without asking the model again."""
    points = read_split(data, "grid_patch", "test").samples
    stated = {s.sample_id: from_pixels(s.gold, Frame("percent"), s.image_size_wh) for s in points}
    replies = [{"sample_id": k, "reply": f'<point x="{x}" y="{y}">'} for k, (x, y) in stated.items()]
    file = write_jsonl(tmp_path / "r.jsonl", replies)
    models = tmp_path / "models.yaml"
    entry = "mol: {{title: M, adapter: null, family: molmo, frame: {{kind: {}}}}}"
    models.write_text(entry.format("pixel"))
    wrong = importing(where, file, "--models", models, task="grid_patch", model="mol")
    models.write_text(entry.format("percent"))
    right = cli_json("score", wrong["run"], "--models", models, *where)
    assert wrong["accuracy"] < 0.5
    assert right["accuracy"] == 1.0


def test_score_errors(tmp_path):
    assert cli("score").exit_code == 2
    assert cli("score", "--all", "x").exit_code == 2
    result = cli("score", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "no run here" in result.stderr
    assert not (tmp_path / "nowhere").exists()
