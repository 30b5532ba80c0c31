"""Dimensions of a Qwen2.5-VL or LLaVA-1.5 checkpoint, and how many weights each of its parts has. No torch.

Counted by hand from the layers; tests/test_train_plan.py holds the counts against the models themselves, built
without memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evalkit.errors import ConfigError

Part = Literal["vision", "projector", "language"]


@dataclass(frozen=True, slots=True)
class Tower:
    """A stack of transformer layers: the language model's, or the vision tower's.

    gated: the MLP has three matrices (gate, up, down), else two. biased: which of the attention's and the MLP's
    projections have a bias; norm: numbers a normalisation keeps for each of the width (RMS 1, LayerNorm 2).
    """

    layers: int
    width: int
    mlp: int
    heads: int
    kv_heads: int
    head_width: int
    gated: bool
    norm: int
    biased: tuple[str, ...] = ()  # of q, k, v, o, mlp

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_width

    @property
    def q_width(self) -> int:
        return self.heads * self.head_width

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """name -> (inputs, outputs) of the matrices of one layer."""
        attention = {
            "q": (self.width, self.q_width),
            "k": (self.width, self.kv_width),
            "v": (self.width, self.kv_width),
            "o": (self.q_width, self.width),
        }
        mlp = {"up": (self.width, self.mlp), "down": (self.mlp, self.width)}
        return attention | ({"gate": (self.width, self.mlp)} if self.gated else {}) | mlp

    @property
    def matrix_weights(self) -> int:
        """Of one layer, without biases and norms: each costs a multiplication and an addition a token."""
        return sum(n_in * n_out for n_in, n_out in self.projections.values())

    @property
    def layer_weights(self) -> int:
        biases = sum(
            n_out
            for name, (_, n_out) in self.projections.items()
            if (name if name in "qkvo" else "mlp") in self.biased
        )
        return self.matrix_weights + biases + 2 * self.norm * self.width


@dataclass(frozen=True, slots=True)
class Shape:
    """A model: its towers, and what stands around them."""

    family: str
    language: Tower
    vision: Tower
    vocabulary: int
    tied: bool  # one matrix for embeddings and logits
    patch_values: int  # numbers of one patch: channels x frames x height x width
    merge: int  # patches a side that become one visual token
    class_token: bool
    positions: int  # learnt positions of the vision tower, 0 where it rotates
    window: int = 0  # patches a side of windowed attention, 0 where all layers see all
    full_attention_layers: int = 0  # of a windowed tower

    @property
    def weights(self) -> dict[Part, int]:
        """How many weights each part has."""
        return {
            "vision": self.vision.layers * self.vision.layer_weights + self._around_vision,
            "projector": self._projector,
            "language": self.language.layers * self.language.layer_weights
            + self.embedding * (1 if self.tied else 2)
            + self.language.width,
        }

    @property
    def embedding(self) -> int:
        """Weights of the embeddings, and as many of the matrix that makes logits."""
        return self.vocabulary * self.language.width

    @property
    def outside_layers(self) -> int:
        """Weights that stand outside of all layers: FSDP's outermost group."""
        inside = self.language.layers * self.language.layer_weights
        return sum(self.weights.values()) - inside - self.vision.layers * self.vision.layer_weights

    @property
    def _around_vision(self) -> int:
        width = self.vision.width
        patches = self.patch_values * width
        if self.family == "qwen2_5_vl":
            return patches
        return patches + (width if self.class_token else 0) + self.positions * width + 2 * 2 * width

    @property
    def _projector(self) -> int:
        wide, out = self.vision.width * self.merge**2, self.language.width
        if self.family == "qwen2_5_vl":  # norm, two layers
            return self.vision.width + wide * wide + wide + wide * out + out
        return wide * out + out + out * out + out


# As their config.json says: https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct and llava-hf/llava-1.5-7b-hf, where
# what it leaves out is the library's default (LlamaConfig, CLIPVisionConfig).
_KNOWN: Mapping[str, Mapping[str, Any]] = {
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        "family": "qwen2_5_vl",
        "text": {
            "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
            "intermediate_size": 18944, "vocab_size": 152064, "tie_word_embeddings": False,
        },
        "vision": {
            "depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420, "in_channels": 3,
            "patch_size": 14, "temporal_patch_size": 2, "spatial_merge_size": 2, "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
    },
    "llava-hf/llava-1.5-7b-hf": {
        "family": "llava",
        "text": {
            "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
            "intermediate_size": 11008, "vocab_size": 32064, "tie_word_embeddings": False,
        },
        "vision": {
            "num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096,
            "num_channels": 3, "patch_size": 14, "image_size": 336,
        },
    },
}  # fmt: skip


def known_shape(checkpoint: str) -> Shape | None:
    """The shape of a Hub id whose dimensions are written here, or None."""
    found = _KNOWN.get(checkpoint)
    return None if found is None else _shape(found["family"], found["text"], found["vision"], checkpoint)


def shape_of(config: Any, family: str, where: str) -> Shape:
    """The shape of a checkpoint by its config, as transformers reads it. Raises ConfigError."""
    return _shape(family, config.get_text_config().to_dict(), config.vision_config.to_dict(), where)


def _shape(family: str, text: Mapping[str, Any], vision: Mapping[str, Any], where: str) -> Shape:
    make = {"qwen2_5_vl": _qwen, "llava": _llava}.get(family)
    if make is None:
        raise ConfigError(f"--plan knows Qwen2.5-VL and LLaVA-1.5, not the family {family!r} of {where}.")
    try:
        return make(text, vision)
    except KeyError as missing:
        raise ConfigError(f"{where}: its config.json has no {missing.args[0]!r}.") from None


def _qwen(text: Mapping[str, Any], vision: Mapping[str, Any]) -> Shape:
    width, heads = vision["hidden_size"], vision["num_heads"]
    return Shape(
        family="qwen2_5_vl",
        language=_decoder(text, biased=("q", "k", "v")),
        vision=Tower(
            layers=vision["depth"],
            width=width,
            mlp=vision["intermediate_size"],
            heads=heads,
            kv_heads=heads,
            head_width=width // heads,
            gated=True,
            norm=1,
            biased=("q", "k", "v", "o", "mlp"),
        ),
        vocabulary=text["vocab_size"],
        tied=bool(text.get("tie_word_embeddings")),
        patch_values=vision["in_channels"] * vision["temporal_patch_size"] * vision["patch_size"] ** 2,
        merge=vision["spatial_merge_size"],
        class_token=False,
        positions=0,
        window=vision["window_size"] // vision["patch_size"],
        full_attention_layers=sum(layer < vision["depth"] for layer in vision["fullatt_block_indexes"]),
    )


def _llava(text: Mapping[str, Any], vision: Mapping[str, Any]) -> Shape:
    width, heads = vision["hidden_size"], vision["num_attention_heads"]
    return Shape(
        family="llava",
        language=_decoder(text, biased=()),
        vision=Tower(
            layers=vision["num_hidden_layers"],
            width=width,
            mlp=vision["intermediate_size"],
            heads=heads,
            kv_heads=heads,
            head_width=width // heads,
            gated=False,
            norm=2,
            biased=("q", "k", "v", "o", "mlp"),
        ),
        vocabulary=text["vocab_size"],
        tied=bool(text.get("tie_word_embeddings")),
        patch_values=vision["num_channels"] * vision["patch_size"] ** 2,
        merge=1,
        class_token=True,
        positions=(vision["image_size"] // vision["patch_size"]) ** 2 + 1,
    )


def _decoder(text: Mapping[str, Any], biased: tuple[str, ...]) -> Tower:
    heads = text["num_attention_heads"]
    return Tower(
        layers=text["num_hidden_layers"],
        width=text["hidden_size"],
        mlp=text["intermediate_size"],
        heads=heads,
        kv_heads=text.get("num_key_value_heads") or heads,
        head_width=text.get("head_dim") or text["hidden_size"] // heads,
        gated=True,
        norm=1,
        biased=biased,
    )
