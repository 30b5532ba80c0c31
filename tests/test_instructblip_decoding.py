"""How InstructBLIP decodes: beams, a penalty that does not see the prompt, and nothing of the checkpoint's settings."""

import json
import shutil
from dataclasses import replace

import pytest
from pictures import make_prompts

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from model_adapters.instructblip import InstructBlip  # noqa: E402
from model_adapters.tiny import tiny_checkpoint  # noqa: E402

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


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A copy of the checkpoint, to be changed."""
    return shutil.copytree(checkpoint, tmp_path / "my-blip")


def answers(adapter, prompts):
    replies = list(adapter.replies(prompts))
    assert sorted(r.sample_id for r in replies) == sorted(p.sample_id for p in prompts)  # each once
    return {r.sample_id: (r.text, r.finish_reason, r.error, dict(r.usage)) for r in replies}


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("settings", "at_least"),
    [
        ({"num_beams": 1}, 12),
        ({"length_penalty": 1.0}, 3),
        ({"repetition_penalty": 1.0}, 12),
        ({"prompt_format": "{}"}, 12),
    ],
)
def test_each_setting_changes_answers(adapter, checkpoint, prompts, settings, at_least):
    asked = [replace(p, max_new_tokens=32) for p in prompts]
    other = answers(InstructBlip(checkpoint, device="cpu", **settings), asked)
    same = answers(adapter, asked)
    assert sum(same[k] != other[k] for k in same) >= at_least


def log_likelihood(adapter, item, tokens):
    """Sum of log probabilities of an answer in nats, by one forward pass."""
    batch = adapter.maker.collate([item])
    start = batch["input_ids"].shape[1]
    batch["input_ids"] = torch.cat([batch["input_ids"], torch.tensor([tokens])], dim=1)
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    with torch.inference_mode():
        log_probs = adapter.model(**batch).logits[0, start - 1 : -1].log_softmax(-1)
    return log_probs.gather(1, torch.tensor(tokens)[:, None]).sum().item()


def test_beams_find_what_greedy_misses(checkpoint, prompts):
    """With no weight on length and no penalty, five beams find likelier answers than one, never less likely."""
    plain = {"device": "cpu", "length_penalty": 0.0, "repetition_penalty": 1.0}
    several, one = InstructBlip(checkpoint, **plain), InstructBlip(checkpoint, num_beams=1, **plain)
    eos, higher = several.maker.tokenizer.eos_token_id, 0
    for prompt in prompts[:8]:
        item = several.maker.load(several.maker.encode(replace(prompt, max_new_tokens=4)))
        answered = [a._generate([item])[0] for a in (several, one)]
        ended = [tokens[: tokens.index(eos) + 1] if eos in tokens else tokens for tokens in answered]
        found, greedy = (log_likelihood(several, item, tokens) for tokens in ended)
        assert found >= greedy - 1e-4
        higher += found > greedy + 1e-4
    assert higher >= 2


class Table(torch.nn.Module):
    """In place of lm_head: the same logits at every position, whatever was asked."""

    def __init__(self, logits, size):
        super().__init__()
        self.row = torch.full((size,), -20.0)
        for token, logit in logits.items():
            self.row[token] = logit

    def forward(self, hidden):
        return self.row.expand(*hidden.shape[:2], -1)


class SeesThePrompt(InstructBlip):
    """The plain penalty, over prompt and answer."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        blind = self._penalty_class
        self._penalty_class = lambda penalty, prompt_ignore_length: blind(penalty)


@pytest.mark.parametrize(
    ("adapter_class", "penalty", "expected"),
    [
        # Yes 3.0 wins; said once it has 3.0 / 1.5 = 2.0 and No 2.5 wins; then EOS 2.1 beats 2.0 and 1.67
        (InstructBlip, 1.5, (" Yes No", "stop")),
        # both words stand in the question, and </s> before it: 2.0, 1.67 and 1.4 from the beginning
        (SeesThePrompt, 1.5, (" Yes Yes Yes Yes", "length")),
        (InstructBlip, 1.0, (" Yes Yes Yes Yes", "length")),
        (InstructBlip, 2.0, (" Yes No", "stop")),  # 3.0, then 2.5, then EOS 2.1 against 1.5 and 1.25
    ],
)
def test_the_penalty_is_blind_to_the_prompt(checkpoint, prompts, adapter_class, penalty, expected):
    """A hand-made table of logits for Yes, No and EOS; one beam, where the penalty divides positive logits."""
    adapter = adapter_class(checkpoint, device="cpu", num_beams=1, repetition_penalty=penalty)
    tokenizer, language_model = adapter.maker.tokenizer, adapter.model.language_model
    yes, no = (tokenizer(word, add_special_tokens=False).input_ids for word in (" Yes", " No"))
    assert (len(yes), len(no)) == (1, 1)
    logits = {yes[0]: 3.0, no[0]: 2.5, tokenizer.eos_token_id: 2.1}
    language_model.lm_head = Table(logits, language_model.config.vocab_size)
    prompt = replace(prompts[0], text="Is it Yes or No ?", max_new_tokens=4)
    assert {yes[0], no[0]} < set(adapter.maker.encode(prompt).input_ids)
    (reply,) = adapter.replies([prompt])
    assert (f" {reply.text}", reply.finish_reason) == expected


def test_a_penalty_that_sees_the_prompt_would_answer_otherwise(adapter, checkpoint, prompts):
    blind = answers(adapter, prompts)
    plain = answers(SeesThePrompt(checkpoint, device="cpu"), prompts)
    assert sum(blind[k][0] != plain[k][0] for k in blind) >= 3


def test_an_unknown_token_of_an_answer_is_dropped(copy):
    """As LAVIS does it: there <unk> is an ordinary token, and decoding would show it."""
    content = json.loads((copy / "tokenizer.json").read_text())
    (unknown,) = (token for token in content["added_tokens"] if token["content"] == "<unk>")
    unknown["special"] = False
    (copy / "tokenizer.json").write_text(json.dumps(content))
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    for name in ("additional_special_tokens", "extra_special_tokens"):
        settings.pop(name, None)
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    adapter = InstructBlip(copy, device="cpu")
    tokenizer = adapter.maker.tokenizer
    yes = tokenizer(" Yes", add_special_tokens=False).input_ids
    answer = [*yes, unknown["id"], *yes]
    assert tokenizer.decode(answer, skip_special_tokens=True) == " Yes<unk> Yes"
    assert adapter._text(answer) == "Yes Yes"


def test_decoding_is_ours_not_the_checkpoints(adapter, prompts, copy):
    wild = {"do_sample": True, "temperature": 1.7, "num_beams": 2, "repetition_penalty": 5.0, "max_length": 5}
    edit(copy / "generation_config.json", **wild, no_repeat_ngram_size=1, min_new_tokens=20)
    assert answers(InstructBlip(copy, device="cpu"), prompts) == answers(adapter, prompts)
