"""GLaMM's original checkpoint -> a LLaVA folder that transformers and vLLM both load: `evalkit convert glamm`.

Everything is checked before anything is written, and the folder gets its name once it is whole. Weights
pass one at a time, and an input file stays mapped for one output file at most: memory follows the size of
those, not of the model or of its shards.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from evalkit.errors import AdapterError
from model_adapters.glamm_files import (
    CHAT_TEMPLATE,
    added_tokens,
    check_added_tokens,
    llava_config,
    small_files,
    text_config,
    vision_config,
)
from model_adapters.glamm_weights import (
    DROPPED,
    DROPPED_ENDS,
    DROPPED_OF_CLIP,
    EMBEDDING,
    HEAD,
    published,
    text_shapes,
    vision_shapes,
)
from model_adapters.hub import Source, located_files
from model_adapters.new_folder import new_folder, require_new, require_room, write_text
from model_adapters.sentencepiece_file import Piece, bpe_of, read_pieces
from model_adapters.weight_files import (
    ITEM_BYTES,
    Stored,
    opened,
    sha256,
    size_of,
    survey,
    weight_files,
    write_safetensors,
)

VISION_TOWER = "openai/clip-vit-large-patch14-336"
_SHARD_BYTES = 2 * 10**9


@dataclass(frozen=True, slots=True)
class Move:
    """One weight on its way: `key` of `file` becomes `name`, with this shape."""

    file: Path
    key: str
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that will be written; dtype as in torch, without `torch.`."""

    config: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]
    pieces: Sequence[Piece]
    moves: Sequence[Move]
    dropped: Sequence[str]
    dtype: str
    sources: Mapping[str, Source]

    @property
    def size(self) -> int:
        return sum(size_of(move.shape, self.dtype) for move in self.moves)


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion made: how many weights were kept and left out, and the bytes of those kept."""

    out: Path
    kept: int
    dropped: int
    size: int
    dtype: str


def convert(
    checkpoint: str | Path,
    out: Path,
    vision_tower: str | Path = VISION_TOWER,
    *,
    revision: str | None = None,
    shard_bytes: int = _SHARD_BYTES,
    tell: Callable[[str], None] = lambda line: None,
) -> Converted:
    """Write the folder `out`. Raises ConfigError where it exists, Unavailable, AdapterError.

    checkpoint, vision_tower: a folder or a Hub id; revision: of the checkpoint on the Hub.
    shard_bytes: most bytes of weights in one file of `out`. tell: gets a line after each of them.
    """
    out = out.expanduser().absolute()
    require_new(out)
    plan = plan_conversion(checkpoint, vision_tower, revision)
    with new_folder(out) as folder:
        require_room(folder.parent, plan.size)
        _write(plan, folder, shard_bytes, tell)
    return Converted(out, len(plan.moves), len(plan.dropped), plan.size, plan.dtype)


def plan_conversion(checkpoint: str | Path, vision_tower: str | Path, revision: str | None = None) -> Plan:
    """Read and check all but the weights' data; writes nothing. Raises Unavailable, AdapterError."""
    source, tower = located_files(checkpoint, revision), located_files(vision_tower)
    pieces = read_pieces(source.folder / "tokenizer.model")
    check_added_tokens(source.folder, pieces)
    n_tokens = len(pieces) + len(added_tokens())
    text = text_config(source.folder / "config.json", n_tokens)
    vision = vision_config(tower.folder / "config.json")
    files = small_files(text, vision, tower.folder / "preprocessor_config.json")
    weights, clip = survey(weight_files(source.folder)), survey(weight_files(tower.folder))
    # without the row of the image placeholder, which is appended
    shapes = text_shapes(text, n_tokens - 1, vision["hidden_size"])
    kept = _checked(source.name, weights, shapes, DROPPED)
    kept_of_clip = _checked(tower.name, clip, vision_shapes(vision), DROPPED_OF_CLIP)
    dtype = weights[EMBEDDING].dtype
    moves = [_move(key, stored) for key, stored in (*kept.items(), *kept_of_clip.items())]
    return Plan(
        config=llava_config(source.folder / "config.json", text, vision, dtype),
        files=files,
        pieces=pieces,
        moves=moves,
        dropped=sorted([*(weights.keys() - kept.keys()), *(clip.keys() - kept_of_clip.keys())]),
        dtype=dtype,
        sources={"checkpoint": source, "vision_tower": tower},
    )


def _checked(
    name: str, found: Mapping[str, Stored], shapes: Mapping[str, tuple[int, ...]], dropped: Sequence[str]
) -> dict[str, Stored]:
    """Those that are kept, in the files' order. Raises AdapterError, naming one that should not be so."""
    kept = {
        k: v for k, v in found.items() if not k.startswith(tuple(dropped)) and not k.endswith(DROPPED_ENDS)
    }
    if missing := [key for key in shapes if key not in kept]:
        raise AdapterError(f"{name}: {len(missing)} weights are missing, {missing[0]} among them.")
    if extra := [key for key in kept if key not in shapes]:
        raise AdapterError(
            f"{name}: {len(extra)} weights are not known, {extra[0]} among them: not the released layout."
        )
    for key, stored in kept.items():
        if stored.shape != shapes[key]:
            raise AdapterError(f"{name}: {key} has shape {stored.shape}, expected {shapes[key]}.")
        if stored.dtype not in ITEM_BYTES:
            raise AdapterError(f"{name}: {key} is {stored.dtype}; expected {', '.join(ITEM_BYTES)}.")
    return kept


def _move(key: str, stored: Stored) -> Move:
    rows = 1 if key in (EMBEDDING, HEAD) else 0
    return Move(stored.file, key, published(key), (stored.shape[0] + rows, *stored.shape[1:]))


def _write(plan: Plan, folder: Path, shard_bytes: int, tell: Callable[[str], None]) -> None:
    shards = list(_packed(plan.moves, plan.dtype, shard_bytes))
    names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    names = ["model.safetensors"] if len(shards) == 1 else names
    for name, moves in zip(names, shards, strict=True):
        entries = [(move.name, move.shape) for move in moves]
        write_safetensors(folder / name, entries, plan.dtype, _drawn(moves))
        tell(f"wrote {name}")
    index = {move.name: name for name, moves in zip(names, shards, strict=True) for move in moves}
    files = {"config.json": plan.config, **plan.files, "conversion.json": _provenance(plan)}
    if len(shards) > 1:
        files["model.safetensors.index.json"] = {
            "metadata": {"total_size": plan.size},
            "weight_map": dict(sorted(index.items())),
        }
    for name, content in files.items():
        write_text(folder / name, json.dumps(content, indent=2) + "\n")
    write_text(folder / "chat_template.jinja", CHAT_TEMPLATE)
    write_text(folder / "tokenizer.json", bpe_of(plan.pieces, added_tokens()).to_str(pretty=True))


def _packed(moves: Sequence[Move], dtype: str, limit: int) -> Iterator[list[Move]]:
    """In order, as many to a shard as fit; one that is larger than the limit gets a shard of its own."""
    shard: list[Move] = []
    size = 0
    for move in moves:
        more = size_of(move.shape, dtype)
        if shard and size + more > limit:
            yield shard
            shard, size = [], 0
        shard.append(move)
        size += more
    yield shard


def _drawn(moves: Sequence[Move]) -> Iterator[Any]:
    """The tensors of `moves` as they are wanted, each input file open while it is its turn."""
    for file, group in groupby(moves, key=lambda move: move.file):
        with opened(file) as tensors:
            for move in group:
                yield _with_placeholder(move.key, tensors.get(move.key))


def _with_placeholder(key: str, tensor: Any) -> Any:
    """The image placeholder's row, appended where there is one a token.

    Its embedding is never read. Its logit is the mean of all others', so that it is never the highest.
    """
    if key not in (EMBEDDING, HEAD):
        return tensor
    import torch

    row = tensor.mean(0, keepdim=True, dtype=torch.float32).to(tensor.dtype)
    return torch.cat([tensor, row if key == HEAD else torch.zeros_like(row)])


def _provenance(plan: Plan) -> dict[str, Any]:
    """Without times and paths: the same sources give the same bytes, which name the model in a run."""
    return {
        "format": "LLaVA, from GLaMM",
        "sources": {
            role: {
                "name": source.name,
                "commit": source.commit,
                "sha256": {file.name: sha256(file) for file in weight_files(source.folder)},
            }
            for role, source in plan.sources.items()
        },
        "kept": len(plan.moves),
        "dropped": len(plan.dropped),
        "dropped_keys": list(plan.dropped),
    }
