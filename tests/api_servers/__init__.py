"""Providers' APIs on 127.0.0.1 that misbehave on demand: the independent witness of what a client did.

    with ApiServer("openai", Script(faults=FaultPlan({"rate_limit": 0.1})), tmp_path / "log.jsonl") as server:
        ...  # a client of server.url
        assert server.log.answered_twice() == []

`ServerProcess` is the same server as a process of its own, for clients that are killed.
"""

from .faults import FaultPlan
from .items import item_id
from .log import RequestLog
from .running import PROVIDERS, ApiServer, ServerProcess
from .script import BatchScript, Script

__all__ = [
    "PROVIDERS",
    "ApiServer",
    "BatchScript",
    "FaultPlan",
    "RequestLog",
    "Script",
    "ServerProcess",
    "item_id",
]
