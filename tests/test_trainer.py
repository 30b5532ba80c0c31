"""KlalTrainer: one loss and gradient for every split of a batch, resume to the same weights, what LoRA touches."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from small_models import relative_error  # noqa: E402

from evalkit.datasets.build import build  # noqa: E402
from evalkit.datasets.disk import read_split  # noqa: E402
from evalkit.errors import ConfigError, TrainError  # noqa: E402
from evalkit.task import load_task  # noqa: E402
from model_adapters.tiny import TINY_FAMILIES, tiny_checkpoint  # noqa: E402
from trainers.checkpoint import last_complete  # noqa: E402
from trainers.ranks import leave  # noqa: E402
from trainers.spec import TrainSpec  # noqa: E402
from trainers.training import Base, _trainer, load_model, train  # noqa: E402

pytestmark = pytest.mark.local
families = pytest.mark.parametrize("family", TINY_FAMILIES)
TASKS = ("grid_patch", "line_tracing", "line_intersection")
SETTINGS = {
    "model": "tiny-x", "base": "tiny-y", "task": "line_tracing", "objective": "ntp_klal", "tuning": "full",
    "freeze": [], "batch_size": 8, "per_device_batch": 8, "lr": 1e-3, "steps": 6, "precision": "float32",
    "checkpointing": False, "device": "cpu", "log_every": 1,
}  # fmt: skip


def spec(**changes):
    return TrainSpec(**{**SETTINGS, **changes})


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for task in TASKS:
        build(task, folder, n=20)
    return folder


@pytest.fixture
def base(family, tiny_cache):
    return Base(str(tiny_checkpoint(family, tiny_cache)), family, None, {}, "pad", None, {"name": family})


def data(data_dir, *names):
    return [(load_task(name), read_split(data_dir, name, "train")) for name in names or ("line_tracing",)]


def first_step(one, base, loaded, folder):
    """(logs, gradients) of the first optimiser step."""
    trainer, _ = _trainer(one, base, loaded, folder)
    caught = {}

    def keep(optimizer, *_):
        if not caught:
            caught.update(
                {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
            )

    trainer.create_optimizer_and_scheduler(1)
    trainer.optimizer.register_step_pre_hook(keep)
    trainer.train()
    return trainer.state.log_history[0], caught


@families
@pytest.mark.parametrize("objective", ["ntp", "ntp_klal"])
def test_loss_and_gradient_do_not_depend_on_the_split_of_a_batch(family, objective, base, data_dir, tmp_path):
    """1 x 8, 2 x 4, 4 x 2 and 8 x 1 (accumulation x batch): the same loss, NTP, KLAL and gradient."""
    results = []
    for size in (8, 4, 2, 1):
        one = spec(objective=objective, per_device_batch=size, steps=1, clip=1e9, klal={"weight": 3.0})
        results.append(first_step(one, base, data(data_dir), tmp_path / str(size)))
    logs, gradients = results[0]
    assert logs["loss"] == pytest.approx(logs["ntp"] + 3.0 * logs.get("klal", 0.0), rel=1e-5)
    assert ("klal" in logs) == (objective == "ntp_klal")
    for other_logs, other in results[1:]:
        for name in ("loss", "ntp", "klal"):
            if name in logs:
                assert other_logs[name] == pytest.approx(logs[name], rel=2e-5)
        assert other.keys() == gradients.keys()
        assert relative_error(other, gradients) < 2e-5


@families
def test_lambda_means_the_same_in_both_families(family, base, data_dir, tmp_path):
    """grad(NTP + 2 KLAL) - grad(NTP + KLAL) = grad(NTP + KLAL) - grad(NTP), under accumulation."""
    gradients = []
    for objective, weight in (("ntp", 1.0), ("ntp_klal", 1.0), ("ntp_klal", 2.0)):
        one = spec(objective=objective, per_device_batch=2, steps=1, clip=1e9, klal={"weight": weight})
        gradients.append(first_step(one, base, data(data_dir), tmp_path / f"{objective}{weight}")[1])
    moved = 0.0
    for name in gradients[0]:
        once, twice = gradients[1][name] - gradients[0][name], gradients[2][name] - gradients[1][name]
        assert torch.allclose(once, twice, rtol=1e-2, atol=1e-5), name
        moved = max(moved, float(once.abs().max()))
    assert moved > 1e-3


def weights(folder):
    from safetensors.torch import load_file

    return {k: v for path in sorted(Path(folder).glob("*.safetensors")) for k, v in load_file(path).items()}


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one)


@families
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_resumed_training_ends_with_the_same_weights(family, tuning, base, data_dir, tmp_path):
    """Cut off after 4 of 6 steps, in the second epoch, by deleting all that came later."""
    one = spec(tuning=tuning, save_every=2, limit=24, lora={"r": 2, "alpha": 4})
    train(one, base, data(data_dir), tmp_path / "whole")
    train(one, base, data(data_dir), tmp_path / "cut")
    cut = tmp_path / "cut"
    for path in cut.iterdir():
        if path.is_file():
            path.unlink()
    shutil.rmtree(cut / "trainer" / "checkpoint-6")
    (cut / "trainer" / "checkpoint-5").mkdir()  # what a kill in the middle of saving leaves
    (cut / "trainer" / "checkpoint-5" / "trainer_state.json").write_text('{"global_')
    again = train(one, base, data(data_dir), cut)
    assert again["fresh"]
    assert again["resumed_from_step"] == 4
    assert same(weights(tmp_path / "whole"), weights(cut))
    assert [h["step"] for h in again["history"]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("family", ["qwen2_5_vl"])
def test_a_killed_training_goes_on(family, base, data_dir, tmp_path):
    """A real kill -9 in the middle; the second call ends with the weights of an unbroken run."""
    script = (
        "import sys; sys.path[:0] = sys.argv[1:2]\n"
        "import test_trainer as t\n"
        "from pathlib import Path\n"
        "base = t.Base(sys.argv[2], 'qwen2_5_vl', None, {}, 'pad', None, {'name': 'qwen2_5_vl'})\n"
        "t.train(t.spec(save_every=1, steps=400, limit=24), base, t.data(Path(sys.argv[3])), Path(sys.argv[4]))\n"
    )
    words = [sys.executable, "-c", script, str(Path(__file__).parent), base.checkpoint, str(data_dir)]
    out = tmp_path / "killed"
    process = subprocess.Popen([*words, str(out)], cwd=Path(__file__).parents[1], stderr=subprocess.DEVNULL)
    while last_complete(out / "trainer") is None:
        assert process.poll() is None, "the training ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert last_complete(out / "trainer") is not None
    # go on for a few steps only: the same spec, resumed twice in a row, against itself unbroken
    done = int(last_complete(out / "trainer").name.rpartition("-")[2])
    short = spec(save_every=1, steps=done + 2, limit=24, schedule="constant_with_warmup", warmup=0.0)
    train(short, base, data(data_dir), tmp_path / "unbroken")
    (tmp_path / "broken").mkdir()
    train(short, base, data(data_dir), tmp_path / "broken")
    assert same(weights(tmp_path / "unbroken"), weights(tmp_path / "broken"))


@families
def test_the_same_training_again_does_nothing_and_another_is_refused(family, base, data_dir, tmp_path):
    one = spec(steps=1, limit=8)
    first = train(one, base, data(data_dir), tmp_path)
    again = train(one, base, data(data_dir), tmp_path)
    assert (first["fresh"], again["fresh"]) == (True, False)
    assert {k: v for k, v in again.items() if k != "fresh"} == json.loads(
        (tmp_path / "training.json").read_text(encoding="utf-8")
    )
    with pytest.raises(
        TrainError, match=r"holds another training \(tiny-x on line_tracing, seed 0\); --force"
    ):
        train(spec(steps=1, limit=8, seed=1), base, data(data_dir), tmp_path)
    assert train(spec(steps=1, limit=8, seed=1), base, data(data_dir), tmp_path, force=True)["seed"] == 1


@families
def test_unfinished_checkpoints_of_another_training_are_refused(family, base, data_dir, tmp_path):
    train(spec(steps=1, limit=8), base, data(data_dir), tmp_path)
    (tmp_path / "training.json").unlink()
    with pytest.raises(TrainError, match="checkpoints of another training"):
        train(spec(steps=1, limit=8, lr=5e-4), base, data(data_dir), tmp_path)


@families
def test_a_start_that_failed_stands_in_nobody_s_way(family, base, data_dir, tmp_path):
    with pytest.raises(TrainError, match="2 layers"):
        train(spec(klal={"layers": 3}, limit=8, steps=1), base, data(data_dir), tmp_path)
    assert train(spec(limit=8, steps=1), base, data(data_dir), tmp_path)["fresh"]


@families
def test_provenance(family, base, data_dir, tmp_path):
    training = train(spec(steps=2, limit=8), base, data(data_dir), tmp_path)
    assert training["spec"]["klal"]["weight"] == 1.0
    assert training["data"][0]["fingerprint"] == read_split(data_dir, "line_tracing", "train").fingerprint
    assert {"torch", "transformers", "accelerate"} <= training["versions"].keys()
    assert training["parameters"]["trained"] == training["parameters"]["all"]
    assert training["history"][-1].keys() >= {"ntp", "klal", "loss", "learning_rate"}
    assert list((tmp_path / "trainer" / "logs").rglob("events.out.tfevents*"))
    for path in tmp_path.rglob("*.json"):
        assert str(tmp_path) not in path.read_text(encoding="utf-8") or "trainer" in path.parts, path


@families
def test_ntp_and_klal_see_the_same_data_in_the_same_order(family, base, data_dir, tmp_path):
    orders = []
    for objective in ("ntp", "ntp_klal"):
        trainer, items = _trainer(spec(objective=objective), base, data(data_dir), tmp_path / objective)
        sampler = trainer._get_train_sampler()
        sampler.set_epoch(3)
        orders.append([items[i].sample.sample_id for i in sampler])
    assert orders[0] == orders[1]
    assert len(set(orders[0])) == len(orders[0])


LANGUAGE = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@families
def test_lora_touches_the_language_model_alone(family, base):
    model = load_model(spec(tuning="lora"), base, {})
    adapted = {name.partition(".lora_")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert adapted
    assert all(".language_model." in name for name in adapted)
    assert not any("vis" in name for name in adapted)
    layers = model.config.get_text_config().num_hidden_layers
    assert len(adapted) == layers * len(LANGUAGE)
    assert {name.rpartition(".")[2] for name in adapted} == LANGUAGE


@families
def test_what_is_frozen_stays(family, base, data_dir, tmp_path):
    train(spec(freeze=["vision", "projector"], steps=2, limit=8), base, data(data_dir), tmp_path)
    before, after = weights(base.checkpoint), weights(tmp_path)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any(part in name for name in changed for part in ("vis", "merger", "projector"))


@families
def test_the_base_learns_the_form_of_answers_alone(family, base, data_dir, tmp_path):
    """`format` deals each task's answers out at random: the same answers, no longer at their questions."""
    loaded = data(data_dir, *TASKS)
    _, dealt = _trainer(spec(task=list(TASKS), objective="format"), base, loaded, tmp_path / "a")
    _, gold = _trainer(spec(task=list(TASKS), objective="ntp"), base, loaded, tmp_path / "b")
    for name in TASKS:
        mixed = [item.answer for item in dealt if item.task.name == name]
        right = [item.answer for item in gold if item.task.name == name]
        assert sorted(mixed) == sorted(right)
        assert mixed != right


def test_answers_are_dealt_alike_in_every_process():
    """Python's sets are ordered by a hash that differs between processes; the dealing must not be."""
    script = (
        "from types import SimpleNamespace as N; from trainers.batches import Item, shuffled_answers\n"
        "items = [Item(N(name=t), i, f'{t}{i}') for i in range(9) for t in ('grid', 'lines', 'nodes', 'points')]\n"
        "print([item.answer for item in shuffled_answers(items, 0)])"
    )
    dealt = set()
    for seed in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=Path(__file__).parents[1], env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        dealt.add(done.stdout)
    assert len(dealt) == 1


@pytest.mark.parametrize("family", ["llava"])
def test_bad_settings(family, base, data_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"lora.modules 'nothing'"):
        train(spec(tuning="lora", lora={"modules": "nothing"}), base, data(data_dir), tmp_path / "a")
    with pytest.raises(TrainError, match="2 layers"):
        train(spec(klal={"layers": 3}), base, data(data_dir), tmp_path / "b")
    lost = replace(base, checkpoint=str(tmp_path / "none"))
    with pytest.raises(Exception, match="cannot be loaded"):
        train(spec(), lost, data(data_dir), tmp_path / "c")


@pytest.mark.parametrize("family", ["qwen2_5_vl"])
def test_reentrant_checkpointing_and_dropped_columns_are_refused(family, base, data_dir, tmp_path):
    from transformers import TrainingArguments

    from trainers.trainer import KlalTrainer

    model = load_model(spec(), base, {})
    kinds = (
        (
            {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
            "Reentrant",
        ),
        ({"remove_unused_columns": True}, "remove_unused_columns"),
    )
    for settings, message in kinds:
        args = TrainingArguments(
            output_dir=str(tmp_path),
            use_cpu=True,
            report_to=[],
            **{"remove_unused_columns": False, **settings},
        )
        with pytest.raises(TrainError, match=message):
            KlalTrainer(model, args, klal_spec=spec().klal)


@pytest.mark.parametrize("family", ["llava"])
def test_a_checkpoint_of_another_hand_is_not_written_over(base, data_dir, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "model.safetensors").write_bytes(b"years of work")
    with pytest.raises(TrainError, match=r"not trained here \(model\.safetensors\); --force replaces it"):
        train(spec(steps=1), base, data(data_dir), foreign)
    assert (foreign / "model.safetensors").read_bytes() == b"years of work"
    with pytest.raises(TrainError, match="is the base that this training starts from"):
        train(spec(steps=1), base, data(data_dir), Path(base.checkpoint), force=True)
    assert (Path(base.checkpoint) / "config.json").is_file()


def rank_of_two(rank, port, checkpoint, data_dir, out):
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    base = Base(checkpoint, "llava", None, {}, "pad", None, {"name": "llava"})
    train(spec(per_device_batch=2, steps=3), base, data(data_dir), out)
    leave()


@pytest.mark.parametrize("family", ["llava"])
@pytest.mark.filterwarnings("ignore")
def test_two_ranks_train_what_one_does(family, base, data_dir, tmp_path):
    """2 ranks x 2 accumulation x 2 samples against 1 x 1 x 8: losses and weights."""
    import socket

    one = train(spec(steps=3), base, data(data_dir), tmp_path / "one")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    words = (port, base.checkpoint, data_dir, tmp_path / "two")
    ranks = [context.Process(target=rank_of_two, args=(rank, *words)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(240)
        assert process.exitcode == 0
    two = json.loads((tmp_path / "two" / "training.json").read_text())
    assert two["ran_on"]["world_size"] == 2
    for first, second in zip(one["history"], two["history"], strict=True):
        for name in ("loss", "ntp", "klal", "grad_norm"):
            assert second[name] == pytest.approx(first[name], rel=1e-4)
    alone, shared = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, weight in alone.items():
        assert torch.allclose(shared[name], weight, atol=5e-5), name
