"""Random checkpoints of a chosen size, and the trainings on them, that benchmarks.train_memory measures."""

import json
import os
import shutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

_TEXT = {
    "tiny": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4},
    "mid": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8, "num_attention_heads": 16},
}  # fmt: skip
_VISION = {
    "tiny": {"hidden_size": 64, "intermediate_size": 192, "heads": 4, "layers": 3},
    "mid": {"hidden_size": 512, "intermediate_size": 1408, "heads": 8, "layers": 4},
}
_VOCABULARY = {"tiny": 2048, "mid": 32_000}
_SIDE = {
    ("qwen2_5_vl", "tiny"): 224, ("llava", "tiny"): 112, ("qwen2_5_vl", "mid"): 392, ("llava", "mid"): 224,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One measured training of two optimiser steps."""

    family: str = "qwen2_5_vl"
    size: str = "mid"
    tuning: str = "full"
    checkpointing: bool = False
    precision: str = "float32"
    freeze: tuple[str, ...] = ()
    per_device_batch: int = 2
    accumulate: int = 1
    ranks: int = 1
    sharding: str = "none"

    def __str__(self) -> str:
        freeze = ", vision frozen" if self.freeze else ""
        ranks = (
            f", {self.ranks} ranks {'fsdp' if self.sharding == 'fsdp' else 'ddp'}" if self.ranks > 1 else ""
        )
        return (
            f"{self.family} {self.size} {self.tuning}{freeze}, {self.precision}, checkpointing "
            f"{'on' if self.checkpointing else 'off'}, batch {self.per_device_batch} x {self.accumulate}{ranks}"
        )


def make_checkpoint(family: str, size: str, folder: Path) -> Path:
    """folder/<family>-<size>: a tiny checkpoint's tokenizer and files with a random model of other size."""
    from model_adapters.tiny import tiny_checkpoint

    made = folder / f"{family}-{size}"
    if (made / "config.json").is_file():
        return made
    tiny = tiny_checkpoint(family, folder / "tiny")
    shutil.copytree(tiny, made, dirs_exist_ok=True)
    for old in made.glob("*.safetensors"):
        old.unlink()
    _set_image_size(made / "preprocessor_config.json", family, size)
    torch, transformers = import_module("torch"), import_module("transformers")
    torch.manual_seed(0)
    name = {"qwen2_5_vl": "Qwen2_5_VL", "llava": "Llava"}[family]
    config = _resized(transformers.AutoConfig.from_pretrained(tiny), family, size)
    (made / "config.json").unlink()
    getattr(transformers, f"{name}ForConditionalGeneration")(config).save_pretrained(made)
    return made


def _resized(config: Any, family: str, size: str) -> Any:
    settings, side = config.to_dict(), _SIDE[family, size]
    heads = _TEXT[size]["num_attention_heads"]
    width = _TEXT[size]["hidden_size"] // heads
    text = {
        **settings["text_config"], **_TEXT[size], "vocab_size": _VOCABULARY[size],
        "num_key_value_heads": heads // 4 if family == "qwen2_5_vl" else heads, "head_dim": width,
    }  # fmt: skip
    shape = _VISION[size]
    vision = {**settings["vision_config"], "hidden_size": shape["hidden_size"]}
    vision["intermediate_size"] = shape["intermediate_size"]
    if family == "qwen2_5_vl":
        first, second = width // 8, width // 8 * 3 // 2
        sections = [first, second, width // 2 - first - second]
        text.update(
            rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections},
            layer_types=None,
        )
        text.pop("head_dim")
        vision.update(depth=shape["layers"], num_heads=shape["heads"], out_hidden_size=text["hidden_size"])
    else:
        vision.update(num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"], image_size=side)
        settings["image_seq_length"] = (side // 14) ** 2
    return type(config)(**{**settings, "text_config": text, "vision_config": vision})


def _set_image_size(path: Path, family: str, size: str) -> None:
    side, found = _SIDE[family, size], json.loads(path.read_text())
    if family == "qwen2_5_vl":
        found.update(min_pixels=side * side, max_pixels=side * side)
    else:
        found.update(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    path.write_text(json.dumps(found, indent=2) + "\n")


def make_spec(case: Case, steps: int = 2) -> Any:
    from trainers.spec import TrainSpec

    return TrainSpec(
        model="measured", base="random", task="grid_patch", objective="ntp_klal", tuning=case.tuning,
        freeze=list(case.freeze), steps=steps, batch_size=case.per_device_batch * case.accumulate * case.ranks,
        per_device_batch=case.per_device_batch, lr=1e-4, precision=case.precision, log_every=1,
        checkpointing=case.checkpointing, sharding=case.sharding, save_every=10_000, device="cpu",
    )  # fmt: skip


def make_trainer(case: Case, checkpoint: Path, data: Path, out: Path) -> Any:
    """The project's own KlalTrainer as `evalkit train` makes it, which saves nothing."""
    from evalkit.datasets.disk import read_split
    from evalkit.task import load_task
    from trainers.training import Base, _trainer

    base = Base(str(checkpoint), case.family, None, {}, "pad", None, {"name": "random"})
    task = load_task("grid_patch", None)
    splits = [(task, read_split(data, "grid_patch", "train"))]
    trainer, _ = _trainer(make_spec(case), base, splits, out / os.environ.get("RANK", "0"))
    trainer._save_checkpoint = lambda *_, **__: None  # type: ignore[method-assign]
    return trainer
