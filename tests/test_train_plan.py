"""evalkit train --plan: counts held against the models themselves, estimates against a training that ran."""

import json

import pytest
from click.testing import CliRunner

from evalkit.cli.main import main
from evalkit.datasets.build import build
from evalkit.errors import ConfigError
from trainers.flops import MeanSample, flops_of
from trainers.machine import load_machine, machine_names
from trainers.memory import Batch, memory_of, trained_weights
from trainers.planning import Lengths, make_plan
from trainers.shapes import known_shape, shape_of
from trainers.spec import TrainSpec, find_config, make_spec, read_config

SEVEN_B = {
    "Qwen/Qwen2.5-VL-7B-Instruct": {"vision": 631975680, "projector": 44574464, "language": 7615616512},
    "llava-hf/llava-1.5-7b-hf": {"vision": 303507456, "projector": 20979712, "language": 6738939904},
}
BATCH = Batch(n=2, length=400, n_visual=256, n_patches=1024, n_answer=8, padded=False)
MEAN = MeanSample(400, 256, 1024, 8)


def spec(**changes):
    given = {
        "model": "m", "base": "b", "task": "line_tracing", "objective": "ntp_klal", "steps": 10, "batch_size": 16,
        "per_device_batch": 2, "lr": 1e-4,
    }  # fmt: skip
    return TrainSpec(**given | changes)


def qwen():
    return known_shape("Qwen/Qwen2.5-VL-7B-Instruct")


def lengths(longest=MEAN):
    return Lengths(n=100, mean=MEAN, longest=longest, varied=False, exact=False)


@pytest.mark.parametrize("checkpoint", SEVEN_B)
def test_weights_of_the_7b_models(checkpoint):
    assert known_shape(checkpoint).weights == SEVEN_B[checkpoint]


@pytest.mark.local
@pytest.mark.parametrize("recipe", ["qwen2_5_vl", "llava", "qwen2_5_vl-small", "llava-small"])
def test_weights_are_those_of_the_model(recipe, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from model_adapters.tiny import tiny_checkpoint
    from trainers.training import _part

    config = transformers.AutoConfig.from_pretrained(tiny_checkpoint(recipe, tmp_path))
    name = {"qwen2_5_vl": "Qwen2_5_VL", "llava": "Llava"}[config.model_type]
    with torch.device("meta"):
        model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    counted = {"vision": 0, "projector": 0, "language": 0}
    for weight, parameter in model.named_parameters():
        counted[_part(weight)] += parameter.numel()
    assert shape_of(config, config.model_type, recipe).weights == counted


@pytest.mark.local
def test_adapters_are_those_that_peft_makes(tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    pytest.importorskip("peft")
    from model_adapters.tiny import tiny_checkpoint
    from trainers.training import with_lora

    config = transformers.AutoConfig.from_pretrained(tiny_checkpoint("qwen2_5_vl", tmp_path))
    shape = shape_of(config, "qwen2_5_vl", "tiny")
    for modules in (r".*language_model.*\.(q|k|v|o|gate|up|down)_proj", r".*language_model.*\.(q|v)_proj"):
        with torch.device("meta"):
            model = transformers.Qwen2_5_VLForConditionalGeneration(config)
        one = spec(tuning="lora", lora={"r": 4, "modules": modules})
        adapted = with_lora(model.requires_grad_(False), one)
        counted = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
        assert counted == trained_weights(shape, one)


def test_full_training_of_7b_needs_16_bytes_a_weight_and_fsdp_spreads_them():
    one = memory_of(qwen(), spec(tuning="full", freeze=[]), BATCH, 1)
    weights = sum(qwen().weights.values())
    assert 16 * weights < one.tensors < 18.5 * weights  # weights, gradients, two moments; casts
    eight = memory_of(qwen(), spec(tuning="full", freeze=[], sharding="fsdp"), BATCH, 8)
    assert 16 * weights / 8 < eight.tensors < one.tensors / 4
    ddp = memory_of(qwen(), spec(tuning="full", freeze=[]), BATCH, 8)
    assert ddp.tensors > one.tensors  # whole on each, and buckets


def test_checkpointing_trades_memory_for_work():
    on, off = spec(checkpointing=True), spec(checkpointing=False)
    assert memory_of(qwen(), on, BATCH, 1).tensors < memory_of(qwen(), off, BATCH, 1).tensors
    assert flops_of(qwen(), on, MEAN).total > 1.25 * flops_of(qwen(), off, MEAN).total


def test_work_is_that_of_six_a_weight_and_token():
    """Kaplan et al. (arXiv 2001.08361): 6 N tokens, for a model that is trained whole, without attention."""
    mean = MeanSample(400, 256, 1024, 400)
    work = flops_of(qwen(), spec(tuning="full", checkpointing=False), mean)
    seen = qwen().weights["language"] - qwen().embedding
    assert work.total - work.vision == pytest.approx(6 * seen * 400, rel=0.03)


@pytest.mark.parametrize("name", machine_names())
@pytest.mark.parametrize("model", ["qwen-klal", "llava-klal", "qwen-ntp"])
def test_the_7b_recipes_fit_the_machines_that_they_are_offered_for(name, model):
    machine = load_machine(name)
    data = read_config(find_config(model, "line_tracing", None))
    one = make_spec(data, "x", machine.settings)
    shape = known_shape("llava-hf/llava-1.5-7b-hf" if "llava" in model else "Qwen/Qwen2.5-VL-7B-Instruct")
    longest = MeanSample(700, 576, 576 if "llava" in model else 2304, 8)
    plan = make_plan(one, machine, shape, lengths(longest))
    assert plan.fits
    assert plan.spare_gib > 1
    assert plan.accumulation * one.per_device_batch * machine.gpus == one.batch_size
    assert one.digest == make_spec(data, "x").digest  # the same training


def test_more_gpus_are_as_many_times_faster():
    one, eight = (make_plan(spec(), load_machine(name), qwen(), lengths()) for name in ("1x80gb", "8x80gb"))
    assert one.hours == pytest.approx(8 * eight.hours)


def test_what_does_not_fit_is_said():
    machine = load_machine("1x24gb")
    plan = make_plan(spec(tuning="full", per_device_batch=1), machine, qwen(), lengths())
    assert not plan.fits
    with pytest.raises(ConfigError, match="no multiple of per_device_batch 4 x 8 GPUs"):
        make_plan(spec(per_device_batch=4, batch_size=20), load_machine("8x80gb"), qwen(), lengths())
    with pytest.raises(ConfigError, match="has one"):
        make_plan(spec(sharding="fsdp"), machine, qwen(), lengths())
    for modules, message in (("(", "not a regular expression"), ("nothing", "projections alone")):
        with pytest.raises(ConfigError, match=message):
            make_plan(spec(lora={"modules": modules}), machine, qwen(), lengths())


def test_a_machine_may_not_change_what_is_trained(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        "title: t\ngpu: g\ngpus: 2\nmemory_gib: 8.0\ntflops: 1.0\nsource: s\nsettings: {lr: 1.0}\n"
    )
    with pytest.raises(ConfigError, match="'lr' would change what is trained"):
        load_machine(str(own))
    with pytest.raises(ConfigError, match="Known: 1x24gb, 1x80gb, 8x80gb"):
        load_machine("a100")


def evalkit(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_the_command_shows_the_arithmetic(tmp_path):
    build("line_tracing", tmp_path, n=12, seed=0)
    words = ("train", "--model", "qwen-klal", "--task", "line_tracing", "--data", tmp_path, "--plan")
    all_of_them = evalkit(*words)
    assert all_of_them.exit_code == 0, all_of_them.output
    assert [line.split()[0] for line in all_of_them.output.splitlines()[1:4]] == machine_names()
    one = evalkit(*words, "--machine", "1x24gb")
    assert "161,480,704 are trained (lora)" in one.output
    assert "2 B x 8.29 G + 4 B x 161.5 M of adapters" in one.output
    facts = json.loads(evalkit(*words, "--machine", "1x24gb", "--mfu", "0.6", "--json").output)
    assert facts["fits"]
    assert facts["mfu_assumed"] == 0.6
    phases = facts["memory"]["phases_bytes"]
    stays = sum(term["bytes"] for term in facts["memory"]["stays"])
    assert phases["forward"] == stays + sum(term["bytes"] for term in facts["memory"]["forward"])
    full = evalkit(*words, "--machine", "1x24gb", "--set", "tuning=full")
    assert full.exit_code == 0
    assert "DOES NOT FIT" in full.output
    every = evalkit(*words, "--set", "tuning=full", "--set", "precision=float32")
    assert "sharding=fsdp spreads the model" in every.output
    assert "float32 takes several times as long" in every.output
    assert evalkit(*words[:-1], "--mfu", "0.5").exit_code == 2


@pytest.mark.local
def test_a_folder_is_planned_by_its_own_files(tmp_path):
    pytest.importorskip("transformers")
    build("grid_patch", tmp_path, n=8, seed=0)
    found = evalkit(
        *("train", "--model", "tiny-qwen-klal", "--task", "grid_patch", "--data", tmp_path, "--plan"),
        *("--base", "tiny:qwen2_5_vl-mini", "--machine", "1x24gb", "--json"),
    )
    facts = json.loads(found.output)
    assert facts["tokens_counted_by"] == "tokenizer"
    assert facts["visual_tokens_mean"] == 144
    assert facts["weights"] == facts["weights_trained"] == 760640
    other = evalkit(
        *("train", "--model", "qwen-klal", "--task", "grid_patch", "--data", tmp_path, "--plan"),
        *("--base", "Qwen/Qwen2.5-VL-3B-Instruct"),
    )
    assert other.exit_code == 1
    assert "give its folder with --base" in other.output


@pytest.mark.local
@pytest.mark.filterwarnings("ignore")
def test_a_measured_training_holds_what_was_planned_and_runs_the_frozen_tower_once(tmp_path):
    """Two steps of a LoRA under checkpointing, with bfloat16 autocast, on a model of 1.4 M weights."""
    pytest.importorskip("peft")
    from benchmarks.memory_models import Case, make_checkpoint
    from benchmarks.train_memory import measure

    build("grid_patch", tmp_path / "data", n=16, seed=0)
    for case in (
        Case(size="tiny", per_device_batch=8),
        Case(size="tiny", tuning="lora", freeze=("vision", "projector"), precision="bfloat16",
             checkpointing=True, per_device_batch=8),
    ):  # fmt: skip
        make_checkpoint(case.family, case.size, tmp_path)
        found = measure(case, tmp_path)
        assert found["memory"]["planned"] == pytest.approx(found["memory"]["measured"], rel=0.15)
        assert found["flops"]["planned"] == pytest.approx(found["flops"]["measured"], rel=0.07)
