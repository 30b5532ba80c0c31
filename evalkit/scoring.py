"""One reply -> its verdict: what finished how, what the parser reads, what the metric says."""

from dataclasses import dataclass
from typing import Any

from evalkit.frames import Frame, to_pixels
from evalkit.metrics import METRICS
from evalkit.parsers import parse
from evalkit.records import Answer, FinishReason, Verdict


@dataclass(frozen=True, slots=True)
class Scorer:
    """How replies of one run are read.

    frame: of the coordinates in the replies; None for tasks without coordinates.
    """

    parser: str
    metric: str
    frame: Frame | None

    def score(
        self,
        text: str | None,
        finish_reason: FinishReason,
        gold: Answer,
        image_size_wh: tuple[int, int],
        error: str | None = None,
    ) -> dict[str, Any]:
        """The scored part of a row: answer, verdict, reason, and distance or iou where they apply.

        A reply that was cut off at the token limit is `truncated` whatever can be read in it: the
        number that ends a chopped chain of thought is not the model's answer.
        """
        if text is None:
            return _row("failed", reason=error or "no reply")
        if finish_reason == "content_filter":
            return _row("blocked", reason="filtered by the provider")
        parsed = parse(self.parser, text)
        if finish_reason == "length":
            return _row("truncated", answer=parsed.answer, reason="cut off at the token limit")
        if parsed.status == "blocked":
            return _row("blocked", reason=parsed.reason)
        if parsed.answer is None:
            return _row("unparsed", reason=parsed.reason)
        return self._judge(parsed.answer, gold, image_size_wh)

    def _judge(self, answer: Answer, gold: Answer, image_size_wh: tuple[int, int]) -> dict[str, Any]:
        in_pixels = answer
        if self.frame is not None and isinstance(answer, list):
            in_pixels = to_pixels(answer, self.frame, image_size_wh)
        score = METRICS[self.metric](in_pixels, gold, image_size_wh)
        row = _row("correct" if score.correct else "wrong", answer=answer)
        if self.frame is not None:
            row["answer_px"] = in_pixels
        extras = {
            "distance": score.distance,
            "iou": score.iou,
            "correct_floor_cell": score.correct_floor_cell,
            "beyond_image": score.beyond_image,
        }
        return row | {key: value for key, value in extras.items() if value is not None}


# The keys of a row that scoring writes; `evalkit score` replaces exactly these.
SCORED_KEYS = (
    "answer",
    "answer_px",
    "verdict",
    "reason",
    "distance",
    "iou",
    "correct_floor_cell",
    "beyond_image",
)


def _row(verdict: Verdict, answer: Answer | None = None, reason: str | None = None) -> dict[str, Any]:
    return {"answer": answer, "verdict": verdict, "reason": reason}
