"""About how many tokens a question costs with a hosted model, before it is asked; and what they cost.

Input of an image by the provider's published rule, text at three characters a token (English needs about four,
so it is a little high), output at most the task's limit and the room for reasoning. A run stores what the
provider counted.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evalkit.records import Prompt
from model_adapters.registry import ImageTokens, ModelEntry

CHARACTERS_PER_TOKEN = 3


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens of some questions; output_tokens is the most that the limits allow."""

    input_tokens: int
    output_tokens: int

    def usd(self, prices: Mapping[str, Any], *, batch: bool = False) -> float:
        factor = prices["batch_factor"] if batch else 1.0
        tokens_usd = self.input_tokens * prices["input_usd"] + self.output_tokens * prices["output_usd"]
        return float(tokens_usd) * factor / 1e6


def estimate(entry: ModelEntry, prompts: Iterable[Prompt]) -> Estimate:
    """Of all these questions together."""
    room = int(entry.options.get("reasoning_room", 0))
    n_input = n_output = 0
    for prompt in prompts:
        n_input += text_tokens(prompt.text) + image_tokens(
            entry.image_tokens, prompt.image_size_wh, entry.options
        )
        n_output += prompt.max_new_tokens + room
    return Estimate(n_input, n_output)


def text_tokens(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def image_tokens(rule: ImageTokens | None, size_wh: tuple[int, int], options: Mapping[str, Any]) -> int:
    """Tokens of one image. `detail: low` counts the base alone under tiles_512.

    tiles_512:  base + per_tile for every 512 px tile, after a fit into 2048 x 2048 and a shorter side of at
                most 768 px (OpenAI's GPT-4o: 85 and 170,
                https://platform.openai.com/docs/guides/images-vision#calculating-costs)
    patches_32: patches of 32 x 32 px, at most `limit`, times `factor` (OpenAI's later models, same page)
    tiles_768:  `base` for an image of up to 384 x 384 px, else per_tile for every 768 px tile (Gemini 2: 258,
                https://ai.google.dev/gemini-api/docs/tokens)
    fixed:      base, whatever the size
    """
    if rule is None:
        return 0
    width, height = size_wh
    match rule.rule:
        case "tiles_512":
            return (
                rule.base
                if options.get("detail") == "low"
                else rule.base + rule.per_tile * _tiles_512(size_wh)
            )
        case "patches_32":
            patches = math.ceil(width / 32) * math.ceil(height / 32)
            return math.ceil(min(patches, rule.limit or patches) * rule.factor)
        case "tiles_768":
            small = max(width, height) <= 384
            return rule.base if small else rule.per_tile * math.ceil(width / 768) * math.ceil(height / 768)
        case "fixed":
            return rule.base


def _tiles_512(size_wh: tuple[int, int]) -> int:
    shrink = min(1.0, 2048 / max(size_wh))
    width, height = (side * shrink for side in size_wh)
    shrink = min(1.0, 768 / min(width, height))
    return math.ceil(width * shrink / 512) * math.ceil(height * shrink / 512)
