"""What a person sees of a training: both losses, rate and remaining time on a terminal, nothing in a log."""

import time
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback


class Progress(TrainerCallback):
    """A bar on a terminal, and the history of losses for training.json."""

    def __init__(self, label: str, history: list[dict[str, float]]) -> None:
        self._label, self.history = label, history
        self._bar: Any = None
        self.seconds = 0.0
        self._since = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._since = time.monotonic()
        # a resumed run's history comes from its checkpoint
        self.history[:] = [_facts(entry) for entry in state.log_history if "loss" in entry]
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=self._label,
            unit="step",
            disable=None if state.is_world_process_zero else True,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        if logs and "loss" in logs:
            entry = _facts({**logs, "step": state.global_step})
            self.history.append(entry)
            shown = {name: f"{entry[name]:.3f}" for name in ("ntp", "klal") if name in entry}
            self._bar.set_postfix(shown, refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.seconds = time.monotonic() - self._since
        self._bar.close()


def _facts(entry: dict[str, Any]) -> dict[str, float]:
    names = ("step", "epoch", "loss", "ntp", "klal", "grad_norm", "learning_rate")
    return {name: float(entry[name]) for name in names if name in entry}
