"""tokenizer.model without sentencepiece: ids worked out by hand and by merging letter by letter; damage in one line."""

import random

import pytest

from evalkit.errors import AdapterError

pytest.importorskip("tokenizers")
torch = pytest.importorskip("torch")

from tiny_glamm import ADDED, fixed_pieces, learnt_pieces, sentencepiece_model  # noqa: E402

from model_adapters.glamm_files import added_tokens  # noqa: E402
from model_adapters.sentencepiece_file import bpe_of, read_pieces  # noqa: E402

pytestmark = pytest.mark.local

LETTERS = [("▁a", -1.0, 1), ("ab", 0.0, 1), ("▁", -8.0, 1), ("a", -8.0, 1), ("b", -8.0, 1)]
_A, AB, SPACE, A, B = range(259, 264)


def tokenizer(tmp_path, pieces):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(sentencepiece_model(pieces))
    return bpe_of(read_pieces(path), added_tokens())


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a", [_A]),
        ("ab", [SPACE, AB]),  # ab has the higher score: it is joined before ▁a can be
        ("a b", [_A, SPACE, B]),
        ("  b", [SPACE, SPACE, SPACE, B]),  # the dummy prefix, and spaces are kept
        ("b\n", [SPACE, B, 3 + 10]),  # bytes where there is no piece
        ("é", [SPACE, 3 + 0xC3, 3 + 0xA9]),
        ("b <p> a </p> b", [SPACE, B, 264 + 5, _A, 264 + 6, SPACE, B]),  # spaces beside marks are theirs
        ("b<p>a", [SPACE, B, 264 + 5, _A]),  # each stretch has a prefix of its own
        ("a <im_start><image><im_end> b", [_A, 264, 271, 265, SPACE, B]),
    ],
)
def test_ids_by_hand(tmp_path, text, ids):
    bpe = tokenizer(tmp_path, [*fixed_pieces(), *LETTERS])
    assert bpe.encode(text, add_special_tokens=False).ids == ids
    assert bpe.encode(text).ids == [1, *ids]


def merged(text, pieces):
    """sentencepiece's rule: of all neighbours that make a piece, the highest score first, the leftmost of equals."""
    scores = {piece: score for piece, score, kind in pieces if kind == 1}
    parts = list("▁" + text.replace(" ", "▁"))
    while pairs := [i for i in range(len(parts) - 1) if parts[i] + parts[i + 1] in scores]:
        best = max(pairs, key=lambda i: (scores[parts[i] + parts[i + 1]], -i))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    places = {piece: place for place, (piece, _, _) in enumerate(pieces)}
    return [
        i
        for part in parts
        for i in ([places[part]] if part in scores else [3 + byte for byte in part.encode()])
    ]


def test_ids_as_sentencepiece_merges(tmp_path):
    pieces = learnt_pieces()
    bpe = tokenizer(tmp_path, pieces)
    draw = random.Random(0)
    words = [
        "the red line",
        "touch",
        " How many times",
        "blue",
        ",",
        "\n",
        "  ",
        "é",
        "12",
        "?",
        "AAB",
        "grid (3, 4)",
    ]
    for _ in range(300):
        text = "".join(draw.choice(words) for _ in range(draw.randint(1, 8)))
        assert bpe.encode(text, add_special_tokens=False).ids == merged(text, pieces), text


def test_added_tokens_follow_the_pieces(tmp_path):
    pieces = learnt_pieces()
    bpe = tokenizer(tmp_path, pieces)
    ids = [bpe.token_to_id(token) for token in (*ADDED, "<image>")]
    assert ids == list(range(len(pieces), len(pieces) + 8))
    assert bpe.get_vocab_size() == len(pieces) + 8


def test_text_comes_back(tmp_path):
    bpe = tokenizer(tmp_path, learnt_pieces())
    text = "The blue line and the red line cross 2 times.\n  Yes – é."
    assert bpe.decode(bpe.encode(text).ids) == text
    assert bpe.decode(bpe.encode("A <p> dog </p> [SEG] runs.").ids) == "A<p> dog</p>[SEG] runs."


def whole():
    return sentencepiece_model(fixed_pieces())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected <unk>, <s>, </s> first"),
        (b"not a model at all", "not a sentencepiece model"),
        (whole()[:-3], "not a sentencepiece model (ValueError: it is cut off)"),
        (whole()[:40], "not a sentencepiece model"),
        (sentencepiece_model(fixed_pieces()[1:]), "expected <unk>, <s>, </s> first"),
        (sentencepiece_model(fixed_pieces(), trainer=((3, 1), (35, 1))), "expected model_type BPE"),
        (sentencepiece_model(fixed_pieces(), trainer=((3, 2),)), "expected byte_fallback"),
        (sentencepiece_model(fixed_pieces(), normalizer=((2, b"nfkc"), (4, 0))), "expected no character map"),
        (sentencepiece_model(fixed_pieces(), normalizer=((3, 0), (4, 0))), "expected a dummy prefix"),
        (sentencepiece_model(fixed_pieces(), normalizer=((3, 1),)), "expected all spaces kept"),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(AdapterError) as caught:
        read_pieces(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(AdapterError, match=r"tokenizer.model: cannot be read \(No such file"):
        read_pieces(tmp_path / "tokenizer.model")
