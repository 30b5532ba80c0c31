"""The loss by hand, and a mutation of each of its lines: every one must be noticed."""

import math
import types
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from trainers import attention, klal  # noqa: E402

pytestmark = pytest.mark.local


def check_klal(module):
    """All that Eqs. 3-4 promise, against loops in Python floats; a mutated module must fail here."""
    generator = torch.Generator().manual_seed(0)
    log_alpha = {
        layer: (3 * torch.randn(3, 4, 5, generator=generator)).log_softmax(-1) for layer in (0, 2, 7)
    }
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], dtype=torch.bool)
    for rows in log_alpha.values():
        rows.copy_(rows.masked_fill(~mask[:, None], -1e30).log_softmax(-1))
    target = torch.tensor([[0.5, 0.2, 0.3, 0, 0], [0, 0.9, 0.1, 0, 0], [0.25, 0.25, 0.25, 0.25, 0]])
    for heads in ("mean", "each"):
        found = module.klal(log_alpha, target, mask, heads)
        assert found.shape == (3,)
        assert found.dtype == torch.float32
        for b in range(3):
            assert float(found[b]) == pytest.approx(by_hand(log_alpha, target, b, heads), rel=1e-5)
    same = {0: target[2:].log().masked_fill(~mask[2:], -1e30)[:, None].expand(1, 4, 5)}
    assert float(module.klal(same, target[2:], mask[2:])) == pytest.approx(0, abs=1e-6)
    halves = target.bfloat16()  # half-precision targets are widened before anything is computed
    assert torch.equal(module.klal(log_alpha, halves, mask), module.klal(log_alpha, halves.float(), mask))


def by_hand(log_alpha, target, b, heads):
    layers = []
    for rows in log_alpha.values():
        alpha = rows[b].exp().tolist()
        mixed = [[sum(column) / 4 for column in zip(*alpha, strict=True)]] if heads == "mean" else alpha
        kls = [
            sum(p * math.log(p / q) for p, q in zip(target[b].tolist(), row, strict=True) if p)
            for row in mixed
        ]
        layers.append(sum(kls) / len(kls))
    return sum(layers) / len(layers)


def check_row(module):
    """visual_row and visual_share against a whole softmax, with grouped heads, padding and uneven counts."""
    generator = torch.Generator().manual_seed(1)
    query, key = torch.randn(2, 4, 7, 3, generator=generator), torch.randn(2, 2, 7, 3, generator=generator)
    at = torch.tensor([6, 4])
    keys, mask = torch.tensor([[1, 2, 3], [0, 1, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]], dtype=torch.bool)
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[0, 0] = False
    row = module.visual_row(query, key, 0.6, at, keys, mask)
    share = module.visual_share(query, key, 0.6, at, keys, mask, valid)
    assert row.dtype == torch.float32
    for b in range(2):
        for head in range(4):
            logits = 0.6 * key[b, head // 2] @ query[b, head, at[b]]
            seen = [s for s in range(int(at[b]) + 1) if valid[b, s]]
            whole = {s: math.exp(float(logits[s])) for s in seen}
            visual = [whole[int(k)] for k in keys[b][mask[b]]]
            expected = [v / sum(visual) for v in visual]
            assert row[b, head][mask[b]].exp().tolist() == pytest.approx(expected, rel=1e-5)
            assert float(row[b, head].exp().sum()) == pytest.approx(1)
            assert float(share[b, head]) == pytest.approx(sum(visual) / sum(whole.values()), rel=1e-5)


def test_the_loss():
    check_klal(klal)


def test_the_row():
    check_row(attention)


KLAL_MUTATIONS = [
    ("target.float(), mask", "target, mask"),  # bf16 targets
    (".mean(0)\n\n\ndef _div", ".sum(0)\n\n\ndef _div"),  # mean over layers
    ("rows.values()]", "list(rows.values())[:1]]"),  # all layers
    (".logsumexp(1, keepdim=True)", ".mean(1, keepdim=True)"),  # heads averaged as probabilities, not logs
    (".logsumexp(1, keepdim=True)", ".logsumexp(2, keepdim=True)"),  # over heads, not tokens
    (" - math.log(log_alpha.shape[1])", ""),  # the mean's 1 / H
    ("math.log(log_alpha.shape[1])", "math.log2(log_alpha.shape[1])"),  # nats
    ('if heads == "mean" else log_alpha', 'if heads != "mean" else log_alpha'),
    ("log_q.masked_fill(~mask[:, None], 0.0)", "log_q.masked_fill(mask[:, None], 0.0)"),
    ("-(target[:, None] * log_q)", "(target[:, None] * log_q)"),  # sign
    ("-(target[:, None] * log_q)", "-(log_q.exp() * log_q)"),  # KL(P || Q), not an entropy
    (".sum(-1).mean(1)", ".mean(-1).mean(1)"),
    (".sum(-1).mean(1)", ".sum(-1).sum(1)"),  # mean over heads
    ("torch.xlogy(target, target).sum(-1) + ", ""),  # P's own entropy: 0 at P = Q
    ("torch.xlogy(target, target)", "torch.xlogy(target, target + 1)"),
]
ROW_MUTATIONS = [
    ("~key_mask.to(logits.device)[:, None]", "key_mask.to(logits.device)[:, None]"),
    (".log_softmax(-1)", ".softmax(-1)"),
    (".log_softmax(-1)", ".log_softmax(1)"),
    ("<= query_index.to(key.device)[:, None]", "< query_index.to(key.device)[:, None]"),
    ("(before & valid.to(key.device))", "before"),
    ("whole = logits.masked_fill(~seen, MASKED)", "whole = logits"),
    ("(visual - whole).exp()", "visual - whole"),
    ("visual = visual.masked_fill(~key_mask.to(key.device)[:, None], MASKED)", "visual = visual"),
    ("kv_heads, heads // kv_heads, width)", "heads // kv_heads, kv_heads, width).transpose(1, 2)"),
    ("query_index.to(query.device)]", "0 * query_index.to(query.device)]"),
    (".reshape(batch, heads, n) * scaling", ".reshape(batch, heads, n)"),
    ("return key.gather(2, index)", "return key[:, :, : key_index.shape[1]]"),
]


def mutated(module, old, new):
    source = Path(module.__file__).read_text(encoding="utf-8")
    assert source.count(old) >= 1, f"{old!r} is no longer in {module.__name__}: bring the list up to date"
    changed = types.ModuleType("mutated")
    exec(compile(source.replace(old, new, 1), "mutated", "exec"), changed.__dict__)
    return changed


@pytest.mark.parametrize(("old", "new"), KLAL_MUTATIONS)
def test_a_mutation_of_the_loss_is_noticed(old, new):
    with pytest.raises((AssertionError, RuntimeError, IndexError)):
        check_klal(mutated(klal, old, new))


@pytest.mark.parametrize(("old", "new"), ROW_MUTATIONS)
def test_a_mutation_of_the_row_is_noticed(old, new):
    with pytest.raises((AssertionError, RuntimeError, IndexError)):
        check_row(mutated(attention, old, new))
