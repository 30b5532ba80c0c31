"""KLAL when the model's weights are sharded: two gloo processes, FSDP2, against the same model whole."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import small_models as small  # noqa: E402

from trainers.attention import row_attention  # noqa: E402
from trainers.klal import klal  # noqa: E402
from trainers.ranks import leave  # noqa: E402

pytestmark = pytest.mark.local
FAMILIES = {
    "qwen2_5_vl": (small.small_qwen, small.qwen_batch),
    "llava": (small.small_llava, small.llava_batch),
}


def loss_and_gradients(model, batch, places):
    request = small.request_for(places)
    out = model(**batch, attention_row=request, use_cache=False)
    loss = out.loss + klal(request.rows, places[3], places[2]).mean()
    request.close()
    loss.backward()
    return float(loss), {
        name: (p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad).clone()
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def sharded(rank, family, checkpointing, place, results):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
    build, make = FAMILIES[family]
    model = build(row_attention("sdpa"), dtype=torch.float32)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.model.language_model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    # both ranks see the same batch: the mean of their gradients is the whole model's
    loss, gradients = loss_and_gradients(model, *make("right", dtype=torch.float32))
    if rank == 0:
        results.put((loss, {name: gradient.numpy() for name, gradient in gradients.items()}))
    torch.distributed.barrier()
    results.close()
    results.join_thread()
    leave()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "checkpointing"), [("qwen2_5_vl", True), ("llava", False)])
def test_two_shards_give_the_same_loss_and_gradient(family, checkpointing, tmp_path):
    build, make = FAMILIES[family]
    expected = loss_and_gradients(
        build(row_attention("sdpa"), dtype=torch.float32), *make("right", dtype=torch.float32)
    )
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    words = (family, checkpointing, str(tmp_path / "meeting"), results)
    processes = [context.Process(target=sharded, args=(rank, *words)) for rank in range(2)]
    for process in processes:
        process.start()
    loss, gradients = results.get(timeout=120)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert loss == pytest.approx(expected[0], rel=1e-5)
    assert gradients.keys() == expected[1].keys()
    found = {name: torch.from_numpy(gradient) for name, gradient in gradients.items()}
    assert small.relative_error(found, expected[1]) < 1e-5
