"""One training, read top to bottom: items -> model -> KlalTrainer -> checkpoint with provenance."""

import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from evalkit.datasets.disk import Split
from evalkit.errors import ConfigError, TrainError, Unavailable
from evalkit.frames import Frame
from evalkit.provenance import digest, git_commit, machine, now, versions
from evalkit.sampling import stratified
from evalkit.task import TaskSpec
from model_adapters.families import family_class
from model_adapters.local_inputs import InputMaker, loading
from trainers import resume
from trainers.batches import (
    Collator,
    Item,
    TrainingSet,
    items_of,
    longest_input,
    require_targets,
    shuffled_answers,
)
from trainers.checkpoint import TRAINING_FILE, export, last_complete, read_training
from trainers.progress import Progress
from trainers.sharding import shard
from trainers.spec import TrainSpec
from trainers.trainer import KlalTrainer

_CLASSES = {"qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration", "llava": "LlavaForConditionalGeneration"}
# A small model gains nothing from more threads, and loses much where they contend with others'.
_ONE_THREAD_PARAMETERS = 10_000_000
_WEIGHTS = ("config.json", "adapter_config.json", "*.safetensors", "*.bin", "*.gguf")
_KEY_FILE = "of.json"  # in OUT/trainer: which training its checkpoints are of


@dataclass(frozen=True, slots=True)
class Base:
    """The checkpoint to start from: a folder or a Hub id, and how its images are prepared."""

    checkpoint: str
    family: str
    revision: str | None
    limits: dict[str, int]  # min_pixels, max_pixels
    layout: str
    frame: Frame | None
    identity: dict[str, Any]  # what it is, for provenance
    trust_remote_code: bool = False


def train(
    spec: TrainSpec, base: Base, data: Sequence[tuple[TaskSpec, Split]], out: Path, *, force: bool = False
) -> dict[str, Any]:
    """Train, or go on with a training that was killed; returns training.json with `fresh`.

    data: each task of the spec with its training split. The same call again does nothing.
    Raises TrainError where OUT holds another training, ConfigError, Unavailable.
    """
    key = {
        "spec": spec.digest,
        "base": digest(base.identity),
        "data": {task.name: split.fingerprint for task, split in data},
    }
    done = read_training(out)
    if done is not None and not force:
        if _same(done, key):
            return done | {"fresh": False}
        raise TrainError(
            f"{out} holds another training ({_words(done)}); --force replaces it, --out goes elsewhere."
        )
    _require_no_other(out, base, force)
    state = _processes(spec)
    with state.main_process_first():
        trainer_folder = _claim(out, key, force) if state.is_main_process else out / "trainer"
    started = now()
    if not sys.stderr.isatty():
        import_module("transformers").utils.logging.disable_progress_bar()
    history: list[dict[str, float]] = []
    progress = Progress(f"{spec.model} on {spec.trained_on}", history)
    with _threads_kept():
        trainer, items = _trainer(spec, base, data, trainer_folder)
        trainer.add_callback(progress)
        resumed = last_complete(trainer_folder)
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        training = {
            "schema": 1,
            "key": key,
            "model": spec.model,
            "objective": spec.objective,
            "trained_on": spec.trained_on,
            "seed": spec.seed,
            "spec": spec.model_dump(),
            "base": base.identity,
            "data": [
                {
                    "task": task.name,
                    "split": split.name,
                    "fingerprint": split.fingerprint,
                    "n_split": len(split.samples),
                }
                for task, split in data
            ],
            "n_samples": len(items),
            "steps": trainer.state.global_step,
            "samples_seen": trainer.state.global_step * spec.batch_size,
            "parameters": _parameters(trainer.model),
            "versions": versions() | _trainer_versions(),
            "git_commit": git_commit(),
            "ran_on": machine()
            | {"device": _device_name(trainer.args.device), "world_size": trainer.args.world_size}
            | ({"sharding": spec.sharding} if trainer.args.world_size > 1 else {}),
            "started": started,
            "ended": now(),
            "seconds_since_start_or_resume": round(progress.seconds, 1),
            "resumed_from_step": int(resumed.name.rpartition("-")[2]) if resumed else None,
            "history": history,
        }
        model = _whole_model(trainer, spec, base)
        if trainer.args.should_save:
            export(model, base.checkpoint, base.revision, out, training, merge=spec.export == "merged")
    return training | {"fresh": True}


def _processes(spec: TrainSpec) -> Any:
    """The processes that train together, as torchrun or accelerate launch has started them; else this one."""
    return import_module("accelerate").PartialState(cpu=spec.device == "cpu" or not torch.cuda.is_available())


def _whole_model(trainer: KlalTrainer, spec: TrainSpec, base: Base) -> Any:
    """The trained model in one piece; of a sharded one None but for the first process."""
    if not trainer.sharded:
        return trainer.model
    weights = resume.gathered(resume.trained(trainer.model), keep=trainer.args.should_save)
    if not trainer.args.should_save:
        return None
    model = load_model(spec, base, {"revision": base.revision, "trust_remote_code": base.trust_remote_code})
    for name, weight in resume.trained(model):
        resume.put(name, weights[name], weight, Path("the trained weights"))
    return model


def _same(done: dict[str, Any], key: dict[str, Any]) -> bool:
    """Whether a finished training is the one of this key; also where its spec was digested by another version."""
    found = done.get("key")
    if found == key or not isinstance(found, dict):
        return bool(found == key)
    try:
        return {**found, "spec": TrainSpec(**done["spec"]).digest} == key
    except (KeyError, TypeError, ValueError):
        return False


def _words(training: dict[str, Any]) -> str:
    return f"{training.get('model')} on {training.get('trained_on')}, seed {training.get('seed')}"


def _require_no_other(out: Path, base: Base, force: bool) -> None:
    """Raise TrainError for a checkpoint in OUT that no training of ours has made or begun, and for the base itself."""
    if Path(base.checkpoint).is_dir() and out.is_dir() and out.samefile(base.checkpoint):
        raise TrainError(f"{out} is the base that this training starts from: --out goes elsewhere.")
    ours = read_training(out) is not None or (out / "trainer" / _KEY_FILE).is_file()
    weights = [path for pattern in _WEIGHTS for path in sorted(out.glob(pattern))]
    if weights and not ours and not force:
        raise TrainError(
            f"{out} holds a checkpoint that was not trained here ({weights[0].name}); --force replaces it, "
            "--out goes elsewhere."
        )


def _claim(out: Path, key: dict[str, Any], force: bool) -> Path:
    """OUT/trainer, made or found to be of this training. Raises TrainError where it is of another."""
    folder = out / "trainer"
    marker = folder / _KEY_FILE
    try:
        if force:
            shutil.rmtree(folder, ignore_errors=True)
            for name in (TRAINING_FILE, "config.json", "adapter_config.json"):
                (out / name).unlink(missing_ok=True)  # no checkpoint until the new one is whole
        started = last_complete(folder) is not None
        if started and (not marker.is_file() or json.loads(marker.read_text(encoding="utf-8")) != key):
            raise TrainError(
                f"{folder} holds checkpoints of another training (other settings, data or base): "
                "--force starts over, --out goes elsewhere."
            )
        folder.mkdir(parents=True, exist_ok=True)
        marker.write_text(json.dumps(key, indent=2) + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        raise TrainError(f"{folder}: cannot be used ({error}).") from None
    return folder


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Restores torch's thread count, which a small model lowers."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _trainer(
    spec: TrainSpec, base: Base, data: Sequence[tuple[TaskSpec, Split]], folder: Path
) -> tuple[KlalTrainer, list[Item]]:
    transformers = import_module("transformers")
    transformers.set_seed(spec.seed)
    hub = {"revision": base.revision, "trust_remote_code": base.trust_remote_code}
    with loading(base.checkpoint, "config"):
        config = transformers.AutoConfig.from_pretrained(base.checkpoint, **hub)
    maker = InputMaker(base.checkpoint, family_class(base.family), config, base.limits, hub, base.layout)
    items = gather(spec, base, data)
    klal_spec = spec.klal if spec.objective == "ntp_klal" else None
    if klal_spec is not None:
        require_targets(items, maker, klal_spec)
    args = _arguments(spec, folder, len(items))
    model = load_model(spec, base, hub)
    if model.num_parameters() < _ONE_THREAD_PARAMETERS and args.device.type == "cpu":
        torch.set_num_threads(1)
    if spec.sharding == "fsdp":
        shard(model, base.family, args.device)
    trainer = KlalTrainer(
        model,
        args,
        klal_spec=klal_spec,
        attention=spec.attention,
        train_dataset=TrainingSet(items, maker, klal_spec, keep_in_memory=spec.keep_in_memory),
        data_collator=Collator(maker, longest_input(config)),
    )
    for callback in ("PrinterCallback", "ProgressCallback"):
        trainer.remove_callback(getattr(import_module("transformers.trainer_callback"), callback))
    return trainer, items


def gather(spec: TrainSpec, base: Base, data: Sequence[tuple[TaskSpec, Split]]) -> list[Item]:
    """The training items of all tasks; `limit` is of each task. Raises ConfigError when there is none."""
    items = [
        item
        for task, split in data
        for item in items_of(task, stratified(split.samples, spec.limit, spec.seed), base.family, base.frame)
    ]
    if not items:
        raise ConfigError(f"{spec.trained_on}: no training samples.")
    return shuffled_answers(items, spec.seed) if spec.objective == "format" else items


def _arguments(spec: TrainSpec, folder: Path, n_items: int) -> Any:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if spec.batch_size % (spec.per_device_batch * world):
        raise ConfigError(
            f"batch_size {spec.batch_size} is no multiple of per_device_batch {spec.per_device_batch} "
            f"x {world} processes."
        )
    steps = spec.steps or math.ceil(n_items / spec.batch_size * (spec.epochs or 0))
    if spec.sharding == "fsdp" and world == 1:
        raise ConfigError(
            "sharding: fsdp spreads a model over several processes: start it by torchrun --nproc-per-node N "
            "-m evalkit train ..., or leave it out."
        )
    for kind in ("FSDP", "DEEPSPEED"):
        if os.environ.get(f"ACCELERATE_USE_{kind}", "").lower() == "true":
            raise ConfigError(
                f"accelerate launch was told to use {kind}: leave it out there and say --set sharding=fsdp, which "
                "keeps KLAL's loss and gradient those of one GPU."
            )
    cuda = torch.cuda.is_available() and spec.device != "cpu"
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "logs")
    return import_module("transformers").TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=spec.per_device_batch,
        gradient_accumulation_steps=spec.batch_size // (spec.per_device_batch * world),
        learning_rate=spec.lr,
        lr_scheduler_type=spec.schedule,
        warmup_steps=round(spec.warmup * steps),
        weight_decay=spec.weight_decay,
        adam_beta1=spec.betas[0],
        adam_beta2=spec.betas[1],
        max_grad_norm=spec.clip,
        optim="adamw_torch_fused" if cuda else "adamw_torch",
        bf16=spec.precision == "bfloat16",
        use_cpu=not cuda,
        seed=spec.seed,
        logging_steps=spec.log_every,
        save_strategy="steps",
        save_steps=spec.save_every or max(1, math.ceil(steps / 10)),
        save_total_limit=2,
        dataloader_num_workers=spec.workers,
        dataloader_pin_memory=cuda,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=["tensorboard"],
        disable_tqdm=True,
        # parts of a trained vision tower stand behind the layer that is read, and get no gradient
        ddp_find_unused_parameters="vision" not in spec.freeze,
    )


def load_model(spec: TrainSpec, base: Base, hub: dict[str, Any]) -> Any:
    """The base with what the spec trains set to be trained; a LoRA's base stays in half precision.

    Embeddings and patches are not made to require a gradient, as transformers and PEFT do for reentrant
    checkpointing: a frozen vision tower would be run again and passed backwards through, for nothing.
    """
    transformers = import_module("transformers")
    half = spec.precision == "bfloat16" and spec.tuning == "lora"
    with loading(base.checkpoint, "weights"):
        model, found = getattr(transformers, _CLASSES[base.family]).from_pretrained(
            base.checkpoint,
            dtype=torch.bfloat16 if half else torch.float32,
            attn_implementation=spec.attention,
            output_loading_info=True,
            **hub,
        )
    if absent := sorted(found["missing_keys"]) + sorted(str(key) for key in found["mismatched_keys"]):
        raise TrainError(f"{base.checkpoint}: {len(absent)} weights are missing, {absent[0]} among them.")
    for name, weight in model.named_parameters():
        weight.requires_grad_(_part(name) not in spec.freeze)
    if spec.checkpointing:
        # non-reentrant: reentrant checkpointing gives the rows no gradient, silently
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.disable_input_require_grads()
    return with_lora(model, spec) if spec.tuning == "lora" else model


def _part(name: str) -> str:
    """Which part of the model a weight belongs to: vision, projector or language."""
    if "multi_modal_projector" in name or ".merger." in name:
        return "projector"
    return "vision" if "visual." in name or "vision_tower." in name else "language"


def with_lora(model: Any, spec: TrainSpec) -> Any:
    """The model with adapters on the language model's projections; all else is frozen. Raises Unavailable."""
    try:
        peft = import_module("peft")
    except ImportError:
        raise Unavailable("tuning: lora needs peft: pip install 'evalkit-vlm[train]'.") from None
    try:
        config = peft.LoraConfig(
            r=spec.lora.r,
            lora_alpha=spec.lora.alpha,
            lora_dropout=spec.lora.dropout,
            target_modules=spec.lora.modules,
            task_type="CAUSAL_LM",
        )
        adapted = peft.get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(f"lora.modules {spec.lora.modules!r}: {error}") from None
    model.disable_input_require_grads()
    return adapted


def _parameters(model: Any) -> dict[str, int]:
    return {
        "all": sum(p.numel() for p in model.parameters()),
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def _trainer_versions() -> dict[str, str]:
    return {name: str(import_module(name).__version__) for name in ("accelerate", "peft")}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
