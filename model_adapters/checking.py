"""Whether a hosted model is there for this key: its endpoint is asked for its description, not for an answer."""

import asyncio

from model_adapters.asking import Asker
from model_adapters.loading import asker_of
from model_adapters.registry import ModelEntry
from model_adapters.retry import Fault, Limits

_DEADLINE_S = 20.0


def check(entry: ModelEntry) -> str | None:
    """None where the endpoint knows the model; else why not, in one line."""
    return asyncio.run(_look(asker_of(entry, Limits(concurrency=1))))


async def _look(asker: Asker) -> str | None:
    await asker.open()
    try:
        async with asyncio.timeout(_DEADLINE_S):
            await asker.look()
    except Fault as fault:
        return fault.message
    except TimeoutError:
        return f"no answer within {_DEADLINE_S:g} s"
    finally:
        await asker.close()
    return None
