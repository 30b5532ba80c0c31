"""A converted GLaMM answers as its own weights do: prompt ids, pixels, logits, words; and through evalkit run."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import cli, cli_json, read_rows

from evalkit.datasets.disk import read_split
from evalkit.errors import AdapterError, ConfigError
from evalkit.prompts import make_prompt
from evalkit.records import Prompt
from evalkit.task import load_task
from model_adapters.families import Glamm, Llava, Qwen25VL, spoken

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_glamm import ADDED, N_VISUAL, SIDE, config, make_clip, make_glamm  # noqa: E402

from model_adapters.glamm import convert  # noqa: E402
from model_adapters.hf_local import HfLocal  # noqa: E402
from model_adapters.tiny import tiny_checkpoint  # noqa: E402

pytestmark = pytest.mark.local

BEFORE = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions. USER: The <im_start>"
)
AFTER = "<im_end> provides an overview of the picture.\n{} ASSISTANT:"
QUESTIONS = (
    "Is node A connected to node B?",
    "How many times do the lines\n\ntouch?",
    "  [SEG] <p>two</p>  words",
    "é",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The sources of a tiny GLaMM with their weights, and the folder made of them."""
    root = tmp_path_factory.mktemp("glamm")
    weights = make_glamm(root / "glamm"), make_clip(root / "clip")
    convert(root / "glamm", root / "converted", root / "clip")
    return root, *weights


@pytest.fixture(scope="module")
def adapter(folders):
    made = HfLocal(folders[0] / "converted", "glamm", device="cpu", batch_size=4)
    yield made
    made.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    assert cli("data", "build", "line_tracing", "--n", 60, "--data", folder).exit_code == 0
    return folder


@pytest.fixture
def prompt(tmp_path):
    def make(text, size_wh=(90, 64)):
        noise = np.random.default_rng(len(text)).integers(0, 255, (*size_wh[::-1], 3), np.uint8)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.png"
        Image.fromarray(noise).save(path)
        return Prompt("s", text, path, size_wh, 16, "")

    return make


@pytest.mark.parametrize("question", QUESTIONS)
def test_prompt_ids_are_tokenized_round_the_image(adapter, prompt, question):
    """GLaMM's own way: both sides by themselves, the second without its BOS."""
    tokenizer, image = adapter.maker.tokenizer, adapter.maker.image_token_id
    before, after = tokenizer(BEFORE).input_ids, tokenizer(AFTER.format(question)).input_ids
    assert before[0] == after[0] == tokenizer.bos_token_id == 1
    expected = [*before, *[image] * N_VISUAL, *after[1:]]
    assert adapter.maker.encode(prompt(question)).input_ids == expected
    assert expected.count(1) == 1
    start = len(tokenizer) - len(ADDED) - 1
    assert before[-1] == start
    assert after[1] == start + 1
    assert tokenizer.convert_ids_to_tokens(after[2]).startswith("▁p")  # the space before it is <im_end>'s


def test_a_question_cannot_spell_the_image(adapter, prompt):
    with pytest.raises(AdapterError, match="holds 2 image placeholders"):
        adapter.maker.encode(prompt("What is <image>?"))


@pytest.mark.parametrize("size_wh", [(90, 64), (64, 91), (56, 56), (300, 40), (31, 33)])
def test_pixels_are_those_of_clips_center_crop(adapter, prompt, size_wh):
    item = prompt("x", size_wh)
    found = adapter.maker.load(adapter.maker.encode(item)).pixel_values
    assert np.abs(found - center_crop(item.image_path)).max() < 1e-6


def center_crop(path):
    """(3, SIDE, SIDE): the shorter side resized to SIDE, the middle, CLIP's mean and deviation."""
    image = Image.open(path).convert("RGB")
    size = tuple(int(SIDE * side / min(image.size)) for side in image.size)
    left, top = ((side - SIDE) // 2 for side in size)
    crop = image.resize(size, Image.Resampling.BICUBIC).crop((left, top, left + SIDE, top + SIDE))
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    return ((np.asarray(crop, np.float64) / 255 - mean) / std).transpose(2, 0, 1)


def logits_by_hand(weights, clip, before, after, pixels):
    """CLIP without its last layer and CLS, Linear-GELU-Linear, between the embeddings of both sides, LLaMA."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

    rows, size = weights["lm_head.weight"].shape
    vision = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, image_size=SIDE, patch_size=14
        )
    ).eval()  # fmt: skip
    of_clip = {k.removeprefix("vision_model."): v for k, v in clip.items() if k.startswith("vision_model.")}
    of_clip.pop("embeddings.position_ids")
    copy_in(vision, of_clip, "vision_model.")
    given = config(rows, size, 128, 2)
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    llama = LlamaForCausalLM(
        LlamaConfig(**{name: given[name] for name in names}, rms_norm_eps=1e-5, max_position_embeddings=2048)
    ).eval()
    outside = ("_encoder", "text_hidden_fcs", "mm_projector", "inv_freq")
    copy_in(llama, {k: v for k, v in weights.items() if not any(part in k for part in outside)})
    functional = torch.nn.functional
    with torch.no_grad():
        seen = vision(pixels, output_hidden_states=True).hidden_states[-2][0, 1:]
        first, second = (
            (weights[f"model.mm_projector.{i}.weight"], weights[f"model.mm_projector.{i}.bias"])
            for i in (0, 2)
        )
        visual = functional.linear(functional.gelu(functional.linear(seen, *first)), *second)
        table = weights["model.embed_tokens.weight"]
        embeds = torch.cat([table[before], visual, table[after[1:]]])[None]
        return llama(inputs_embeds=embeds).logits[0]


def copy_in(model, weights, prefix=""):
    """Every parameter from `weights`, each once; the library may or may not have the prefix."""
    own = {name.removeprefix(prefix): parameter for name, parameter in model.named_parameters()}
    assert own.keys() == weights.keys()
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


@pytest.mark.parametrize("question", QUESTIONS)
def test_logits_are_those_of_its_own_weights(folders, adapter, prompt, question):
    _, weights, clip = folders
    tokenizer = adapter.maker.tokenizer
    before, after = tokenizer(BEFORE).input_ids, tokenizer(AFTER.format(question)).input_ids
    item = adapter.maker.load(adapter.maker.encode(prompt(question)))
    batch = adapter.maker.collate([item])
    with torch.no_grad():
        found = adapter.model(**batch).logits[0]
    expected = logits_by_hand(weights, clip, before, after, batch["pixel_values"])
    assert found.shape == (len(item.input_ids), len(tokenizer))
    print("max difference", float((found[:, :-1] - expected).abs().max()), "of", float(expected.abs().max()))
    assert (found[:, :-1] - expected).abs().max() < 1e-6 * expected.abs().max()
    # the comparison sees what it compares: another image, other logits
    other = logits_by_hand(weights, clip, before, after, batch["pixel_values"].flip(3))
    assert (found[-1, :-1] - other[-1]).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("Yes.", "Yes."),
        ("  Yes.\n", "  Yes.\n"),  # without marks nothing is touched
        ("A<p> dog</p>[SEG] runs.", "A dog runs."),
        ("<p> A dog </p> [SEG]", "A dog"),
        ("It is </p>[SEG]<p>  2", "It is 2"),
        ("[SEG]", ""),
        ("one [SEG]\ntwo", "one \ntwo"),
        ("<p>3</p>4", "3 4"),  # two numbers do not become one
        ("[seg] <b>", "[seg] <b>"),
    ],
)
def test_marks_are_no_words(raw, words):
    assert spoken(Glamm, raw) == words
    assert spoken(Glamm(), raw) == words
    assert spoken(Llava, raw) == spoken(Qwen25VL(), raw) == raw


def test_replies_are_without_marks(adapter, data):
    task = load_task("line_tracing")
    prompts = [
        make_prompt(task, task.variant("glamm"), s) for s in read_split(data, "line_tracing", "test").samples
    ]
    replies = {reply.sample_id: reply for reply in adapter.replies(prompts)}
    assert len(replies) == len(prompts) == 56
    marked = 0
    for prompt in prompts:
        reply = replies[prompt.sample_id]
        tokens = adapter._generate([adapter.maker.load(adapter.maker.encode(prompt))])[0]
        raw = adapter.maker.tokenizer.decode(tokens[: reply.usage["output_tokens"]], skip_special_tokens=True)
        assert reply.text == spoken(Glamm, raw)
        assert not any(mark in reply.text for mark in Glamm.marks)
        marked += reply.text != raw
    assert marked > len(prompts) / 4  # there was something to leave out
    assert len({reply.text for reply in replies.values()}) > 3


@pytest.mark.parametrize(
    ("size_wh", "point_xy_px", "token"),
    [
        # 640 x 480 -> 448 x 336 px, of which 56 px (4 tokens) are cut off on either side: 20 px a token
        ((640, 480), (80, 0), 0),
        ((640, 480), (321, 241), 12 * 24 + 12),
        ((640, 480), (559, 479), 23 * 24 + 23),
        ((480, 640), (0, 80), 0),
        ((336, 336), (15, 29), 2 * 24 + 1),
    ],
)
def test_token_of_a_pixel(size_wh, point_xy_px, token):
    grid = Glamm().grid(size_wh)
    assert (grid.rows, grid.cols) == (24, 24)
    assert grid.token_of(point_xy_px) == token
    assert grid == Llava(layout="crop").grid(size_wh)
    assert grid != Llava().grid(size_wh) or size_wh == (336, 336)


def test_what_is_no_glamm_is_refused_in_one_line(folders, tiny_cache):
    root, _, _ = folders
    for checkpoint, options, error, message in (
        (root / "converted", {"layout": "pad"}, ConfigError, "no layout 'pad' of glamm. Allowed: crop"),
        (
            root / "glamm",
            {},
            AdapterError,
            "is of GLaMMForCausalLM, in its makers' layout. Make a folder of it",
        ),
        (tiny_checkpoint("llava", tiny_cache), {}, AdapterError, "has no <p>: not a glamm checkpoint"),
        (
            tiny_checkpoint("qwen2_5_vl", tiny_cache),
            {},
            AdapterError,
            "says 'qwen2_5_vl', asked for as 'glamm'",
        ),
    ):
        with pytest.raises(error) as caught:
            HfLocal(checkpoint, "glamm", device="cpu", **options)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


# --- the command line -------------------------------------------------------------------------------------


def test_from_release_to_leaderboard(folders, data, tmp_path):
    root, out = folders[0], tmp_path / "checkpoints" / "glamm"
    made = cli_json("convert", "glamm", root / "glamm", out, "--vision-tower", root / "clip")
    assert made == {"out": str(out), "kept": 80, "dropped": 12, "bytes": made["bytes"], "dtype": "float32"}
    assert (out / "config.json").is_file()
    models = tmp_path / "models.yaml"
    entry = {"title": "GLaMM", "adapter": "hf_local", "family": "glamm", "checkpoint": str(out)}
    models.write_text(
        json.dumps({"my-glamm": entry | {"tasks": ["line_tracing"], "runtime": {"device": "cpu"}}})
    )
    where = ["--models", models, "--data", data, "--results", tmp_path / "results"]
    found = cli_json("run", "--model", "my-glamm", "--task", "line_tracing", *where)
    assert (found["n"], found["status"]) == (56, "complete")
    rows = read_rows(found["run"])
    assert {row["answered_by"] for row in rows} == {"glamm"}
    assert not any(mark in row["reply"] for row in rows for mark in Glamm.marks)
    meta = json.loads((Path(found["run"]) / "run.json").read_text())
    assert "crop" in json.dumps(meta)
    again = cli("convert", "glamm", root / "glamm", out, "--vision-tower", root / "clip")
    assert again.exit_code == 1
    assert again.stderr == f"Error: {out} exists: name a new folder, or delete it first.\n"


def test_a_missing_checkpoint_is_one_line(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for source, message in (
        ("./nowhere", "No folder ./nowhere. Expected a folder, or a Hub id owner/name."),
        ("some/where", "some/where: cannot be fetched from the Hub (LocalEntryNotFoundError: "),
    ):
        done = cli("convert", "glamm", source, tmp_path / "out", "--vision-tower", folders[0] / "clip")
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
        assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_hub_is_asked_for_a_pinned_commit_and_no_other_files(folders, tmp_path, monkeypatch):
    asked = []

    def snapshot_download(name, *, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        return str(folders[0] / ("clip" if "clip" in name else "glamm"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    words = ("convert", "glamm", "MBZUAI/GLaMM-FullScope", tmp_path / "out", "--revision", "abc123")
    assert cli(*words).exit_code == 0
    patterns = ["*.json", "*.model", "*.safetensors", "pytorch_model*.bin"]
    assert asked == [
        ("MBZUAI/GLaMM-FullScope", "abc123", patterns),
        ("openai/clip-vit-large-patch14-336", None, patterns),
    ]
    sources = json.loads((tmp_path / "out" / "conversion.json").read_text())["sources"]
    assert sources["checkpoint"]["name"] == "MBZUAI/GLaMM-FullScope"
    assert len(sources["checkpoint"]["sha256"]) == 3
    assert list(sources["vision_tower"]["sha256"]) == ["pytorch_model.bin"]
