"""The loopback servers themselves: their plans, logs, switches, limits, and their life as processes."""

import asyncio
import random
import socket
import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import pytest

for package in ("aiohttp", "openai", "google.genai"):
    pytest.importorskip(package, reason="the `api` extra is not installed")

import openai  # noqa: E402
from api_servers import ApiServer, FaultPlan, Script, ServerProcess, item_id  # noqa: E402
from api_servers.clients import PNG, ask_gemini, ask_openai, ask_openai_later, chat, generate  # noqa: E402
from google import genai  # noqa: E402
from google.genai import errors, types  # noqa: E402

ALWAYS = float("inf")


@pytest.mark.parametrize("provider", ["openai", "gemini"])
def test_the_server_knows_an_item_again_and_keeps_no_key(provider, tmp_path):
    def answer(text, size_wh):
        return f"{text} {size_wh[0]} x {size_wh[1]}"

    ask = {"openai": ask_openai, "gemini": ask_gemini}[provider]
    script = Script(faults=FaultPlan({"503": 1.0}, times={"503": 2}), answer=answer)
    with ApiServer(provider, script, tmp_path / "log.jsonl") as server:
        for _ in range(2):
            with pytest.raises((openai.InternalServerError, errors.ServerError)):
                ask(server, "How many?")
        replies = [ask(server, "How many?") for _ in range(2)]
        text = replies[0].text if provider == "gemini" else replies[0].choices[0].message.content
        item, log = item_id("How many?", PNG), server.log
        assert text == "How many? 48 x 32"
        assert (log.items(), log.attempts(item), log.count(503), log.count(200)) == ([item], 4, 2, 2)
        assert log.answered_twice() == [item]
        assert [line["attempt"] for line in log.lines("arrived")] == [1, 2, 3, 4]
        assert len({line["key_sha256"] for line in log.lines("arrived")}) == 1
        assert '"k"' not in log.path.read_text()


def faults_by_item(plan, n=4000):
    return [plan.fault_of_item(item_id(f"question {i}", b""), "", i) for i in range(n)]


def test_a_plan_draws_shares_of_items_alike_every_time():
    plan = FaultPlan({"500": 0.1, "slow": 0.05}, seed=3)
    drawn = faults_by_item(plan)
    assert drawn == faults_by_item(FaultPlan({"500": 0.1, "slow": 0.05}, seed=3))
    assert drawn != faults_by_item(FaultPlan({"500": 0.1, "slow": 0.05}, seed=4))
    assert drawn.count("500") == pytest.approx(400, abs=60)  # three sigma of a binomial
    assert drawn.count("slow") == pytest.approx(200, abs=42)


def test_a_plan_prefers_what_is_listed_to_what_is_ordered_to_what_is_drawn():
    item = item_id("question 1", b"")
    plan = FaultPlan({"500": 1.0}, listed={item: "503", "blue": "504"}, ordered=("401", "402", "ok"))
    assert [plan.fault_of_item(item_id(f"question {i}", b""), "", i) for i in range(4)] == [
        *("401", "503", "ok", "500")
    ]
    assert plan.fault_of_item("x", "the blue line", 0) == "504"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda log: FaultPlan({"500": 0.7, "slow": 0.4}), "sum to at most 1"),
        (
            lambda log: ApiServer("openai", Script(faults=FaultPlan({"600": 1.0})), log),
            "No fault named '600'",
        ),
        (lambda log: ApiServer("gemini", Script(ops={"create": ("refusal",)}), log), "named 'refusal'"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(make, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "log.jsonl")


def test_switches_flip_while_it_runs(tmp_path):
    with ApiServer("openai", Script(), tmp_path / "log.jsonl") as server:
        assert ask_openai(server, "1").choices
        server.control(all="401", after=3)
        assert ask_openai(server, "2").choices
        for text in ("3", "4"):
            with pytest.raises(openai.AuthenticationError):
                ask_openai(server, text)
        server.control(off=True)
        assert ask_openai(server, "5").choices
        with pytest.raises(urllib.error.HTTPError, match="400"):
            server.control(all="no such fault")
        assert server.log.count() == 5  # control is not logged


def test_a_door_that_closes_for_a_while(tmp_path):
    with ApiServer("openai", Script(), tmp_path / "log.jsonl") as server:
        server.control(refuse_s=0.5)
        time.sleep(0.15)
        with pytest.raises(openai.APIConnectionError) as caught:
            ask_openai(server, "shut")
        assert "refused" in str(caught.value.__cause__)
        time.sleep(0.7)
        assert ask_openai(server, "open").choices
        assert server.log.count() == 1


@pytest.mark.parametrize("provider", ["openai", "gemini"])
def test_keys_and_models_that_are_not_known(provider, tmp_path):
    script = Script(key="right", models=("m",))
    with ApiServer(provider, script, tmp_path / "log.jsonl") as server:
        if provider == "openai":
            with pytest.raises(openai.AuthenticationError):
                ask_openai(server, "?")
            client = openai.OpenAI(api_key="right", base_url=server.url + "/v1", max_retries=0)
            assert [model.id for model in client.models.list()] == ["m"]
            assert client.models.retrieve("m").id == "m"
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve("n")
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(**{**chat("?"), "model": "n"})
            client.close()
        else:
            with pytest.raises(errors.ClientError, match="API_KEY_INVALID"):
                ask_gemini(server, "?")
            with genai.Client(api_key="right", http_options=types.HttpOptions(base_url=server.url)) as client:
                assert [model.name for model in client.models.list()] == ["models/m"]
                assert client.models.get(model="m").name == "models/m"
                with pytest.raises(errors.ClientError, match="NOT_FOUND"):
                    client.models.get(model="n")
                with pytest.raises(errors.ClientError, match="NOT_FOUND"):
                    client.models.generate_content(**{**generate("?"), "model": "n"})


def test_a_limit_of_rate_lets_a_burst_through_and_says_when_to_come_again(tmp_path):
    async def burst(server):
        async with openai.AsyncOpenAI(api_key="k", base_url=server.url + "/v1", max_retries=0) as client:
            asked = [client.chat.completions.create(**chat(str(i))) for i in range(30)]
            refused = [
                e for e in await asyncio.gather(*asked, return_exceptions=True) if isinstance(e, Exception)
            ]
            waits = [int(error.response.headers["retry-after-ms"]) for error in refused]
            await asyncio.sleep(max(waits) / 1000)
            await client.chat.completions.create(**chat("later"))
            return waits

    with ApiServer("openai", Script(rate=5.0, burst=10), tmp_path / "log.jsonl") as server:
        waits = asyncio.run(burst(server))
        assert 0 < min(waits) <= max(waits) <= 200  # 5 a second
        assert server.log.count(429) == len(waits)
        assert 16 <= len(waits) <= 20  # 10 at once, and what came in while they were asked
        assert server.log.count(fault="over_rate") == len(waits)
        assert server.log.most("in_flight") > 1


@pytest.mark.parametrize("provider", ["openai", "gemini"])
@pytest.mark.parametrize("tells_delay", [True, False])
def test_a_limit_of_rate_may_keep_the_delay_to_itself(provider, tells_delay, tmp_path):
    ask = {"openai": ask_openai, "gemini": ask_gemini}[provider]
    script = Script(rate=0.1, burst=1, tells_delay=tells_delay)
    with ApiServer(provider, script, tmp_path / "log.jsonl") as server:
        ask(server, "1")
        with pytest.raises((openai.RateLimitError, errors.ClientError)) as caught:
            ask(server, "2")
        told = {**caught.value.response.headers, **getattr(caught.value, "details", {}).get("error", {})}
        assert ("retry-after-ms" in told or "retryDelay" in str(told.get("details"))) == tells_delay


def test_latency_has_the_median_and_the_spread_that_are_asked_for(tmp_path):
    script, draw = Script(latency_s=0.05, latency_sigma=0.5), random.Random(1)
    drawn = sorted(script.latency(draw) for _ in range(2001))
    assert drawn[1000] == pytest.approx(0.05, rel=0.1)
    assert drawn[1683] / drawn[1000] == pytest.approx(2.718**0.5, rel=0.1)  # one sigma up
    with ApiServer("openai", Script(latency_s=0.2), tmp_path / "log.jsonl") as server:
        ask_openai(server, "?")
        assert 0.19 < server.log.seconds() < 0.6


def test_an_answer_to_a_client_that_has_gone_is_none(tmp_path):
    async def hang_up(server):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await ask_openai_later(server, "?")

    with ApiServer("openai", Script(latency_s=0.5), tmp_path / "log.jsonl") as server:
        asyncio.run(hang_up(server))
        time.sleep(0.2)
        (done,) = server.log.lines("done")
        assert (done["status"], done["answered"], done["in_flight"]) == (None, False, 0)


@pytest.mark.parametrize(("provider", "fast"), [("openai", False), ("openai", True), ("gemini", False)])
def test_a_server_as_a_process_of_its_own(provider, fast, tmp_path):
    plan = FaultPlan() if fast else FaultPlan(ordered=("503",), times={"503": ALWAYS})
    ask = {"openai": ask_openai, "gemini": ask_gemini}[provider]
    with ServerProcess(provider, Script(faults=plan, fast=fast), tmp_path / "log.jsonl") as server:
        if not fast:
            with pytest.raises((openai.InternalServerError, errors.ServerError)):
                ask(server, "first")
        ask(server, "second")
        server.control(all="500")
        assert server.log.count(200) == 1
        process = server._process
    assert process.returncode == 0
    assert server.log.lines("arrived")[-1]["bytes"] > len(PNG)


def test_a_server_process_ends_with_the_one_that_started_it(tmp_path):
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.api_servers import Script, ServerProcess\n"
        "with ServerProcess('openai', Script(), Path(sys.argv[1])) as server:\n"
        "    print(server.url, flush=True)\n"
        "    time.sleep(60)\n"
    )
    root = Path(__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "log.jsonl")],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        port = int(owner.stdout.readline().rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port)).close()
        owner.kill()
    for _ in range(100):
        with socket.socket() as door:
            if door.connect_ex(("127.0.0.1", port)):
                return  # refused
        time.sleep(0.05)
    pytest.fail("the server listens still")
