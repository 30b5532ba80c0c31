"""SIGKILL at random moments loses no stored reply and asks for none twice."""

from benchmarks.kill_resume import kill_and_resume


def test_kill_and_resume(tmp_path):
    outcome = kill_and_resume(tmp_path, kills=6, latency_s=0.01, n=100)
    assert outcome.status == "complete"
    assert outcome.rows == outcome.distinct == outcome.samples == 80
    assert outcome.asked_again == 0
    assert outcome.in_flight_repeated <= outcome.kills
