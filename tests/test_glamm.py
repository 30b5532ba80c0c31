"""GLaMM's released layout -> a LLaVA folder: the same weights, damage named before anything is written, whole or not."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.errors import AdapterError, ConfigError, EvalkitError, Unavailable

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402
from tiny_glamm import make_clip, make_glamm, save_shards, sentencepiece_model  # noqa: E402

from model_adapters.glamm import convert  # noqa: E402
from model_adapters.weight_files import write_safetensors  # noqa: E402

pytestmark = pytest.mark.local

RENAMED = (
    ("model.mm_projector.0", "multi_modal_projector.linear_1"),
    ("model.mm_projector.2", "multi_modal_projector.linear_2"),
    ("vision_model.", "vision_tower.vision_model."),
    ("model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The folders of a tiny GLaMM and its CLIP, and all their weights."""
    folder = tmp_path_factory.mktemp("sources")
    weights = make_glamm(folder / "glamm") | make_clip(folder / "clip")
    return folder / "glamm", folder / "clip", weights


def stored(out):
    return {
        key: tensor for path in sorted(out.glob("*.safetensors")) for key, tensor in load_file(path).items()
    }


def renamed(key):
    old, new = next(pair for pair in RENAMED if key.startswith(pair[0]))
    return new + key.removeprefix(old)


def loaded(out):
    from transformers import LlavaForConditionalGeneration

    model, found = LlavaForConditionalGeneration.from_pretrained(out, dtype="auto", output_loading_info=True)
    assert not any(found.values()), found  # missing, unexpected, mismatched, errors
    return model


@pytest.mark.parametrize("shard_bytes", [2 * 10**9, 200_000, 1])
def test_every_weight_arrives_under_its_published_name(sources, tmp_path, shard_bytes):
    glamm, clip, weights = sources
    lines = []
    made = convert(glamm, tmp_path / "out", clip, shard_bytes=shard_bytes, tell=lines.append)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert [line.removeprefix("wrote ") for line in lines] == [path.name for path in files]
    assert (len(files) == 1) == (shard_bytes > 10**9)
    found = stored(tmp_path / "out")
    rows = len(weights["lm_head.weight"])
    dropped = {
        key
        for key in weights
        if any(
            part in key
            for part in ("_encoder", "text_", "visual_", "logit_scale", "inv_freq", "position_ids")
        )
    }
    kept = {renamed(key): tensor for key, tensor in weights.items() if key not in dropped}
    assert found.keys() == kept.keys()
    for key, tensor in kept.items():
        same = found[key][:rows] if "embed_tokens" in key or "lm_head" in key else found[key]
        assert torch.equal(same, tensor), key
    assert (made.kept, made.dropped) == (len(kept), len(dropped))
    provenance = json.loads((tmp_path / "out/conversion.json").read_text())
    assert provenance["dropped_keys"] == sorted(dropped)
    loaded(tmp_path / "out")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_keep_their_precision_and_clip_takes_it(tmp_path, dtype):
    make_glamm(tmp_path / "glamm", dtype=dtype)
    clip = make_clip(tmp_path / "clip")
    convert(tmp_path / "glamm", tmp_path / "out", tmp_path / "clip")
    model = loaded(tmp_path / "out")
    assert model.dtype == dtype
    key = "vision_model.post_layernorm.weight"
    assert torch.equal(stored(tmp_path / "out")[f"vision_tower.{key}"], clip[key].to(dtype))


def test_safetensors_shards_are_read_alike(sources, tmp_path):
    glamm, clip, weights = sources
    other = shutil.copytree(glamm, tmp_path / "glamm", ignore=shutil.ignore_patterns("pytorch_model*"))
    save_shards(other, {k: v for k, v in weights.items() if not k.startswith(CLIP_KEYS)}, 2, safetensors=True)
    convert(glamm, tmp_path / "of_bin", clip)
    convert(other, tmp_path / "of_safetensors", clip)
    ours, theirs = stored(tmp_path / "of_bin"), stored(tmp_path / "of_safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


CLIP_KEYS = ("vision_model.", "text_model.", "visual_projection", "text_projection", "logit_scale")


def test_the_placeholder_is_never_said(sources, tmp_path):
    glamm, clip, weights = sources
    convert(glamm, tmp_path / "out", clip)
    config = json.loads((tmp_path / "out/config.json").read_text())
    head = stored(tmp_path / "out")["language_model.lm_head.weight"]
    assert config["image_token_index"] == len(head) - 1 == len(weights["lm_head.weight"])
    hidden = torch.randn(10_000, head.shape[1], generator=torch.Generator().manual_seed(0))
    logits = hidden @ head.T
    assert (logits[:, -1] < logits[:, :-1].max(1).values).all()
    assert (logits < 0)[:, :-1].any()


def test_same_sources_same_bytes(sources, tmp_path):
    """A run is named after the bytes of its checkpoint: neither time nor place may be among them."""
    glamm, clip, _ = sources
    moved = shutil.copytree(glamm.parent, tmp_path / "elsewhere")
    convert(glamm, tmp_path / "a", clip, shard_bytes=300_000)
    convert(moved / "glamm", tmp_path / "b", moved / "clip", shard_bytes=300_000)
    names = [path.name for path in sorted((tmp_path / "a").iterdir())]
    assert names == [path.name for path in sorted((tmp_path / "b").iterdir())]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


# --- damage -----------------------------------------------------------------------------------------------


def reshard(**changes):
    """Change weights of the checkpoint: a tensor in place of one, or None to leave it out."""

    def apply(glamm, clip):
        files = sorted(glamm.glob("*.bin"))
        weights = {k: v for file in files for k, v in torch.load(file, weights_only=True).items()} | changes
        save_shards(glamm, {k: v for k, v in weights.items() if v is not None}, len(files))

    return apply


def of_clip(**changes):
    def apply(glamm, clip):
        weights = torch.load(clip / "pytorch_model.bin", weights_only=True) | changes
        torch.save({k: v for k, v in weights.items() if v is not None}, clip / "pytorch_model.bin")

    return apply


def edit(name, **changes):
    def apply(glamm, clip):
        path = (glamm.parent if "/" in name else glamm) / name
        content = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return apply


def remove(name):
    return lambda glamm, clip: ((glamm.parent if "/" in name else glamm) / name).unlink()


def write(name, content):
    return lambda glamm, clip: (glamm / name).write_bytes(content)


SHARD = "pytorch_model-00002-of-00003.bin"
SMALL = torch.zeros(3)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (reshard(**{"model.layers.1.mlp.up_proj.weight": None}), AdapterError, "1 weights are missing, model.layers.1.mlp"),
        (reshard(**{"model.mm_projector.2.bias": None}), AdapterError, "missing, model.mm_projector.2.bias among them"),
        (reshard(**{"model.vision_tower.x": SMALL}), AdapterError, "1 weights are not known, model.vision_tower.x"),
        (reshard(**{"model.norm.weight": SMALL}), AdapterError, "model.norm.weight has shape (3,), expected (64,)"),
        (reshard(**{"lm_head.weight": torch.zeros(9, 64)}), AdapterError, "lm_head.weight has shape (9, 64)"),
        (reshard(**{"model.norm.weight": torch.ones(64, dtype=torch.int8)}), AdapterError, "is int8; expected float32"),
        (reshard(**{"model.norm.weight": {"a": SMALL}}), AdapterError, "'model.norm.weight' is no tensor"),
        (of_clip(**{"vision_model.pre_layrnorm.bias": None}), AdapterError, "clip: 1 weights are missing, vision_model.pre"),
        (of_clip(**{"vision_model.head.weight": SMALL}), AdapterError, "clip: 1 weights are not known"),
        (of_clip(**{"vision_model.embeddings.class_embedding": SMALL}), AdapterError, "class_embedding has shape (3,)"),
        (remove(SHARD), Unavailable, f"lacks {SHARD}, which pytorch_model.bin.index.json names"),
        (write(SHARD, b"no zip at all"), AdapterError, f"{SHARD}: is no file of weights and is not loaded"),
        (write(SHARD, b""), AdapterError, f"{SHARD}: cannot be read as weights"),
        (edit("pytorch_model.bin.index.json", weight_map={"a": "../clip/pytorch_model.bin"}), AdapterError, "expected file names"),
        (write("pytorch_model.bin.index.json", b"{"), AdapterError, "not an index of weights"),
        (remove("pytorch_model.bin.index.json"), Unavailable, "holds no weights"),
        (remove("config.json"), Unavailable, "holds no config.json"),
        (write("config.json", b"[1]"), AdapterError, "expected a JSON object, found list"),
        (write("config.json", b"\xff{"), AdapterError, "cannot be read as JSON"),
        (edit("config.json", hidden_size=None), AdapterError, "hidden_size must be a whole number above 0, found None"),
        (edit("config.json", num_attention_heads="2"), AdapterError, "num_attention_heads must be a whole number"),
        (edit("config.json", rope_scaling={"factor": 2}), AdapterError, "rope_scaling is {'factor': 2}"),
        (edit("config.json", mm_vision_select_feature="cls_patch"), AdapterError, "only 'patch' is known"),
        (edit("added_tokens.json", **{"[SEG]": 99}), AdapterError, "the token [SEG] has id 99, GLaMM's has 6"),
        (edit("added_tokens.json", **{"<p>": None}), AdapterError, "the token <p> has id none"),
        (edit("added_tokens.json", **{"<pad>": 700}), AdapterError, "the token <pad> has id 700, GLaMM's has none"),
        (edit("added_tokens.json", **{"<im_start>": "x"}), AdapterError, "the token <im_start> has id x"),
        (remove("added_tokens.json"), AdapterError, "the token <im_start> has id none"),
        (remove("tokenizer.model"), AdapterError, "tokenizer.model: cannot be read"),
        (write("tokenizer.model", sentencepiece_model([("<unk>", 0.0, 2)])), AdapterError, "not a tokenizer as LLaMA has it"),
        (edit("clip/preprocessor_config.json", crop_size=28), AdapterError, "expected a center crop of 56 px, found 28"),
        (edit("clip/preprocessor_config.json", do_center_crop=False), AdapterError, "expected a center crop of 56 px"),
        (edit("clip/config.json", vision_config={"hidden_size": 48}), AdapterError, "intermediate_size must be"),
        (edit("clip/config.json", vision_config=3), AdapterError, "vision_config must be a JSON object"),
        (remove("clip/preprocessor_config.json"), Unavailable, "holds no preprocessor_config.json"),
    ],
)  # fmt: skip
def test_damage_is_named_in_one_line_and_nothing_is_written(sources, tmp_path, damage, error, message):
    shutil.copytree(sources[0].parent, tmp_path / "in")
    glamm, clip = tmp_path / "in/glamm", tmp_path / "in/clip"
    damage(glamm, clip)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error) as caught:
        convert(glamm, tmp_path / "new/out", clip)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("place", ["glamm", "clip"])
def test_a_pickles_code_is_not_run(sources, tmp_path, place):
    shutil.copytree(sources[0].parent, tmp_path / "in")
    ran = tmp_path / "ran"
    file = tmp_path / "in" / place / ("pytorch_model.bin" if place == "clip" else SHARD)
    torch.save(torch.load(file, weights_only=True) | {"model.norm.weight": Payload(ran)}, file)
    with pytest.raises(AdapterError) as caught:
        convert(tmp_path / "in/glamm", tmp_path / "out", tmp_path / "in/clip")
    assert f"{file}: holds more than tensors (posix.system) and is not loaded" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # no advice to run it all the same
    assert not ran.exists()
    assert not (tmp_path / "out").exists()
    torch.load(file, weights_only=False)
    assert ran.exists()  # else the payload would prove nothing


# --- whole or not at all ----------------------------------------------------------------------------------


def test_an_existing_folder_is_left_alone(sources, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="out exists: name a new folder, or delete it first"):
        convert(sources[0], tmp_path / "out", sources[1])
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]


def test_a_full_disk_is_said_before(sources, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(Unavailable, match=r"0.0 GB are free, 0.0 GB are needed"):
        convert(sources[0], tmp_path / "out", sources[1])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt(), OSError(28, "No space left on device"), EvalkitError("x")]
)
def test_a_stop_half_way_leaves_nothing(sources, tmp_path, stop):
    def tell(line):
        raise stop

    with pytest.raises((KeyboardInterrupt, EvalkitError)):
        convert(sources[0], tmp_path / "out", sources[1], shard_bytes=200_000, tell=tell)
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
from pathlib import Path
from model_adapters.glamm import convert
convert({glamm!r}, Path({out!r}), {clip!r}, shard_bytes=200_000, tell=lambda line: os.kill(os.getpid(), signal.{signal}))
"""


def killed(sources, out, signal_name):
    glamm, clip, _ = map(str, sources)
    code = KILLED.format(path=sys.path, glamm=glamm, clip=clip, out=str(out), signal=signal_name)
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)


def test_a_kill_half_way_leaves_nothing_that_passes_for_whole(sources, tmp_path):
    out = tmp_path / "out"
    assert killed(sources, out, "SIGKILL").wait(60) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()  # the half, under a name that no registry entry has
    assert left.name == ".out.partial"
    assert len(list(left.iterdir())) == 1
    (left / "from_another_version.json").write_text("{}")
    convert(sources[0], out, sources[1])
    assert list(tmp_path.iterdir()) == [out]
    assert not (out / "from_another_version.json").exists()
    loaded(out)


def test_two_at_once_do_not_mix(sources, tmp_path):
    process = killed(sources, tmp_path / "out", "SIGSTOP")
    try:
        while Path(f"/proc/{process.pid}/stat").read_text().split(")")[1].split()[0] != "T":
            assert process.poll() is None
        with pytest.raises(AdapterError, match="is being written by another process"):
            convert(sources[0], tmp_path / "out", sources[1])
        assert (tmp_path / ".out.partial").is_dir()  # the other's
    finally:
        process.kill()
        process.wait(60)


# --- memory -----------------------------------------------------------------------------------------------

MEASURED = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
import torch, safetensors, tokenizers
from model_adapters.glamm import convert

def peak_mb():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

before = peak_mb()
convert({glamm!r}, Path({out!r}), {clip!r}, shard_bytes=30 * 2**20)
print(peak_mb() - before)
"""


def test_memory_follows_the_output_files_not_the_model(sources, tmp_path):
    """Layers of 16 MB, output files of 30 MB: four times the layers, in as many shards or in one, the same peak."""
    risen = {}
    for layers, shards in ((3, 3), (12, 12), (12, 1)):
        glamm, out = tmp_path / f"glamm{layers}-{shards}", tmp_path / f"out{layers}-{shards}"
        make_glamm(glamm, shards=shards, size=512, inner=2048, layers=layers)
        code = MEASURED.format(path=sys.path, glamm=str(glamm), clip=str(sources[1]), out=str(out))
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        risen[layers, shards] = float(done.stdout)
        size = sum(path.stat().st_size for path in glamm.glob("*.bin")) / 2**20
        print(f"{shards} shards, {size:.0f} MB in all: {risen[layers, shards]:.0f} MB more at the peak")
    assert size > 190
    assert max(risen.values()) < risen[3, 3] + 16
    assert max(risen.values()) < 60


def test_a_file_of_an_old_torch_is_read_too(sources, tmp_path):
    clip = shutil.copytree(sources[1], tmp_path / "clip")
    weights = torch.load(clip / "pytorch_model.bin", weights_only=True)
    torch.save(weights, clip / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    convert(sources[0], tmp_path / "out", clip)
    assert torch.equal(
        stored(tmp_path / "out")["vision_tower.vision_model.embeddings.class_embedding"],
        weights["vision_model.embeddings.class_embedding"],
    )


def test_a_written_file_is_read_back_by_safetensors(tmp_path):
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(2.5), "c": torch.ones(5, 2).T}
    entries = [(name, tuple(tensor.shape)) for name, tensor in tensors.items()]
    write_safetensors(tmp_path / "ours", entries, "bfloat16", iter(tensors.values()))
    found = load_file(tmp_path / "ours")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor.bfloat16()) for name, tensor in tensors.items())
    save_file({name: tensor.bfloat16().contiguous() for name, tensor in tensors.items()}, tmp_path / "theirs")
    assert (tmp_path / "ours").stat().st_size >= (tmp_path / "theirs").stat().st_size - 64
