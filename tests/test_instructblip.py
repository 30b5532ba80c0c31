"""The InstructBLIP adapter on a tiny checkpoint: LAVIS's decoding, batches that answer as single prompts do."""

from dataclasses import replace

import pytest
from pictures import TEXTS, make_prompts
from PIL import Image
from support import cli, cli_json, read_rows

from evalkit.records import Prompt

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from model_adapters.instructblip import VQA_FORMAT, InstructBlip  # noqa: E402
from model_adapters.tiny import tiny_checkpoint  # noqa: E402
from model_adapters.tiny_instructblip import N_VISUAL  # noqa: E402

pytestmark = pytest.mark.local


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """24 prompts: four lengths of text, six sizes of image."""
    return make_prompts(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def checkpoint(tiny_cache):
    return tiny_checkpoint("instructblip", tiny_cache)


@pytest.fixture(scope="module")
def adapter(checkpoint):
    made = InstructBlip(checkpoint, device="cpu")
    yield made
    made.close()


def answers(adapter, prompts):
    replies = list(adapter.replies(prompts))
    assert sorted(r.sample_id for r in replies) == sorted(p.sample_id for p in prompts)  # each once
    return {r.sample_id: (r.text, r.finish_reason, r.error, dict(r.usage)) for r in replies}


def official_inputs(adapter, checkpoint, prompt):
    """What transformers' own InstructBlipProcessor makes, around the adapter's image processor."""
    from transformers.models.instructblip.processing_instructblip import InstructBlipProcessor

    load = transformers.AutoTokenizer.from_pretrained
    processor = InstructBlipProcessor(
        transformers.AutoImageProcessor.from_pretrained(checkpoint, backend="pil"),
        load(checkpoint),
        load(checkpoint, subfolder="qformer_tokenizer"),
        num_query_tokens=N_VISUAL,
    )
    image = Image.open(prompt.image_path)
    return processor(images=image, text=VQA_FORMAT.format(prompt.text), return_tensors="pt")


def test_the_inputs_are_the_official_processors(adapter, checkpoint, prompts):
    for prompt in prompts:
        ours = adapter.maker.collate([adapter.maker.load(adapter.maker.encode(prompt))])
        theirs = official_inputs(adapter, checkpoint, prompt)
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            assert tensor.equal(theirs[name]), name


def test_prompt_layout(adapter, prompts):
    """By hand: the visual tokens, `</s>` as BOS, then the question in its format."""
    encoded = adapter.maker.encode(prompts[2])
    tokenizer = adapter.maker.tokenizer
    image_id = adapter.model.config.image_token_index
    assert tokenizer.decode([image_id]) == "<image>"
    assert encoded.input_ids[: N_VISUAL + 1] == [image_id] * N_VISUAL + [tokenizer.eos_token_id]
    text = "Question: Is node A connected to node C? Short Answer:"
    assert tokenizer.decode(encoded.input_ids[N_VISUAL + 1 :]) == text
    qformer = transformers.AutoTokenizer.from_pretrained(
        adapter.model.name_or_path, subfolder="qformer_tokenizer"
    )
    read = qformer.convert_ids_to_tokens(encoded.qformer_ids)
    assert (read[0], read[-1]) == ("[CLS]", "[SEP]")
    assert "connected" in read  # whole words of the tasks; lowercased
    assert "a" in read


def test_the_qformer_reads_the_end_of_a_long_prompt(adapter, prompts):
    """128 tokens at most, [CLS] and [SEP] among them; the language model reads all of it."""
    encoded = adapter.maker.encode(replace(prompts[0], text="Where is the dog? " * 60 + "Point to the car."))
    assert len(encoded.qformer_ids) == 128
    qformer = adapter.maker._qformer
    tokens = qformer.convert_ids_to_tokens(encoded.qformer_ids)
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    read = "".join(token.removeprefix("##") for token in tokens[1:-1])
    assert read.endswith("pointtothecar.shortanswer:")
    assert "question" not in read  # the beginning is cut off
    assert "Point to the car." in adapter.maker.tokenizer.decode(encoded.input_ids)
    assert len(encoded) > 60 * 4


def test_the_image_is_squashed_not_cropped(adapter, tmp_path):
    """The left half red, the right half blue: in a 4 : 1 image both halves stay."""
    image = Image.new("RGB", (400, 100), "red")
    image.paste("blue", (200, 0, 400, 100))
    image.save(tmp_path / "halves.png")
    prompt = Prompt("s", "Where is it?", tmp_path / "halves.png", (400, 100), 8, "0")
    pixels = adapter.maker.load(adapter.maker.encode(prompt)).pixel_values
    assert pixels.shape == (3, 56, 56)
    red, _, blue = pixels.mean(axis=1)  # (3, width)
    assert (red[:26] > 1).all()
    assert (red[30:] < -1).all()
    assert (blue[30:] > 1).all()


def test_batches_answer_as_single_prompts_do(adapter, checkpoint, prompts):
    one_by_one = InstructBlip(checkpoint, device="cpu", batch_size=1)
    together = answers(adapter, prompts)
    assert together == answers(one_by_one, prompts)
    assert together == answers(adapter, prompts[::-1])
    assert len({usage["input_tokens"] for *_, usage in together.values()}) == 4  # there was something to pad


def test_padding_changes_no_logits(adapter, prompts):
    """Left padding of the prompt and right padding of the Q-Former's text, against none."""
    items = [adapter.maker.load(adapter.maker.encode(p)) for p in prompts[:4]]
    with torch.inference_mode():
        padded = adapter.model(**adapter.maker.collate(items)).logits[:, -1]
        alone = [adapter.model(**adapter.maker.collate([item])).logits[0, -1] for item in items]
    assert len({len(i.qformer_ids) for i in items}) == 4
    assert torch.allclose(padded, torch.stack(alone), atol=1e-5)


def test_replies_differ_and_end(adapter, prompts):
    replies = list(adapter.replies([replace(p, max_new_tokens=32) for p in prompts]))
    assert len({r.text for r in replies}) >= 8
    assert sum(r.finish_reason == "stop" for r in replies) >= 8
    assert all(r.text for r in replies)
    one_text = list(adapter.replies([replace(p, text=TEXTS[1]) for p in prompts]))
    assert len({r.text for r in one_text}) >= 3  # the image alone makes a difference


def test_what_a_reply_says(adapter, checkpoint, prompts):
    finish_reasons = set()
    for reply in adapter.replies(prompts):
        finish_reasons.add(reply.finish_reason)
        assert (reply.answered_by, reply.error) == (checkpoint.name, None)
        assert reply.latency_s > 0
        assert reply.text == reply.text.strip()
        assert "</s>" not in reply.text
        assert "Question" not in reply.text  # the prompt is sliced off
        assert reply.finish_reason == "stop" or reply.usage["output_tokens"] == 24
    assert finish_reasons == {"stop", "length"}


def test_an_answer_ends_at_its_eos(adapter, prompts):
    item = adapter.maker.load(adapter.maker.encode(prompts[0]))
    tokenizer = adapter.maker.tokenizer
    yes, no = tokenizer(" Yes No", add_special_tokens=False).input_ids
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    table = [
        ([yes, no, eos, pad], ("Yes No", "stop", 3)),  # the EOS is counted, not shown
        ([yes, no], ("Yes No", "length", 2)),
        ([eos, pad, pad], ("", "stop", 1)),
        ([yes, eos, no], ("Yes", "stop", 2)),
    ]
    for new, expected in table:
        reply = adapter._reply(item, new, 0.5)
        assert (reply.text, reply.finish_reason, reply.usage["output_tokens"]) == expected
        assert reply.usage["input_tokens"] == len(item.input_ids)


def test_each_prompt_has_its_own_limit(adapter, prompts):
    limits = {p.sample_id: 1 + i % 3 for i, p in enumerate(prompts)}
    cut = answers(adapter, [replace(p, max_new_tokens=limits[p.sample_id]) for p in prompts])
    for sample_id, (_, finish_reason, _, usage) in cut.items():
        assert usage["output_tokens"] <= limits[sample_id]
        assert finish_reason == "stop" or usage["output_tokens"] == limits[sample_id]
    assert {reason for _, reason, _, _ in cut.values()} >= {"length"}


def test_failures_stay_single(adapter, prompts, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    bad = {
        "absent": (replace(prompts[0], image_path=tmp_path / "absent.png"), "cannot be opened"),
        "text": (replace(prompts[0], image_path=tmp_path / "text.png"), "cannot be opened"),
        "size": (replace(prompts[0], image_size_wh=(121, 120)), "is 120 x 120 px, its sample says 121 x 120"),
        "token": (replace(prompts[0], text="What is <image>?"), "holds 2 image placeholders"),
    }
    asked = [replace(prompt, sample_id=name) for name, (prompt, _) in bad.items()]
    replies = {r.sample_id: r for r in adapter.replies([*prompts[:5], *asked, *prompts[5:]])}
    assert len(replies) == len(prompts) + len(bad)
    for name, (_, message) in bad.items():
        reply = replies.pop(name)
        assert (reply.text, reply.finish_reason) == (None, "error")
        assert message in reply.error
        assert "\n" not in reply.error
    assert {k: r.text for k, r in replies.items()} == {k: v[0] for k, v in answers(adapter, prompts).items()}


class Cramped(InstructBlip):
    """A device with room for three prompts, and for none that is longer than `longest`."""

    longest = 10_000

    def _generate(self, items):
        if len(items) > 3 or max(len(item.input_ids) for item in items) > self.longest:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super()._generate(items)


def test_out_of_memory_halves_the_batch(adapter, checkpoint, prompts, caplog):
    assert answers(Cramped(checkpoint, device="cpu"), prompts) == answers(adapter, prompts)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2  # 8 -> 4 -> 2, and then it stays there
    assert said[0].endswith("out of memory, going on in batches of 4")
    assert said[1].endswith("out of memory, going on in batches of 2")


def test_one_prompt_too_long_for_the_device(adapter, checkpoint, prompts):
    cramped = Cramped(checkpoint, device="cpu")
    cramped.longest = 50
    whole, replies = answers(adapter, prompts), answers(cramped, prompts)
    long = {k for k, v in whole.items() if v[3]["input_tokens"] > 50}
    assert 0 < len(long) < len(whole)
    for sample_id, (text, _, error, _) in replies.items():
        if sample_id in long:
            assert text is None
            assert "out of memory on cpu with one prompt of" in error
        else:
            assert text == whole[sample_id][0]


def test_nothing_asked_nothing_answered(adapter):
    assert list(adapter.replies([])) == []


def test_describe(adapter, checkpoint):
    described = adapter.describe()
    assert described["checkpoint"] == checkpoint.name
    assert (described["engine"], described["dtype"], described["device"]) == (
        "transformers",
        "float32",
        "cpu",
    )
    assert described["transformers"] == transformers.__version__
    assert (described["num_beams"], described["repetition_penalty"]) == ("5", "1.5")
    assert (described["length_penalty"], described["prompt_format"]) == ("-1.0", VQA_FORMAT)


def test_half_precision_answers(checkpoint, prompts):
    adapter = InstructBlip(checkpoint, dtype="bfloat16", device="cpu")
    assert adapter.describe()["dtype"] == "bfloat16"
    assert all(r.error is None and r.text for r in adapter.replies(prompts[:4]))


def test_close_gives_the_threads_back(checkpoint):
    before = torch.get_num_threads()
    adapter = InstructBlip(checkpoint, device="cpu")
    assert torch.get_num_threads() == 1
    adapter.close()
    assert torch.get_num_threads() == before


ENTRY = """
tiny-blip:
  adapter: local
  family: instructblip
  checkpoint: tiny:instructblip
  runtime: {device: cpu}
"""


def test_a_run_from_images_to_rows(tiny_cache, tmp_path, monkeypatch):
    """Line Tracing, built, asked, parsed and stored; asked again, nothing happens; beams are another run."""
    monkeypatch.setenv("EVALKIT_CACHE", str(tiny_cache))
    (tmp_path / "models.yaml").write_text(ENTRY)
    assert cli("data", "build", "line_tracing", "--n", 6, "--data", tmp_path).exit_code == 0
    places = ("--data", tmp_path, "--results", tmp_path / "results", "--models", tmp_path / "models.yaml")
    run = ("run", "--model", "tiny-blip", "--task", "line_tracing", *places)
    document = cli_json(*run)
    assert document["status"] == "complete"
    rows = read_rows(document["run"])
    assert len({row["sample_id"] for row in rows}) == len(rows) == document["n"] >= 4
    assert {row["verdict"] for row in rows} <= {"correct", "wrong", "unparsed", "truncated"}
    assert all(row["reply"] for row in rows)
    assert cli_json(*run) == document
    assert read_rows(document["run"]) == rows
    assert cli_json(*run, "--set", "num_beams=1")["run"] != document["run"]
