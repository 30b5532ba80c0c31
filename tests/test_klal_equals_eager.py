"""KLAL by one row against eager attention in float64: values and gradients, for each option and padding."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import small_models as small  # noqa: E402

from evalkit.errors import TrainError  # noqa: E402
from trainers.attention import require_gradient, row_attention, use_row_attention  # noqa: E402
from trainers.klal import chosen_layers, klal  # noqa: E402

pytestmark = pytest.mark.local

FAMILIES = {
    "qwen2_5_vl": (small.small_qwen, small.qwen_batch),
    "llava": (small.small_llava, small.llava_batch),
}
both = pytest.mark.parametrize("family", FAMILIES)
sides = pytest.mark.parametrize("side", ["left", "right"])


def eager(family, side, ntp=0.0, move=0, **options):
    """(loss, gradients) of ntp * NTP + KLAL by eager attention."""
    build, make = FAMILIES[family]
    model, (batch, places) = build(small.whole_matrices()), make(side)
    places = (places[0] + move, *places[1:])
    matrices = {}
    out = model(**batch, matrices=matrices, use_cache=False)
    loss = small.whole_klal(matrices, places, **options)
    (loss + ntp * out.loss if ntp else loss).backward()
    return loss.detach(), small.gradients(model)


def one_row(family, side, ntp=0.0, move=0, layers=None, heads="mean", prepare=lambda model: model, cast=None):
    """The same by one row."""
    build, make = FAMILIES[family]
    model, (batch, places) = prepare(build(row_attention("sdpa"))), make(side)
    places = (places[0] + move, *places[1:])
    request = small.request_for(places, layers=layers)
    with torch.autocast("cpu", torch.bfloat16, enabled=cast is not None):
        out = model(**batch, attention_row=request, use_cache=False)
    loss = klal(request.rows, places[3], places[2], heads).mean()
    require_gradient(request.rows)
    request.close()
    (loss + ntp * out.loss if ntp else loss).backward()
    return loss.detach(), small.gradients(model)


def assert_equal(found, expected, tolerance=2e-5):
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=tolerance)
    assert set(found[1]) == set(expected[1]), "the same parameters get a gradient"
    assert small.relative_error(found[1], expected[1]) < tolerance


@both
@sides
@pytest.mark.parametrize("heads", ["mean", "each"])
def test_all_layers(family, side, heads):
    assert_equal(one_row(family, side, heads=heads), eager(family, side, heads=heads))


@both
@sides
@pytest.mark.parametrize("layers", [1, [0], [-1], [0, 1]])
def test_some_layers(family, side, layers):
    chosen = chosen_layers(layers, 2)
    assert_equal(one_row(family, side, layers=chosen), eager(family, side, layers=chosen))


@both
@sides
@pytest.mark.parametrize("move", [-1, -3])
def test_another_query_position(family, side, move):
    assert_equal(one_row(family, side, move=move), eager(family, side, move=move))


@both
@sides
def test_with_the_ntp_loss(family, side):
    assert_equal(one_row(family, side, ntp=0.7), eager(family, side, ntp=0.7))


@both
@sides
def test_non_reentrant_checkpointing(family, side):
    def prepare(model):
        model.gradient_checkpointing_enable({"use_reentrant": False})
        return model

    assert_equal(one_row(family, side, ntp=1.0, prepare=prepare), eager(family, side, ntp=1.0))


@both
def test_reentrant_checkpointing_is_refused(family):
    def prepare(model):
        model.gradient_checkpointing_enable({"use_reentrant": True})
        model.enable_input_require_grads()
        return model

    with pytest.raises(TrainError, match=r"KLAL would train nothing.*use_reentrant"):
        one_row(family, "right", prepare=prepare)


@both
@sides
def test_lora(family, side):
    """Adapters alone are trained; their gradients equal those of eager attention."""
    peft = pytest.importorskip("peft")
    build, make = FAMILIES[family]
    results = []
    for implementation in (small.whole_matrices(), row_attention("sdpa")):
        torch.manual_seed(5)
        config = peft.LoraConfig(
            r=2, target_modules=r".*language_model.*\.(q|k|v|o)_proj", init_lora_weights=False
        )
        model = peft.get_peft_model(build(implementation), config)
        batch, places = make(side)
        if implementation == small.WHOLE:
            matrices = {}
            model(**batch, matrices=matrices, use_cache=False)
            loss = small.whole_klal(matrices, places)
        else:
            request = small.request_for(places)
            model(**batch, attention_row=request, use_cache=False)
            loss = klal(request.rows, places[3], places[2]).mean()
        loss.backward()
        results.append((loss.detach(), small.gradients(model)))
    assert all("lora" in name for name in results[1][1])
    # the last layer's value and output feed no row: zero by one row, absent or zero by eager attention
    assert_equal(results[1], results[0])


@both
def test_bf16_autocast_keeps_the_row_in_float32(family):
    loss, _ = one_row(family, "right", cast=torch.bfloat16)
    expected, _ = eager(family, "right")
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(expected), rel=0.05)  # the layers below are in bf16


@both
@sides
def test_the_answers_are_those_of_sdpa(family, side):
    """Recording changes no output, and decoding with a cache works."""
    build, make = FAMILIES[family]
    batch, _ = make("left")
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    plain, recording = build("sdpa").eval(), build("sdpa").eval()
    use_row_attention(recording)
    assert torch.equal(plain.generate(**inputs, **settings), recording.generate(**inputs, **settings))


@both
@sides
def test_the_visual_share(family, side):
    build, make = FAMILIES[family]
    model, (batch, places) = build(small.whole_matrices()), make(side)
    attentions = {}
    with torch.no_grad():
        model(**batch, matrices=attentions, use_cache=False)
        recording = build(row_attention("sdpa"))
        request = small.request_for(places, valid=batch["attention_mask"].bool())
        recording(**batch, attention_row=request, use_cache=False)
    query, keys, key_mask, _ = places
    for layer, share in request.shares.items():
        for b in range(2):
            expected = attentions[layer][b, :, query[b], keys[b][key_mask[b]]].sum(-1)
            assert share[b].tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_unknown_and_eager_attention_are_refused():
    with pytest.raises(TrainError, match=r"No attention 'eager'.*sdpa"):
        row_attention("eager")
    with pytest.raises(TrainError, match="No attention 'magic'"):
        row_attention("magic")
    assert row_attention("flash_attention_2") == "evalkit_row_flash_attention_2"


def test_no_row_is_an_error():
    with pytest.raises(TrainError, match="No layer recorded"):
        klal({}, torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool))


@pytest.mark.parametrize("layers", [0, 5, [4], [-5], []])
def test_layers_that_are_not_there(layers):
    with pytest.raises(TrainError, match="0 to 3"):
        chosen_layers(layers, 4)


def test_chosen_layers():
    assert chosen_layers("all", 3) == {0, 1, 2}
    assert chosen_layers(2, 3) == {1, 2}
    assert chosen_layers([0, -1], 3) == {0, 2}
