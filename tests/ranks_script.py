"""What the ranks of tests/test_train_ranks.py run: first optimiser steps, and trainings; the first rank writes.

torchrun --nproc-per-node N ranks_script.py cases.json
"""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from evalkit.datasets.disk import read_split
from evalkit.task import load_task
from trainers.ranks import leave
from trainers.resume import gathered
from trainers.spec import TrainSpec
from trainers.training import Base, _trainer, train


def base_of(case):
    return Base(case["checkpoint"], case["family"], None, {}, "pad", None, {"name": case["family"]})


def data_of(case):
    return [(load_task(case["spec"]["task"]), read_split(Path(case["data"]), case["spec"]["task"], "train"))]


def first_step(case):
    """Losses and the whole gradient of the first optimiser step, into OUT.json and OUT.safetensors."""
    trainer, _ = _trainer(TrainSpec(**case["spec"]), base_of(case), data_of(case), Path(case["out"]))
    trainer.create_optimizer_and_scheduler(1)
    caught = {}

    def keep(optimizer, *_):
        named = ((name, p.grad) for name, p in trainer.model.named_parameters() if p.grad is not None)
        caught.update(gathered(named, keep=True))

    trainer.optimizer.register_step_pre_hook(keep)
    trainer.train()
    if trainer.args.should_save:
        save_file(caught, case["out"] + ".safetensors")
        shards = sum(type(p).__name__ == "DTensor" for p in trainer.model.parameters())
        autocast = trainer.accelerator.autocast_handler
        facts = {
            **trainer.state.log_history[0],
            "sharded": shards,
            "world": trainer.args.world_size,
            "keeps_casts": autocast is None or autocast.cache_enabled,
        }
        Path(case["out"] + ".json").write_text(json.dumps(facts))


def whole_training(case):
    """`stop_after`: end the process group's life there, as a kill would."""
    spec, out = TrainSpec(**case["spec"]), Path(case["out"])
    if stop_after := case.get("stop_after"):
        from trainers import training

        saved = training.KlalTrainer._save_checkpoint

        def save_and_die(self, *args, **kwargs):
            saved(self, *args, **kwargs)
            torch.distributed.barrier()
            if self.state.global_step >= stop_after:
                os._exit(9)

        training.KlalTrainer._save_checkpoint = save_and_die
    train(spec, base_of(case), data_of(case), out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in json.loads(Path(sys.argv[1]).read_text()):
        (whole_training if case["kind"] == "training" else first_step)(case)
    if torch.distributed.is_initialized():
        leave()
