"""The transformers adapter on tiny checkpoints: batches answer as single prompts do, failures stay single."""

import json
import shutil
from dataclasses import replace

import pytest
from PIL import Image, ImageDraw

from evalkit.records import Prompt

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from model_adapters.families import messages  # noqa: E402
from model_adapters.hf_local import HfLocal  # noqa: E402
from model_adapters.tiny import TINY_FAMILIES, tiny_checkpoint  # noqa: E402

pytestmark = pytest.mark.local

TEXTS = [
    "Where is it?",
    "How many times do the blue and red lines touch each other?",
    "Is node A connected to node C?",
    "Where is the red square? " * 9,
]
SIZES_WH = [(120, 120), (640, 480), (90, 400), (900, 60), (28, 28), (333, 500)]


def picture(path, size_wh, seed):
    image = Image.new("RGB", size_wh, ("white", "navy", "khaki")[seed % 3])
    draw = ImageDraw.Draw(image)
    width, height = size_wh
    colour = ("red", "green", "black", "orange")[seed % 4]
    draw.rectangle((seed % 5 * width // 8, height // 4, width // 2 + seed, height - 2), fill=colour)
    image.save(path)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """24 prompts: four lengths of text, six sizes of image."""
    folder = tmp_path_factory.mktemp("images")
    made = []
    for i in range(24):
        size_wh, path = SIZES_WH[i % 6], folder / f"{i}.png"
        picture(path, size_wh, i)
        made.append(Prompt(f"s{i}", TEXTS[i % 4 if i < 12 else i // 6], path, size_wh, 24, "0"))
    return made


@pytest.fixture(scope="module")
def adapters(tiny_cache):
    """One adapter a family; tests that change a setting make their own."""
    made = {f: HfLocal(tiny_checkpoint(f, tiny_cache), f, device="cpu") for f in TINY_FAMILIES}
    yield made
    for adapter in made.values():
        adapter.close()


@pytest.fixture(params=TINY_FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def adapter(family, adapters):
    return adapters[family]


@pytest.fixture
def copy(family, tiny_cache, tmp_path):
    """A copy of the family's checkpoint, to be damaged."""
    return shutil.copytree(tiny_checkpoint(family, tiny_cache), tmp_path / f"my-{family}")


def answers(adapter, prompts):
    replies = list(adapter.replies(prompts))
    assert sorted(r.sample_id for r in replies) == sorted(p.sample_id for p in prompts)  # each once
    return {r.sample_id: (r.text, r.finish_reason, r.error, dict(r.usage)) for r in replies}


def test_batches_answer_as_single_prompts_do(family, adapter, prompts, tiny_cache):
    one_by_one = HfLocal(tiny_checkpoint(family, tiny_cache), family, device="cpu", batch_size=1)
    together = answers(adapter, prompts)
    assert together == answers(one_by_one, prompts)
    assert together == answers(adapter, prompts[::-1])
    lengths = {usage["input_tokens"] for *_, usage in together.values()}
    assert len(lengths) >= 4  # there was something to pad


def test_replies_differ_and_end(adapter, prompts):
    replies = list(adapter.replies([replace(p, max_new_tokens=32) for p in prompts]))
    assert len({r.text for r in replies}) >= 8
    assert sum(r.finish_reason == "stop" for r in replies) >= 8
    one_text = list(adapter.replies([replace(p, text=TEXTS[1]) for p in prompts]))
    assert len({r.text for r in one_text}) >= 3  # the image alone makes a difference


def test_what_a_reply_says(family, adapter, prompts, tiny_cache):
    eos = {"llava": "</s>", "qwen2_5_vl": "<|im_end|>"}[family]
    tokenizer = adapter.maker.tokenizer
    finish_reasons = set()
    for reply in adapter.replies(prompts):
        finish_reasons.add(reply.finish_reason)
        assert reply.answered_by == tiny_checkpoint(family, tiny_cache).name
        assert reply.latency_s > 0
        assert reply.error is None
        assert eos not in reply.text
        if reply.finish_reason == "length":
            assert reply.usage["output_tokens"] == 24
        else:  # EOS is counted, not shown
            assert reply.usage["output_tokens"] == len(tokenizer.tokenize(reply.text)) + 1
    assert finish_reasons == {"stop", "length"}


def test_each_prompt_has_its_own_limit(adapter, prompts):
    limits = {p.sample_id: 1 + i % 3 for i, p in enumerate(prompts)}
    cut = answers(adapter, [replace(p, max_new_tokens=limits[p.sample_id]) for p in prompts])
    for sample_id, (text, finish_reason, _, usage) in answers(adapter, prompts).items():
        cut_text, cut_reason, _, cut_usage = cut[sample_id]
        assert text.startswith(cut_text)
        assert cut_usage["output_tokens"] == min(limits[sample_id], usage["output_tokens"])
        ended = finish_reason == "stop" and usage["output_tokens"] <= limits[sample_id]
        assert cut_reason == ("stop" if ended else "length")


class Noting(HfLocal):
    """Notes (max_new_tokens, length) of every prompt of every batch."""

    def _generate(self, items):
        self.seen = [*getattr(self, "seen", []), [(i.prompt.max_new_tokens, len(i.input_ids)) for i in items]]
        return super()._generate(items)


def test_batches_hold_neighbours_in_length(prompts, tiny_cache):
    adapter = Noting(tiny_checkpoint("qwen2_5_vl", tiny_cache), "qwen2_5_vl", device="cpu", batch_size=5)
    list(adapter.replies([replace(p, max_new_tokens=3 + i % 2) for i, p in enumerate(prompts)]))
    assert [len(batch) for batch in adapter.seen] == [5, 5, 2, 5, 5, 2]  # 12 prompts of each limit
    flat = [entry for batch in adapter.seen for entry in batch]
    assert flat == sorted(flat, reverse=True)


def test_nothing_asked_nothing_answered(adapter):
    assert list(adapter.replies([])) == []


def test_the_caller_may_stop_early(adapter, prompts):
    replies = adapter.replies(prompts)
    next(replies)
    replies.close()
    assert len(list(adapter.replies(prompts[:2]))) == 2


def test_decoding_is_ours_not_the_checkpoints(family, adapter, prompts, copy):
    stored = json.loads((copy / "generation_config.json").read_text())
    wild = {"do_sample": True, "temperature": 1.7, "top_k": 3, "repetition_penalty": 5.0, "num_beams": 2}
    (copy / "generation_config.json").write_text(
        json.dumps({**stored, **wild, "no_repeat_ngram_size": 1, "min_new_tokens": 20, "max_length": 5})
    )
    assert answers(HfLocal(copy, family, device="cpu"), prompts) == answers(adapter, prompts)


def test_eos_from_the_tokenizer_when_nothing_else_names_it(family, adapter, prompts, copy):
    (copy / "generation_config.json").unlink()
    config = json.loads((copy / "config.json").read_text())
    del config["text_config"]["eos_token_id"]
    (copy / "config.json").write_text(json.dumps({**config}))
    assert answers(HfLocal(copy, family, device="cpu"), prompts) == answers(adapter, prompts)


def test_failures_stay_single(adapter, prompts, tmp_path):
    image_token = adapter.maker.family.image_token
    (tmp_path / "text.png").write_text("no image")
    whole = prompts[1].image_path.read_bytes()
    (tmp_path / "torn.png").write_bytes(whole[: len(whole) // 2])
    bad = {
        "absent": (replace(prompts[0], image_path=tmp_path / "absent.png"), "cannot be opened"),
        "text": (replace(prompts[0], image_path=tmp_path / "text.png"), "cannot be opened"),
        "torn": (replace(prompts[1], image_path=tmp_path / "torn.png"), "cannot be opened"),
        "size": (replace(prompts[0], image_size_wh=(121, 120)), "is 120 x 120 px, its sample says 121 x 120"),
        "token": (replace(prompts[0], text=f"What is {image_token}?"), "holds 2 image placeholders"),
    }
    asked = [replace(prompt, sample_id=name) for name, (prompt, _) in bad.items()]
    replies = {r.sample_id: r for r in adapter.replies([*prompts[:5], *asked, *prompts[5:]])}
    assert len(replies) == len(prompts) + len(bad)
    for name, (_, message) in bad.items():
        reply = replies.pop(name)
        assert (reply.text, reply.finish_reason) == (None, "error")
        assert message in reply.error
        assert "\n" not in reply.error
    assert {r.sample_id: r.text for r in replies.values()} == {
        sample_id: text for sample_id, (text, *_) in answers(adapter, prompts).items()
    }


@pytest.mark.parametrize(
    ("mode", "colour"),
    [("L", 200), ("RGBA", (200, 200, 200, 255)), ("P", 0), ("1", 1), ("CMYK", (0, 0, 0, 55))],
)
def test_other_image_modes(adapters, tmp_path, mode, colour):
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    image = Image.new(mode, (40, 30), colour)
    image.save(path, **({"transparency": b"\x80"} if mode == "P" else {}))
    (reply,) = adapters["llava"].replies([Prompt("s", "What?", path, (40, 30), 4, "0")])
    assert reply.error is None


def test_qwen_refuses_slivers_singly(adapters, tmp_path):
    Image.new("RGB", (201, 1)).save(tmp_path / "sliver.png")
    sliver = Prompt("sliver", "What?", tmp_path / "sliver.png", (201, 1), 4, "0")
    (reply,) = adapters["qwen2_5_vl"].replies([sliver])
    assert "aspect ratios up to 200" in reply.error


class Cramped(HfLocal):
    """A device with room for three prompts, and for none that is longer than `longest`."""

    longest = 10_000

    def _generate(self, items):
        if len(items) > 3 or len(items[0].input_ids) > self.longest:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super()._generate(items)


def test_out_of_memory_halves_the_batch(family, adapter, prompts, tiny_cache, caplog):
    cramped = Cramped(tiny_checkpoint(family, tiny_cache), family, device="cpu", batch_size=8)
    assert answers(cramped, prompts) == answers(adapter, prompts)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2  # 8 -> 4 -> 2, and then it stays there
    assert said[0].endswith("out of memory, going on in batches of 4")
    assert said[1].endswith("out of memory, going on in batches of 2")


def test_one_prompt_too_long_for_the_device(adapters, prompts, tiny_cache):
    cramped = Cramped(tiny_checkpoint("llava", tiny_cache), "llava", device="cpu")
    cramped.longest = 100
    for sample_id, (text, _, error, _) in answers(cramped, prompts).items():
        expected = answers(adapters["llava"], [p for p in prompts if p.sample_id == sample_id])
        if expected[sample_id][3]["input_tokens"] > 100:
            assert text is None
            assert "out of memory on cpu" in error
        else:
            assert text == expected[sample_id][0]


def official_processor(family, folder):
    if family == "qwen2_5_vl":
        try:
            import torchvision  # noqa: F401 - what the processor's video part imports
        except (ImportError, RuntimeError) as error:
            pytest.skip(f"Qwen2.5-VL's combined processor needs torchvision: {error}")
    processor = transformers.AutoProcessor.from_pretrained(folder)
    processor.image_processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    return processor


def test_inputs_are_those_of_the_official_processor(family, adapter, tiny_cache, prompts):
    processor = official_processor(family, tiny_checkpoint(family, tiny_cache))
    maker = adapter.maker
    # LLaVA's would crop what is not square; we pad
    for prompt in [p for p in prompts if family == "qwen2_5_vl" or len(set(p.image_size_wh)) == 1]:
        chat = messages(maker.family, prompt.text)
        text = processor.apply_chat_template(chat, add_generation_prompt=True)
        theirs = processor(text=[text], images=[Image.open(prompt.image_path)], return_tensors="pt")
        ours = maker.collate([maker.load(maker.encode(prompt))])
        assert theirs.keys() == ours.keys()
        for name, tensor in ours.items():
            assert torch.equal(tensor, theirs[name]), name


def test_llava_prompt_begins_with_bos_once(adapters, prompts):
    maker = adapters["llava"].maker
    ids = maker.encode(prompts[0]).input_ids
    assert ids[0] == maker.tokenizer.bos_token_id
    assert ids.count(maker.tokenizer.bos_token_id) == 1
    assert ids.count(maker.image_token_id) == 16
    shown = maker.tokenizer.decode([i for i in ids if i != maker.image_token_id])
    assert shown.startswith("<s>A chat between a curious user and")
    assert shown.endswith("questions. USER: \nWhere is it? ASSISTANT:")


def test_a_template_that_writes_bos_itself(adapters, prompts, tiny_cache, tmp_path):
    folder = shutil.copytree(tiny_checkpoint("llava", tiny_cache), tmp_path / "copy")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text("{{- bos_token -}}" + template)
    adapter = HfLocal(folder, "llava", device="cpu")
    expected = adapters["llava"].maker.encode(prompts[0]).input_ids
    assert adapter.maker.encode(prompts[0]).input_ids == expected


def test_older_repositories_keep_their_template_in_json(family, adapter, copy, prompts):
    template = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").unlink()
    (copy / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    older = HfLocal(copy, family, device="cpu")
    assert older.maker.encode(prompts[0]) == adapter.maker.encode(prompts[0])


def test_qwen_positions_are_two_dimensional(adapters, prompts):
    """Visual tokens of a left-padded row stand at (t, row, column); text goes on after the larger side."""
    adapter = adapters["qwen2_5_vl"]
    maker = adapter.maker
    wide, long = prompts[1], prompts[3]  # 640 x 480 -> 3 x 4 tokens in at most 16
    items = [maker.load(maker.encode(prompt)) for prompt in (wide, long)]
    batch = maker.collate(items)
    padding = len(items[1].input_ids) - len(items[0].input_ids)
    assert padding > 0
    assert batch["attention_mask"][0].tolist() == [0] * padding + [1] * len(items[0].input_ids)
    visual = batch["input_ids"] == maker.image_token_id
    assert batch["mm_token_type_ids"].tolist() == visual.long().tolist()
    assert visual[0].sum() == 12
    names = ("input_ids", "image_grid_thw", "attention_mask", "mm_token_type_ids")
    positions, _ = adapter.model.model.get_rope_index(**{name: batch[name] for name in names})
    start = int(visual[0].nonzero()[0]) - padding
    t, row, col = positions[:, 0, visual[0]] - start
    assert t.tolist() == [0] * 12
    assert row.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert col.tolist() == [0, 1, 2, 3] * 3
    after = positions[:, 0, int(visual[0].nonzero()[-1]) + 1]
    assert after.tolist() == [start + 4] * 3


def test_qwen_pixel_limits_replace_the_checkpoints(tiny_cache, prompts):
    folder = tiny_checkpoint("qwen2_5_vl", tiny_cache)
    adapter = HfLocal(folder, "qwen2_5_vl", device="cpu", min_pixels=784 * 30, max_pixels=784 * 40)
    described = adapter.describe()
    assert (described["min_pixels"], described["max_pixels"]) == ("23520", "31360")
    (reply,) = adapter.replies([prompts[0]])  # 120 x 120 -> 168 x 168: 6 x 6 tokens
    assert len(adapter.maker.encode(prompts[0]).input_ids) == reply.usage["input_tokens"]
    assert adapter.maker.encode(prompts[0]).input_ids.count(adapter.maker.image_token_id) == 36


def test_describe(family, adapter, tiny_cache):
    described = adapter.describe()
    assert described["checkpoint"] == tiny_checkpoint(family, tiny_cache).name
    assert described["torch"] == torch.__version__
    assert described["transformers"] == transformers.__version__
    assert (described["device"], described["dtype"], described["threads"]) == ("cpu", "float32", "1")
    assert all(isinstance(value, str) for value in described.values())


def test_dtype_is_cast(family, tiny_cache, prompts):
    adapter = HfLocal(tiny_checkpoint(family, tiny_cache), family, dtype="bfloat16", device="cpu")
    assert adapter.describe()["dtype"] == "bfloat16"
    assert all(r.error is None for r in adapter.replies(prompts[:3]))


def test_threads_are_given_back(tiny_cache):
    before = torch.get_num_threads()
    adapter = HfLocal(tiny_checkpoint("llava", tiny_cache), "llava", device="cpu")
    assert torch.get_num_threads() == 1
    adapter.close()
    assert torch.get_num_threads() == before
