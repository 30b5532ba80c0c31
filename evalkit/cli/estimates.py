"""What a run would ask and cost, before it asks; and the budget while it does."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.common import note, print_json

if TYPE_CHECKING:
    from evalkit.costs import Budget
    from evalkit.records import Prompt
    from evalkit.runner import Plan
    from model_adapters import ModelEntry


@dataclass(frozen=True, slots=True)
class Costs:
    """What a run may cost: the estimate before it is asked, and the limit while it is."""

    entry: "ModelEntry"
    plan: "Plan"
    batch: bool
    max_usd: float | None

    @property
    def paid_singly(self) -> bool:
        """Whether each request in flight is money: with an API, but for its batches."""
        from model_adapters.settings import API_KINDS

        return self.entry.adapter in API_KINDS and not self.batch

    def budget(self) -> "Budget":
        from evalkit.costs import Budget
        from model_adapters.estimate import estimate

        prices = self.entry.prices.model_dump() if self.entry.prices else None
        if self.max_usd is None or prices is None:
            return Budget(None, prices)
        return Budget(
            self.max_usd, prices, lambda prompt: estimate(self.entry, [prompt]).usd(prices, batch=self.batch)
        )

    def warn(self) -> None:
        prices = self.entry.prices
        if self.max_usd is not None and prices is None:
            note(f"{self.entry.name} has no prices in the registry: --max-cost cannot stop it.")
        if prices is not None and prices.until is not None and date.today().isoformat() > prices.until:
            note(f"The prices of {self.entry.name} were announced until {prices.until}: read them again.")

    def facts(self, to_ask: "list[Prompt]") -> dict[str, Any]:
        """About what asking these questions costs; empty for models that cost nothing."""
        from model_adapters.estimate import estimate

        if self.entry.image_tokens is None and self.entry.prices is None:
            return {}
        about, prices = estimate(self.entry, to_ask), self.entry.prices
        return {
            "input_tokens": about.input_tokens,
            "output_tokens_at_most": about.output_tokens,
            "cost_usd_at_most": round(about.usd(prices.model_dump(), batch=self.batch), 4)
            if prices
            else None,
            "prices": f"{prices.source}, read {prices.date}" if prices else "none in the registry",
        }


def show_plan(plan: "Plan", folder: Path, costs: Costs, as_json: bool) -> None:
    """What a run would ask, and about what it would cost; asks nothing."""
    from evalkit.store import read_rows

    stored = {row["sample_id"] for row in read_rows(folder) if row["verdict"] != "failed"}
    to_ask = [prompt for prompt in plan.prompts if prompt.sample_id not in stored]
    facts = {
        "model": plan.model["name"],
        "task": plan.task.name,
        "split": plan.split.name,
        "n": len(plan.prompts),
        "n_split": len(plan.split.samples),
        "stored": len(stored),
        "to_ask": len(to_ask),
        "max_new_tokens": plan.task.max_new_tokens,
        **costs.facts(to_ask),
        "first_prompt": plan.prompts[0].text,
        "run": str(folder),
    }
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        click.echo(f"{key.replace('_', ' '):<21} {'unknown' if value is None else value}")
