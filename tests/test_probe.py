"""Probes against whole attention matrices and hidden states, the command line, tables and figures made of them."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import small_models as small  # noqa: E402

from evalkit.cli import main  # noqa: E402
from evalkit.datasets.build import build  # noqa: E402
from evalkit.datasets.disk import read_split  # noqa: E402
from evalkit.errors import StoreError  # noqa: E402
from evalkit.probes import find_probes, norm_ratio, read_maps, read_probe, read_rows, summarise  # noqa: E402
from evalkit.task import load_task  # noqa: E402
from model_adapters.hf_local import HfLocal  # noqa: E402
from model_adapters.tiny import TINY_FAMILIES, tiny_checkpoint  # noqa: E402
from trainers.batches import Collator, Item, make_example  # noqa: E402
from trainers.probes import probe  # noqa: E402
from trainers.spec import KlalSpec  # noqa: E402

pytestmark = pytest.mark.local
families = pytest.mark.parametrize("family", TINY_FAMILIES)
MODELS = {"qwen2_5_vl": "tiny-qwen", "llava": "tiny-llava"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for task in ("line_intersection", "grid_patch"):
        build(task, folder, n=30)
    return folder


@families
def test_a_row_equals_what_whole_matrices_say(family, data_dir, tiny_cache):
    task = load_task("line_intersection")
    samples = [s for s in read_split(data_dir, task.name, "train").samples if s.gold][:3]
    answers = {s.sample_id: "crossings: 3" for s in samples}
    adapter = HfLocal(tiny_checkpoint(family, tiny_cache), family, device="cpu")
    found = list(probe(adapter, task, samples, answers, batch_size=2))

    adapter.model.set_attn_implementation({"text_config": small.whole_matrices(), "vision_config": "sdpa"})
    for one, sample in zip(found, samples, strict=True):
        example = make_example(
            Item(task, sample, answers[sample.sample_id]), adapter.maker, KlalSpec(sigma=0.0)
        )
        batch = Collator(adapter.maker)([example])
        inputs = {
            k: v
            for k, v in batch.items()
            if k in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw", "mm_token_type_ids")
        }
        matrices, states = {}, []
        hook = adapter.model.model.language_model.layers[-1].register_forward_hook(
            lambda *a, s=states: s.append(a[2])
        )
        with torch.no_grad():
            adapter.model(**inputs, matrices=matrices, use_cache=False)
        hook.remove()
        target = torch.from_numpy(example.target > 0)
        for layer, matrix in matrices.items():
            row = matrix[0, :, example.query_index]
            visual = row[:, example.key_index]
            assert one.row["share"][layer] == pytest.approx(float(visual.sum(-1).mean()), abs=2e-5)
            alpha = (visual / visual.sum(-1, keepdim=True)).mean(0)
            assert one.row["ratio"][layer] == pytest.approx(
                float(alpha[target].mean() / alpha.mean()), rel=1e-3
            )
        hidden = states[0] if torch.is_tensor(states[0]) else states[0][0]
        norms = hidden[0, example.key_index].norm(dim=-1)
        assert one.row["norm_target"] == pytest.approx(float(norms[target].mean()), rel=1e-4)
        assert one.norm.tolist() == pytest.approx(norms.tolist(), rel=1e-4)
        # the token before the EOS is the answer's last
        assert example.input_ids[example.query_index + 1] == adapter.maker.eos_token_id


@families
def test_batches_change_nothing_and_skips_are_named(family, data_dir, tiny_cache):
    task = load_task("line_intersection")
    samples = read_split(data_dir, task.name, "train").samples[:12]
    answers = {s.sample_id: "" if i == 1 else "2" for i, s in enumerate(samples)}
    adapter = HfLocal(tiny_checkpoint(family, tiny_cache), family, device="cpu")
    one_by_one = [f.row for f in probe(adapter, task, samples, answers, batch_size=1)]
    together = [f.row for f in probe(adapter, task, samples, answers, batch_size=5)]
    for alone, batched in zip(one_by_one, together, strict=True):
        assert alone.keys() == batched.keys()
        if "ratio" in alone:
            assert alone["ratio"] == pytest.approx(batched["ratio"], rel=1e-3)
    skipped = {row["sample_id"]: row["skipped"] for row in together if "skipped" in row}
    without = {s.sample_id for s in samples if s.gold == 0}
    assert all("no target" in skipped[i] for i in without)
    assert skipped[samples[1].sample_id] in ("empty answer", skipped.get(next(iter(without), ""), ""))


def evalkit(data_dir, results, *words):
    return CliRunner().invoke(main, [*words, "--data", str(data_dir), "--results", str(results)])


@families
def test_the_command_line(family, data_dir, tmp_path, tiny_cache, monkeypatch):
    monkeypatch.setenv("EVALKIT_CACHE", str(tiny_cache))
    model = MODELS[family]
    words = ("probe", "--model", model, "--task", "line_intersection", "--maps", "3")
    first = evalkit(data_dir, tmp_path, *words)
    assert first.exit_code == 1
    assert (
        f"0 of 6 replies to probe. Make them first, with the same options: evalkit run --model {model}"
        in first.output
    )
    assert evalkit(data_dir, tmp_path, "run", "--model", model, "--task", "line_intersection").exit_code == 0
    done = evalkit(data_dir, tmp_path, *words)
    assert done.exit_code == 0, done.output
    (found,) = find_probes(tmp_path)
    assert found.model == model
    assert found.meta["summary"]["n"] + found.meta["skipped"] == 6
    maps = read_maps(found.folder)
    assert maps["attention"].shape[0] == len(maps["sample_ids"]) <= 3
    for grid, attention in zip(maps["grids"], maps["attention"], strict=True):
        assert np.nansum(attention) == pytest.approx(1, rel=1e-4)
        assert np.isfinite(attention).sum() == grid.prod()
    # killed while writing a row: the torn line is dropped, the rest is not probed again
    lines = (found.folder / "rows.jsonl").read_text().splitlines()
    (found.folder / "rows.jsonl").write_text("\n".join([*lines[:3], lines[3][:20]]))
    (found.folder / "probe.json").unlink()
    assert len(read_rows(found.folder)) == 3
    assert evalkit(data_dir, tmp_path, *words, "--json").exit_code == 0
    assert sorted((found.folder / "rows.jsonl").read_text().splitlines()) == sorted(lines)
    gold = evalkit(data_dir, tmp_path, *words, "--answer", "gold", "--json")
    assert json.loads(gold.output)["answer"] == "gold"
    assert len(find_probes(tmp_path)) == 2


def test_only_local_models_can_be_probed(data_dir, tmp_path):
    result = evalkit(data_dir, tmp_path, "probe", "--model", "fake", "--task", "grid_patch")
    assert result.exit_code == 1
    assert "fake cannot be probed" in result.output


def row(sample_id, norm, cluster=None, ratio=(2.0, 4.0)):
    return {
        "sample_id": sample_id, "cluster": cluster or sample_id, "answer": "1", "n_visual": 4, "n_target": 1,
        "ratio": list(ratio), "share": [0.5, 0.7], "norm_target": norm, "norm_visual": 1.0,
    }  # fmt: skip


def stored(folder, rows, model="tiny-qwen-klal", seed=0, fingerprint="f", task="line_intersection", **meta):
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    document = {
        "model": {"name": model}, "training": {"seed": seed}, "dataset": {"fingerprint": fingerprint, "name": task},
        "task": {"name": task, "title": "Line Intersection"}, "trained_on": None, "split": "test",
        "summary": summarise(rows), "run": "none", **meta,
    }  # fmt: skip
    (folder / "probe.json").write_text(json.dumps(document))
    return read_probe(folder)


def test_summary_by_hand():
    found = summarise([row("a", 3.0), row("b", 5.0, ratio=(4.0, 8.0)), {"sample_id": "c", "skipped": "x"}])
    assert found["n"] == 2
    assert found["ratio"]["value"] == pytest.approx((3 + 6) / 2)
    assert [layer["value"] for layer in found["ratio_by_layer"]] == [3.0, 6.0]
    assert found["norm_target"]["value"] == 4.0
    assert found["share"] == {
        "value": pytest.approx(0.6),
        "low": pytest.approx(0.6),
        "high": pytest.approx(0.6),
    }
    assert summarise([{"sample_id": "c", "skipped": "x"}]) == {"n": 0}


def test_table_5_is_a_ratio_of_means_on_shared_samples(tmp_path):
    base = stored(tmp_path / "base", [row("a", 2.0), row("b", 4.0), row("c", 100.0)])
    tuned = stored(tmp_path / "tuned", [row("a", 3.0), row("b", 3.0)])
    found = norm_ratio(tuned, base)
    assert found["value"] == pytest.approx(6 / 6)
    assert found["n"] == 2
    assert found["low"] == pytest.approx(3 / 4)
    assert found["high"] == pytest.approx(3 / 2)
    other = stored(tmp_path / "other", [row("a", 3.0)], fingerprint="g")
    assert norm_ratio(other, base) is None


def test_damaged_probes_are_one_line(tmp_path):
    stored(tmp_path / "p", [row("a", 2.0)])
    (tmp_path / "p" / "rows.jsonl").write_text("[]\n{}\n")
    with pytest.raises(StoreError, match=r"rows.jsonl:1: not a row"):
        read_probe(tmp_path / "p")
    (tmp_path / "p" / "probe.json").write_text("{")
    with pytest.raises(StoreError, match=r"probe.json: cannot be read"):
        read_probe(tmp_path / "p")


@pytest.mark.parametrize(
    "change",
    [
        {"model": "x"}, {"model": {"name": 3}}, {"training": {"seed": "x"}}, {"training": [1]}, {"task": {"name": "t"}},
        {"summary": {"n": "many"}}, {"run": None}, {"trained_on": 7},
    ],
)  # fmt: skip
def test_hostile_probes_are_one_line(tmp_path, change):
    stored(tmp_path / "probes" / "m" / "p", [row("a", 2.0)])
    path = tmp_path / "probes" / "m" / "p" / "probe.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StoreError, match=r"probe\.json: (not a probe|cannot be read)"):
        find_probes(tmp_path)
    path.write_text("[]")
    with pytest.raises(StoreError, match=r"probe\.json: not a probe"):
        find_probes(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"grids": np.array([[9, 9]])}, {"grids": np.array([[0, 2]])}, {"norm": np.zeros((1, 3))},
        {"sample_ids": np.array(["a", "b"])}, {"extents_xyxy": np.zeros((1, 2))},
    ],
)  # fmt: skip
def test_maps_that_do_not_fit(tmp_path, change):
    sound = {
        "sample_ids": np.array(["a"]), "grids": np.array([[2, 2]]), "extents_xyxy": np.zeros((1, 4)),
        "attention": np.zeros((1, 4)), "norm": np.zeros((1, 4)),
    }  # fmt: skip
    np.savez(tmp_path / "maps.npz", **sound)
    assert read_maps(tmp_path)["grids"].tolist() == [[2, 2]]
    np.savez(tmp_path / "maps.npz", **(sound | change))
    with pytest.raises(StoreError, match="do not fit each other"):
        read_maps(tmp_path)
    (tmp_path / "maps.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(StoreError, match="cannot be read"):
        read_maps(tmp_path)


def test_maps_never_unpickle(tmp_path):
    np.savez(tmp_path / "maps.npz", sample_ids=np.array([{"a": 1}], dtype=object))
    with pytest.raises(StoreError, match="cannot be read"):
        read_maps(tmp_path)


def write_trio(data_dir, results):
    """Runs and probes of base, NTP and NTP + KLAL on the test split of grid_patch, with maps, two seeds."""
    from fixture_runs import write_run

    split = read_split(data_dir, "grid_patch", "test")
    ids = [s.sample_id for s in split.samples]
    right = {"base": 0, "ntp": 1, "klal": len(ids)}
    for stage, count in right.items():
        for seed in (0, 1):
            verdicts = ["correct"] * count + ["wrong"] * (len(ids) - count)
            run = write_run(
                results, verdicts, model=f"tiny-qwen-{stage}", scale="tiny", task="grid_patch", sample_ids=ids,
                hash8=f"0000000{seed}", fingerprint=split.fingerprint, training={"seed": seed},
                ran_on={"system": "Linux", "machine": "x86_64", "cpus": "2", "device": "cpu", "torch": "1", "transformers": "2"},
            )  # fmt: skip
            folder = results / "probes" / f"tiny-qwen-{stage}" / f"grid_patch-test-0000000{seed}"
            stored(
                folder, [row(i, 2.0, ratio=(1.0 + count, 1.0)) for i in ids], model=f"tiny-qwen-{stage}", seed=seed,
                task="grid_patch", fingerprint=split.fingerprint, run=run.relative_to(results / "runs").as_posix(),
            )  # fmt: skip
            np.savez_compressed(
                folder / "maps.npz", sample_ids=np.array(ids[:2]), grids=np.array([[2, 2]] * 2),
                extents_xyxy=np.array([[0.0, 0, 672, 672]] * 2), attention=np.full((2, 4), 0.25, np.float32),
                norm=np.arange(8, dtype=np.float32).reshape(2, 4),
            )  # fmt: skip
    return ids


def test_tables_and_figures_of_a_scale(data_dir, tmp_path):
    ids = write_trio(data_dir, tmp_path)
    figures = evalkit(data_dir, tmp_path, "figures", "--scale", "tiny")
    assert figures.exit_code == 0, figures.output
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {
        f"{n}.{k}"
        for n in ("fig3-qwen", "fig4-grid_patch", "fig5-qwen", "layers-grid_patch")
        for k in ("png", "svg")
    } == names
    again = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    shutil.rmtree(tmp_path / "figures")
    assert evalkit(data_dir, tmp_path, "figures", "--scale", "tiny").exit_code == 0
    for name, content in again.items():
        assert (tmp_path / "figures" / name).read_bytes() == content, f"{name}: the same input, other bytes"
    tables = evalkit(data_dir, tmp_path, "tables", "--scale", "tiny", "--json")
    assert tables.exit_code == 0, tables.output
    document = json.loads(tables.output)
    group = next(g for g in document["tables"][1]["groups"] if g["name"] == "Qwen2.5-VL")
    base, ntp, klal = (r["cells"][0]["ours"] for r in group["rows"])
    n = len(ids)
    assert (base["correct"], ntp["correct"], klal["correct"], klal["n"]) == (0, 2, 2 * n, 2 * n)
    assert [s["seed"] for s in klal["seeds"]] == [0, 1]
    gain = next(g for g in document["tables"][1]["gains"] if g["label"] == "NTP + KLAL")
    assert gain["difference"] == pytest.approx((n - 1) / n)
    assert [s["p"] for s in gain["seeds"]] == [pytest.approx(2 * 0.5 ** (n - 1))] * 2
    assert gain["p_holm"] == pytest.approx(min(1, 2 * gain["p"]))
    html, text = ((tmp_path / "tables" / f"tiny.{kind}").read_text() for kind in ("html", "md"))
    for page in (html, text):
        assert "not the paper’s models" in page
        assert "2 CPUs, device cpu" in page
        assert "27.91" not in page, "a printed number stands beside a tiny one"
    assert "data:image/png;base64" in html


def test_other_probes_and_other_data_stay_out_of_tables_and_figures(data_dir, tmp_path):
    """A probe of gold answers, an older one, and a run on other data change nothing."""
    from fixture_runs import write_run

    from evalkit.probes import paper_probes

    ids = write_trio(data_dir, tmp_path)
    before = [probe.folder for probe in paper_probes(tmp_path)]
    assert len(before) == 6
    for name, meta in (("gold", {"answer": "gold"}), ("eos", {"query": "eos"})):
        folder = tmp_path / "probes" / "tiny-qwen-klal" / f"grid_patch-test-{name}"
        stored(folder, [row("x", 9.0)], seed=0, task="grid_patch", **meta)
    assert [probe.folder for probe in paper_probes(tmp_path)] == before
    write_run(
        tmp_path, ["wrong"] * len(ids), model="tiny-qwen-klal", scale="tiny", task="grid_patch", sample_ids=ids,
        hash8="99999999", fingerprint="other", training={"seed": 0}, date="2030-01-01", ran_on={},
    )  # fmt: skip
    document = json.loads(evalkit(data_dir, tmp_path, "tables", "--scale", "tiny", "--json").output)
    group = next(g for g in document["tables"][1]["groups"] if g["name"] == "Qwen2.5-VL")
    assert group["rows"][2]["cells"][0]["ours"]["correct"] == 2 * len(ids)


def test_a_probe_cannot_point_outside_of_the_runs(data_dir, tmp_path):
    write_trio(data_dir, tmp_path)
    for path in (tmp_path / "probes").glob("*/*/probe.json"):
        meta = json.loads(path.read_text())
        path.write_text(json.dumps(meta | {"run": "../../../etc"}))
    result = evalkit(data_dir, tmp_path, "figures", "--scale", "tiny")
    assert result.exit_code == 1
    assert "lies outside of" in result.output


def test_no_probes_no_figures(data_dir, tmp_path):
    result = evalkit(data_dir, tmp_path, "figures", "--scale", "tiny")
    assert result.exit_code == 0
    assert "No probes of these models" in result.output
