"""The model registry: sound as shipped, faults by the line, what is missing here."""

from datetime import date

import pytest

from evalkit.errors import ConfigError, Unavailable
from evalkit.frames import Frame
from model_adapters import check_registry, get_entry, identity, load_adapter, load_registry, missing
from model_adapters.checkpoints import retirement
from model_adapters.registry import parse_frame

PAPER_MODELS = {
    "llava-base", "llava-ntp", "llava-klal", "qwen-base", "qwen-ntp", "qwen-klal",
    "molmo-7b-d", "glamm-fs-7b", "instructblip-7b", "gpt-4o", "gemini-2.0-flash",
}  # fmt: skip


def test_shipped_registry_is_sound():
    entries, faults = check_registry()
    assert faults == []
    assert entries.keys() >= PAPER_MODELS | {"tiny-qwen", "tiny-llava", "fake"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("m: {title: M, adapter: vlm}", "adapter: no adapter named 'vlm'; known: fake, hf_local, "),
        ("m: {title: M, adapter: fake, temprature: 0}", "unknown key 'temprature'"),
        ("m: {family: llava}", "key 'adapter' is missing"),
        ("m: {title: M, adapter: hf_local, family: llava}", "needs a checkpoint and a family"),
        ("m: {title: M, adapter: fake, options: {rply: x}}", "options has no 'rply' for adapter fake"),
        ("m: {title: M, adapter: null, frame: {kind: pixels}}", "frame.kind"),
        (
            "m: {title: M, adapter: null, frame: {kind: unit, min_pixels: 4}}",
            "go with resized_pixel, not unit",
        ),
        (
            "m: {title: M, adapter: hf_local, family: qwen2_5_vl, checkpoint: x, options: {max_pixels: 9}, "
            "frame: {kind: resized_pixel, max_pixels: 8}}",
            "options.max_pixels and frame.max_pixels must agree",
        ),
        ("m: {title: M, adapter: fake, decoding: {temperature: 1}}", "decode greedily"),
        ("m: 3", "expected a mapping, found int"),
        ("'a b': {title: M, adapter: fake}", "name: String should match pattern"),
    ],
)
def test_one_line_a_fault(tmp_path, text, fault):
    path = tmp_path / "models.yaml"
    path.write_text(text)
    _, lines = check_registry(path)
    assert len(lines) == 1, lines
    assert fault in lines[0]
    with pytest.raises(ConfigError):
        load_registry(path)


def test_own_entries_join(tmp_path):
    (tmp_path / "m.yaml").write_text("mine: {title: Mine, adapter: fake}")
    assert {"mine", "tiny-qwen"} <= load_registry(tmp_path / "m.yaml").keys()


def test_unknown_model_names_the_known():
    with pytest.raises(ConfigError, match=r"No model named 'qwen'.*qwen-klal"):
        get_entry("qwen")


def test_trained_on_settles_the_checkpoint():
    entry = get_entry("qwen-klal").for_task("grid_patch")
    assert entry.checkpoint == "checkpoints/qwen-klal/grid_patch"
    with pytest.raises(ConfigError, match="leave --trained-on out"):
        get_entry("qwen-base").for_task("grid_patch")


def test_missing_checkpoint_says_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entry = get_entry("qwen-klal").for_task("line_tracing")
    if missing(get_entry("tiny-qwen")) is None:  # torch is here
        assert missing(entry) == (
            "no checkpoint in checkpoints/qwen-klal/line_tracing: "
            "train it: evalkit train --model qwen-klal --task line_tracing"
        )
        with pytest.raises(Unavailable, match=r"no checkpoint in checkpoints/qwen-klal/line_tracing"):
            load_adapter(entry)
    (tmp_path / "checkpoints/qwen-klal/grid_patch").mkdir(parents=True)
    (tmp_path / "checkpoints/qwen-klal/grid_patch/config.json").write_text("{}")
    if missing(get_entry("tiny-qwen")) is None:
        assert (
            missing(get_entry("qwen-klal")) is None
        )  # one task's checkpoint is enough to be listed as ready


def test_missing_package(monkeypatch):
    monkeypatch.setattr("model_adapters.checkpoints.find_spec", lambda name: None)
    assert missing(get_entry("tiny-qwen")) == "needs torch and transformers: pip install 'evalkit-vlm[local]'"
    with pytest.raises(Unavailable, match=r"pip install 'evalkit-vlm\[local\]'"):
        load_adapter(get_entry("tiny-qwen"))


def test_no_engine_no_key_retired(monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "m.yaml").write_text("theirs: {adapter: null}")
    theirs = get_entry("theirs", tmp_path / "m.yaml")
    assert "evalkit import" in (missing(theirs) or "")
    with pytest.raises(Unavailable, match="no engine"):
        load_adapter(theirs)
    assert missing(get_entry("gemini-2.0-flash")) == (
        "retired since 2026-06-01; its successor here: gemini-3.8-flash; replies collected earlier: evalkit import"
    )
    if "needs" not in (missing(get_entry("gpt-6-luna")) or ""):
        assert missing(get_entry("gpt-6-luna")) == "no key: set OPENAI_API_KEY"
        with pytest.raises(Unavailable, match="gpt-6-luna: no key: set OPENAI_API_KEY"):
            load_adapter(get_entry("gpt-6-luna"))


@pytest.mark.parametrize(("day", "gone"), [(date(2027, 1, 13), False), (date(2027, 1, 14), True)])
def test_a_model_is_retired_from_its_day_on(day, gone):
    assert (retirement(get_entry("gpt-4o"), day) is not None) == gone


def test_identity_follows_what_changes_answers(tmp_path):
    entry = get_entry("fake")
    assert identity(entry) == identity(entry.with_settings({"latency_s": 1.0}))
    assert identity(entry) != identity(entry.with_settings({"reply": "{4}"}))
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    local = get_entry("qwen-base").model_copy(update={"checkpoint": str(folder)})
    before = identity(local)
    (folder / "model.safetensors").write_bytes(b"trained further")
    assert identity(local) != before


def test_unknown_setting():
    with pytest.raises(
        ConfigError, match=r"no setting 'temperature'\. Known settings: faults, latency_s, log"
    ):
        get_entry("fake").with_settings({"temperature": 1})


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ("unit", Frame("unit")),
        ("per_mille:yx", Frame("per_mille", "yx")),
        ("resized_pixel:max_pixels=1003520", Frame("resized_pixel", max_pixels=1_003_520)),
        ("resized_pixel:yx:min_pixels=3136", Frame("resized_pixel", "yx", min_pixels=3136)),
    ],
)
def test_parse_frame(text, frame):
    assert parse_frame(text) == frame


@pytest.mark.parametrize(
    "text",
    ["units", "unit:xyxy", ":yx", "unit:max_pixels=5", "resized_pixel:max_pixels=-5", "resized_pixel:x=5"],
)
def test_parse_frame_refuses(text):
    with pytest.raises(ConfigError, match="--frame"):
        parse_frame(text)
