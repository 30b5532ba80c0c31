"""Training configs and scales: every file is sound, one a table cell, and plans say what a person could type."""

import pytest

from evalkit.errors import ConfigError
from model_adapters import load_registry
from trainers.scale import left_out, load_scale, narrowed, plan, scale_names
from trainers.spec import TrainSpec, config_files, find_config, make_spec, read_config

TASKS = ("line_intersection", "line_tracing", "grid_patch", "pixmo_points", "refcoco")


@pytest.mark.parametrize("path", config_files(), ids=lambda path: path.stem)
def test_every_config_is_sound_and_names_registry_entries(path):
    spec = make_spec(read_config(path), str(path))
    registry = load_registry()
    assert registry[spec.model].trained_here
    assert spec.base in registry
    assert registry[spec.model].family == registry[spec.base].family
    expected = {"format": "base", "ntp": "ntp", "ntp_klal": "ntp_klal"}[spec.objective]
    assert registry[spec.model].objective == expected


@pytest.mark.parametrize("family", ["qwen", "llava"])
@pytest.mark.parametrize("task", TASKS)
def test_one_config_a_table_cell(family, task):
    for short, objective in (("ntp", "ntp"), ("klal", "ntp_klal")):
        path = find_config(f"{family}-{short}", task, None)
        assert path == find_config(f"{family}-base", task, objective)
        spec = make_spec(read_config(path), str(path))
        assert (spec.task, spec.objective) == (task, objective)


@pytest.mark.parametrize("prefix", ["", "tiny-", "small-"])
@pytest.mark.parametrize("family", ["qwen", "llava"])
def test_ntp_and_klal_differ_in_nothing_but_the_objective(prefix, family):
    for task in TASKS[:3]:
        ntp, klal = (
            make_spec(read_config(find_config(f"{prefix}{family}-{short}", task, None)), "x").model_dump()
            for short in ("ntp", "klal")
        )
        assert {key for key in ntp if ntp[key] != klal[key]} == {"model", "objective"}


def test_extends_by_task_and_settings(tmp_path):
    (tmp_path / "_all.yaml").write_text(
        "model: m\nbase: b\nobjective: ntp\nbatch_size: 8\nper_device_batch: 2\nlr: 1.0e-3\nsteps: 5\n"
        "klal: {sigma: 1.0}\nby_task: {line_tracing: {steps: 7, lr: 2.0e-3}}\n"
    )
    one = tmp_path / "one.yaml"
    one.write_text("extends: _all.yaml\ntask: line_tracing\nlr: 3.0e-3\nklal: {floor: 0.5}\n")
    spec = make_spec(read_config(one), "one", {"klal.weight": 0.25, "seed": 4})
    assert (spec.steps, spec.lr, spec.seed) == (7, 3.0e-3, 4)
    assert (spec.klal.sigma, spec.klal.floor, spec.klal.weight) == (1.0, 0.5, 0.25)


GOOD = {
    "model": "m", "base": "b", "task": "line_tracing", "objective": "ntp", "batch_size": 8,
    "per_device_batch": 2, "lr": 1e-3, "steps": 5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lrr": 1}, "unknown key 'lrr'. Known keys: model, base"),
        ({"klal": {"wieght": 1}}, "unknown key 'klal.wieght'"),
        ({"steps": None}, "give either epochs or steps"),
        ({"epochs": 1.0}, "give either epochs or steps"),
        ({"per_device_batch": 3}, "batch_size 8 is no multiple of per_device_batch 3"),
        ({"objective": "klal"}, "'format', 'ntp' or 'ntp_klal'"),
        ({"klal": {"layers": 0}}, "klal.layers"),
        ({"klal": {"floor": 1.0}}, "less than 1"),
        ({"lr": 0.0}, "greater than 0"),
    ],
)
def test_bad_specs_are_one_line_each(change, message):
    with pytest.raises(ConfigError) as raised:
        make_spec({k: v for k, v in (GOOD | change).items() if v is not None}, "my.yaml")
    assert message in str(raised.value)
    assert str(raised.value).startswith("my.yaml: ")


def test_what_changes_no_weight_changes_no_digest():
    one = TrainSpec(**GOOD)
    assert one.digest == TrainSpec(**GOOD, workers=4, device="cpu", log_every=3).digest
    assert one.digest != TrainSpec(**GOOD, seed=1).digest
    assert one.digest != TrainSpec(**GOOD, klal={"sigma": 1.0}).digest


def test_extends_stays_in_its_folder(tmp_path):
    (tmp_path / "one.yaml").write_text("extends: ../secret.yaml\n")
    with pytest.raises(ConfigError, match="must name a file of the same folder"):
        read_config(tmp_path / "one.yaml")
    (tmp_path / "two.yaml").write_text("extends: two.yaml\n")
    with pytest.raises(ConfigError, match="extends itself"):
        read_config(tmp_path / "two.yaml")


@pytest.mark.parametrize("name", scale_names())
def test_plans_respect_their_needs_and_use_known_names(name):
    scale = load_scale(name)
    steps = plan(scale, {"pixmo_points": True, "refcoco": True})
    registry, done = load_registry(), set()
    for step in steps:
        assert set(step.needs) <= done, step.key
        assert step.key not in done
        done.add(step.key)
        if step.words[0] != "data":
            assert step.words[step.words.index("--model") + 1] in registry
        if step.words[0] == "train":
            words = step.words
            task = words[words.index("--task") + 1] if "--task" in words else None
            find_config(words[words.index("--model") + 1], task, None)


def test_the_paper_s_plan_has_every_cell_of_tables_1_to_4():
    steps = {step.key for step in plan(load_scale("paper"), {"pixmo_points": True, "refcoco": True})}
    assert {
        f"run {f}-{o} on {t} seed 0"
        for f in ("qwen", "llava")
        for o in ("base", "ntp", "klal")
        for t in TASKS[:4]
    } <= steps
    assert {
        f"run qwen-{o} on refcoco/{s} seed 0"
        for o in ("base", "ntp", "klal")
        for s in ("val", "testA", "testB")
    } <= steps
    for trained, other in (("pixmo_points", "grid_patch"), ("grid_patch", "pixmo_points")):
        assert {f"run qwen-{o} on {other} after {trained} seed 0" for o in ("ntp", "klal")} <= steps
    assert not any("train" in key and "base" in key for key in steps)


def test_data_that_are_not_at_hand_are_left_out_by_name():
    scale = load_scale("paper")
    assert left_out(scale, {"pixmo_points": False, "refcoco": True}) == ["pixmo_points"]
    steps = {step.key for step in plan(scale, {"pixmo_points": False, "refcoco": False})}
    assert not any("pixmo" in key or "refcoco" in key for key in steps)


def test_the_tiny_plan_has_three_seeds_on_grid_patch():
    steps = [step.key for step in plan(load_scale("tiny"), {})]
    for family in ("qwen", "llava"):
        for seed in (0, 1, 2):
            assert f"train tiny-{family}-klal on grid_patch seed {seed}" in steps
            assert f"run tiny-{family}-base on grid_patch seed {seed}" in steps


def test_narrowed():
    scale = narrowed(load_scale("tiny"), ["grid_patch"], ["qwen"], [0])
    keys = [step.key for step in plan(scale, {})]
    assert len(keys) == 12  # three data sets for the base, base, two trainings, three runs, three probes
    with pytest.raises(ConfigError, match=r"no task 'joke'\. It has: line_intersection"):
        narrowed(load_scale("tiny"), ["joke"], None, None)
    with pytest.raises(ConfigError, match=r"No scale named 'huge'\. Known scales: paper, small, tiny"):
        load_scale("huge")


def test_a_machine_s_split_of_a_batch_is_the_same_training():
    one = TrainSpec(**GOOD)
    assert one.digest == TrainSpec(**{**GOOD, "per_device_batch": 1}, checkpointing=False).digest
    assert one.digest != TrainSpec(**{**GOOD, "batch_size": 16}).digest
