"""Checkpoints on disk in the key names that both transformers and vLLM read."""

import json
from pathlib import Path

_OURS, _THEIRS = "vision_tower.", "vision_tower.vision_model."


def restore_vision_tower_keys(folder: Path) -> None:
    """Rename LLaVA's vision weights in `folder` to the published names, `vision_tower.vision_model.*`.

    save_pretrained of transformers 5.16 to 5.19 drops `vision_model` for a model that was made, not
    loaded; vLLM refuses that, transformers reads both. Published names stay as they are.
    """
    from safetensors.torch import load_file, save_file

    for path in sorted(folder.glob("*.safetensors")):
        weights = load_file(path)
        renamed = {_published(key): tensor for key, tensor in weights.items()}
        if renamed.keys() != weights.keys():
            save_file(renamed, path, metadata={"format": "pt"})
    for path in sorted(folder.glob("*.safetensors.index.json")):  # of a checkpoint in several files
        index = json.loads(path.read_text(encoding="utf-8"))
        index["weight_map"] = {_published(key): name for key, name in index["weight_map"].items()}
        path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _published(key: str) -> str:
    if key.startswith(_OURS) and not key.startswith(_THEIRS):
        return _THEIRS + key.removeprefix(_OURS)
    return key
