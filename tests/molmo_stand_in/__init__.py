"""A checkpoint with remote code in Molmo's interface: the other files of this folder, and tiny random weights.

The code is ours: it has the shapes, conventions and gaps of the released files (arguments, crops padded with -1,
tuple caches, no post_init, a tie_weights without arguments, an import of tensorflow), and nothing of their inside.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

SPECIAL = ("<|endoftext|>", "<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<|image|>")
CODE = ("config_molmo", "modeling_molmo", "image_preprocessing_molmo", "preprocessing_molmo")


def make_checkpoint(folder: Path) -> Path:
    """Write the stand-in into `folder`, which must not exist; the same bytes each time."""
    import torch
    from safetensors.torch import save_file

    from model_adapters.tiny import _spoken, _tokenizer
    from model_adapters.tiny_recipes import RECIPES

    folder.mkdir()
    for name in CODE:
        shutil.copy(Path(__file__).parent / f"{name}.py", folder)
    recipe = replace(
        RECIPES["qwen2_5_vl"], special=SPECIAL, bos=None, eos="<|endoftext|>", pad="<|endoftext|>"
    )
    tokenizer = _tokenizer(recipe)
    tokenizer.save_pretrained(folder)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "patch_values": 588}
    write(folder / "config.json", {**CONFIG, **sizes})
    write(folder / "preprocessor_config.json", PREPROCESSOR)
    write(folder / "processor_config.json", {"auto_map": PROCESSOR_CODE, "processor_class": "MolmoProcessor"})
    generator = torch.Generator().manual_seed(7)

    def noise(rows: int, columns: int, gain: float = 1.0) -> torch.Tensor:
        return gain * torch.randn(rows, columns, generator=generator) / columns**0.5

    hidden, vocabulary = sizes["hidden_size"], sizes["vocab_size"]
    weights = {
        "model.embedding.weight": noise(vocabulary, hidden, hidden**0.5),
        "model.positions.weight": noise(1024, hidden, 0.5 * hidden**0.5),
        "model.patches.weight": noise(hidden, sizes["patch_values"], 3.0),
        "model.head.weight": noise(vocabulary, hidden, 2.0),
    }
    for layer in range(sizes["num_hidden_layers"]):
        for part in ("query", "key", "value", "out"):
            weights[f"model.layers.{layer}.{part}.weight"] = noise(hidden, hidden, 1.5)
    silent = set(range(vocabulary)) - set(_spoken(tokenizer)) - {tokenizer.eos_token_id}
    weights["model.head.weight"][sorted(silent)] = 0
    weights["model.head.weight"][tokenizer.eos_token_id] *= 2.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2))


PROCESSOR_CODE = {"AutoProcessor": "preprocessing_molmo.MolmoProcessor"}
CONFIG = {
    "model_type": "molmo",
    "architectures": ["MolmoForCausalLM"],
    "auto_map": {
        "AutoConfig": "config_molmo.MolmoConfig",
        "AutoModelForCausalLM": "modeling_molmo.MolmoForCausalLM",
    },
    "use_cache": True,
    "use_position_ids": True,
    "weight_tying": False,
    "dtype": "float32",
}
PREPROCESSOR = {
    "auto_map": {"AutoImageProcessor": "image_preprocessing_molmo.MolmoImageProcessor", **PROCESSOR_CODE},
    "image_processor_type": "MolmoImageProcessor",
    "processor_class": "MolmoProcessor",
    "image_patch_size": 14,
    "crop_size": 28,
}
