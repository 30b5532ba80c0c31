"""The Molmo adapter against a stand-in checkpoint: remote code of our own in Molmo's interface (molmo_stand_in).

The released code and weights are not at hand where tests run; what is tested is the adapter's side of that interface:
consent, the gaps to transformers 5, the processor's call, the cached greedy loop, padding, resizing, failures.
"""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from molmo_stand_in import make_checkpoint
from pictures import make_prompts
from PIL import Image
from support import cli, cli_json, read_rows

from evalkit.errors import AdapterError, ConfigError, Unavailable
from evalkit.records import Prompt

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from model_adapters import molmo_resize  # noqa: E402
from model_adapters.molmo import Molmo  # noqa: E402

pytestmark = pytest.mark.local

TEXTS = ["Point to the dog.", "Is node A connected to node C?", "How many times do the lines cross?" * 4]
SIZES_WH = [(120, 120), (64, 48), (90, 400), (300, 60)]  # 2 crops, or 3 where wider than high


@pytest.fixture(autouse=True, scope="module")
def _code_cache(tmp_path_factory):
    """Where transformers copies remote code to, away from the user's."""
    folder = str(tmp_path_factory.mktemp("modules"))
    patch = pytest.MonkeyPatch()
    patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", folder)
    patch.syspath_prepend(folder)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "molmo")


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "my-molmo")


def load(folder, kind=Molmo, **settings):
    return kind(folder, device="cpu", trust_remote_code=True, **settings)


@pytest.fixture(scope="module")
def adapter(checkpoint, _code_cache):
    made = load(checkpoint)
    yield made
    made.close()


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """12 prompts: three lengths of text, four sizes of image."""
    folder = tmp_path_factory.mktemp("images")
    return make_prompts(folder, 12, texts=TEXTS, sizes_wh=SIZES_WH, max_new_tokens=16)


def answers(adapter, prompts):
    replies = list(adapter.replies(prompts))
    assert sorted(r.sample_id for r in replies) == sorted(p.sample_id for p in prompts)  # each once
    return {r.sample_id: (r.text, r.finish_reason, r.error, dict(r.usage)) for r in replies}


def uncached(adapter, prompt):
    """The new tokens of one prompt, everything computed again at every step: no cache, no padding."""
    item = adapter.maker.load(adapter.maker.encode(prompt))
    batch, ids, new = adapter.maker.collate([item]), list(item.input_ids), []
    for _ in range(prompt.max_new_tokens):
        row = torch.tensor([ids])
        with torch.inference_mode():
            out = adapter.model(
                **{**batch, "input_ids": row},
                attention_mask=torch.ones_like(row),
                position_ids=torch.arange(len(ids))[None],
                return_dict=True,
            )
        new.append(int(out.logits[0, -1].argmax()))
        ids.append(new[-1])
        if new[-1] == adapter.maker.tokenizer.eos_token_id:
            break
    return new


def test_the_loop_answers_as_without_a_cache(adapter, prompts):
    for prompt in prompts:
        (tokens,) = adapter._generate([adapter.maker.load(adapter.maker.encode(prompt))])
        assert tokens == uncached(adapter, prompt)


def test_batches_answer_as_single_prompts_do(adapter, checkpoint, prompts):
    together = answers(load(checkpoint, batch_size=5), prompts)
    assert together == answers(adapter, prompts)
    items = [adapter.maker.load(adapter.maker.encode(p)) for p in prompts[:5]]
    assert len({len(i.input_ids) for i in items}) > 1  # there was something to pad
    assert {len(i.images) for i in items} == {2, 3}
    assert {reason for _, reason, _, _ in together.values()} == {"stop", "length"}  # rows end on their own
    assert len({text for text, *_ in together.values()}) >= 8


def test_collate_pads_behind_with_minus_one(adapter, prompts):
    two, three = (adapter.maker.load(adapter.maker.encode(prompts[i])) for i in (0, 1))
    batch = adapter.maker.collate([two, three])
    assert batch["input_ids"].shape == (2, max(len(two.input_ids), len(three.input_ids)))
    shorter = min((two, three), key=lambda item: len(item.input_ids))
    row = batch["input_ids"][0 if shorter is two else 1]
    assert row.tolist() == shorter.input_ids + [-1] * (len(row) - len(shorter.input_ids))
    assert batch["images"].shape == (2, 3, 4, 588)
    assert (batch["images"][0, 2] == -1).all()
    assert (batch["image_masks"][0, 2] == -1).all()
    assert (batch["image_input_idx"][0, 2] == -1).all()
    assert (batch["image_input_idx"][1, 2] >= 0).any()


def test_prompt_layout(adapter, prompts):
    item = adapter.maker.load(adapter.maker.encode(prompts[1]))
    text = adapter.maker.tokenizer.decode(item.input_ids)
    crop = "<im_start>" + "<im_patch>" * 4 + "<im_end>"
    assert text == "<|endoftext|>" + crop * 3 + " User: Is node A connected to node C? Assistant:"
    at = item.places[item.places >= 0]
    assert len(at) == 11  # one patch of the last crop has no token
    patch_id = adapter.maker.tokenizer.convert_tokens_to_ids("<im_patch>")
    assert {item.input_ids[i] for i in at} == {patch_id}


def test_the_image_is_not_turned_by_exif(adapter, tmp_path):
    """Annotations are in stored pixels: an orientation tag must change nothing."""
    image = Image.new("RGB", (80, 40), "red")
    image.paste("blue", (0, 0, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "turned.png", exif=exif)
    made = [
        adapter.maker.load(adapter.maker.encode(Prompt("s", "?", tmp_path / name, (80, 40), 4, "0")))
        for name in ("plain.png", "turned.png")
    ]
    assert np.array_equal(made[0].images, made[1].images)
    assert made[0].images.shape[0] == 3  # wider than high still


def test_what_a_reply_says(adapter, checkpoint, prompts):
    for reply in adapter.replies(prompts):
        assert (reply.answered_by, reply.error) == (checkpoint.name, None)
        assert reply.text == reply.text.strip()
        assert "<|endoftext|>" not in reply.text
        assert "Assistant" not in reply.text
        assert reply.finish_reason == "stop" or reply.usage["output_tokens"] == 16
        assert reply.usage["input_tokens"] > 13  # the image's tokens are counted


def test_without_consent_nothing_runs(copy, tmp_path):
    for path in copy.glob("*.py"):
        path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(Unavailable) as caught:
        Molmo(copy, device="cpu")
    assert str(caught.value) == (
        f"my-molmo: loading it runs Python files of {copy} on this machine; read them, then allow it with "
        "--trust-remote-code."
    )
    assert not (tmp_path / "ran").exists()


def test_consent_names_whose_code_it_is(copy):
    edit(copy / "config.json", auto_map={"AutoConfig": "allenai/other--config_molmo.MolmoConfig"})
    with pytest.raises(Unavailable, match="my-molmo: loading it runs Python files of allenai/other on this"):
        Molmo(copy)
    with pytest.raises(Unavailable, match="runs Python files of allenai/Molmo-7B-D-0924 on this machine"):
        Molmo("allenai/Molmo-7B-D-0924")  # said without asking the network


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def swap(name, before, after):
    def apply(folder):
        text = (folder / name).read_text()
        assert before in text
        (folder / name).write_text(text.replace(before, after))

    return apply


def drop_a_weight(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.patches.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (
            lambda f: edit(f / "config.json", model_type="molmo2"),
            AdapterError,
            "says 'molmo2', asked for as 'molmo'",
        ),
        (
            lambda f: edit(f / "config.json", auto_map={}),
            AdapterError,
            "names no code for AutoModelForCausal",
        ),
        (lambda f: (f / "config.json").write_text("{"), AdapterError, "its config cannot be loaded"),
        (lambda f: (f / "modeling_molmo.py").unlink(), Unavailable, "its model code cannot be loaded"),
        (lambda f: (f / "model.safetensors").unlink(), Unavailable, "its weights cannot be loaded"),
        (drop_a_weight, AdapterError, "1 weights are missing or of another shape, model.patches.weight"),
        (
            swap(
                "image_preprocessing_molmo.py", "import numpy as np", "import numpy as np\nimport no_such_pkg"
            ),
            Unavailable,
            "no_such_pkg",
        ),
    ],
)
def test_damaged_checkpoint_in_one_line(copy, damage, error, message):
    damage(copy)
    with pytest.raises(error) as caught:
        load(copy)
    assert message in str(caught.value)
    assert "my-molmo" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "int8"}, "Allowed: auto, float32, bfloat16, float16"),
        ({"batch_size": 0}, "batch_size is 0; it must be 1 or more"),
        ({"device": "gpu"}, "Allowed: auto, cpu, cuda, cuda:N"),
    ],
)
def test_wrong_settings_in_one_line(checkpoint, settings, message):
    with pytest.raises(ConfigError) as caught:
        Molmo(checkpoint, trust_remote_code=True, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_prompt_layout_is_refused(copy, prompts):
    swap("preprocessing_molmo.py", "User: {text} Assistant:", "Q: {text} A:")(copy)
    (reply,) = load(copy).replies(prompts[:1])
    assert (reply.text, reply.finish_reason) == (None, "error")
    assert "does not end the prompt in ' User: {question} Assistant:'" in reply.error


def test_failures_stay_single(adapter, prompts, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    bad = {
        "absent": (replace(prompts[0], image_path=tmp_path / "absent.png"), "cannot be opened"),
        "text": (replace(prompts[0], image_path=tmp_path / "text.png"), "cannot be opened"),
        "size": (replace(prompts[0], image_size_wh=(121, 120)), "is 120 x 120 px, its sample says 121 x 120"),
    }
    asked = [replace(prompt, sample_id=name) for name, (prompt, _) in bad.items()]
    replies = {r.sample_id: r for r in adapter.replies([*prompts[:5], *asked, *prompts[5:]])}
    for name, (_, message) in bad.items():
        reply = replies.pop(name)
        assert (reply.text, reply.finish_reason) == (None, "error")
        assert message in reply.error
    assert {k: r.text for k, r in replies.items()} == {k: v[0] for k, v in answers(adapter, prompts).items()}


class Cramped(Molmo):
    """A device with room for two prompts."""

    def _generate(self, items):
        if len(items) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super()._generate(items)


def test_out_of_memory_halves_the_batch(adapter, checkpoint, prompts, caplog):
    assert answers(load(checkpoint, Cramped, batch_size=4), prompts) == answers(adapter, prompts)
    said = [r.getMessage() for r in caplog.records if r.name.startswith("model_adapters")]
    assert [line.rsplit(" ", 1)[1] for line in said] == ["2"]


def test_half_precision_answers(checkpoint, prompts):
    adapter = load(checkpoint, dtype="bfloat16")
    assert adapter.describe()["dtype"] == "bfloat16"
    assert all(r.error is None and r.text for r in adapter.replies(prompts[:4]))


def test_describe(adapter, checkpoint):
    described = adapter.describe()
    assert (described["checkpoint"], described["code"]) == (checkpoint.name, checkpoint.name)
    assert (described["engine"], described["dtype"]) == ("transformers", "float32")
    assert described["resize"] == ("tensorflow" if molmo_resize.has_tensorflow() else "torch")


ENTRY = """
stand-in:
  adapter: local
  family: molmo
  checkpoint: {checkpoint}
  frame: {{kind: percent}}
  runtime: {{device: cpu}}
"""


def test_a_run_from_images_to_rows(checkpoint, tmp_path):
    """Grid Patch in Molmo's own wording and frame; refused without the flag, asked, parsed and stored with it."""
    (tmp_path / "models.yaml").write_text(ENTRY.format(checkpoint=checkpoint))
    assert cli("data", "build", "grid_patch", "--n", 16, "--data", tmp_path).exit_code == 0
    places = ("--data", tmp_path, "--results", tmp_path / "results", "--models", tmp_path / "models.yaml")
    run = ("run", "--model", "stand-in", "--task", "grid_patch", "--engine", "hf_local", *places)
    refused = cli(*run)
    assert refused.exit_code == 1
    assert "allow it with --trust-remote-code" in refused.stderr
    assert not list((tmp_path / "results").rglob("*.json*"))
    document = cli_json(*run, "--trust-remote-code")
    assert document["status"] == "complete"
    rows = read_rows(document["run"])
    assert len({row["sample_id"] for row in rows}) == len(rows) == document["n"] > 1
    assert all(row["reply"] for row in rows)
