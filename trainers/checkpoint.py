"""A trained checkpoint on disk: a folder that transformers and vLLM both load, and where it came from.

OUT/config.json, *.safetensors, tokenizer and image processor   (or adapter_config.json and the adapter)
OUT/training.json      spec, data fingerprints, seed, versions, git commit, losses; written last
OUT/trainer/           checkpoints with optimiser state, to resume from; TensorBoard logs
"""

import json
import shutil
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from evalkit.errors import TrainError
from model_adapters.export import restore_vision_tower_keys

TRAINING_FILE = "training.json"
_WEIGHTS = (
    "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.gguf",
    "config.json", "generation_config.json", TRAINING_FILE, "README*", ".*", "*.md",
)  # fmt: skip


def export(
    model: Any, base: str, revision: str | None, out: Path, training: dict[str, Any], *, merge: bool
) -> None:
    """Write the finished model to OUT. Existing files are replaced one by one, training.json last.

    base:  the folder or Hub id that tokenizer and image processor are copied from, byte for byte.
    merge: fold a LoRA into the weights; False leaves an adapter beside a pointer to the base.
    """
    adapter = hasattr(model, "merge_and_unload") and not merge
    if hasattr(model, "merge_and_unload") and merge:
        model = model.merge_and_unload()
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as scratch:
        folder = Path(scratch)
        if not adapter:
            for path in preparation_files(base, revision):
                shutil.copyfile(path, folder / path.name)
        model.save_pretrained(folder)
        if not adapter and model.config.model_type == "llava":
            restore_vision_tower_keys(folder)
        (folder / TRAINING_FILE).write_text(json.dumps(training, indent=2) + "\n", encoding="utf-8")
        last = ("config.json", "adapter_config.json", TRAINING_FILE)
        for path in sorted(
            folder.iterdir(), key=lambda p: (last.index(p.name) if p.name in last else -1, p.name)
        ):
            path.replace(out / path.name)


def preparation_files(base: str, revision: str | None) -> list[Path]:
    """Tokenizer, chat template and processor files of a base checkpoint, fetched when it is on the Hub."""
    if not Path(base).is_dir():
        hub = import_module("huggingface_hub")
        base = hub.snapshot_download(base, revision=revision, ignore_patterns=list(_WEIGHTS))
    skipped = {path for pattern in _WEIGHTS for path in Path(base).glob(pattern)}
    return sorted(path for path in Path(base).iterdir() if path.is_file() and path not in skipped)


def read_training(folder: Path) -> dict[str, Any] | None:
    """training.json of a checkpoint, or None where there is none. Raises TrainError when it is damaged."""
    path = folder / TRAINING_FILE
    if not path.is_file():
        return None
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainError(f"{path}: cannot be read ({error}). Train again with --force.") from None
    return data


def last_complete(trainer_folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; a kill may leave half of one.

    trainer_state.json is the last file of a checkpoint.
    """
    numbered = [
        (int(number), path)
        for path in trainer_folder.glob("checkpoint-*")
        if (number := path.name.rpartition("-")[2]).isdigit()
    ]
    for _, path in sorted(numbered, reverse=True):
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(state, dict) and state.get("global_step"):
            return path
    return None
