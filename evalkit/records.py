"""The values that travel: Sample -> Prompt -> Reply -> Row; and the Adapter that answers prompts."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Verdict = Literal["correct", "wrong", "unparsed", "blocked", "truncated", "failed"]
VERDICTS: tuple[Verdict, ...] = ("correct", "wrong", "unparsed", "blocked", "truncated", "failed")

FinishReason = Literal["stop", "length", "content_filter", "error"]

# int (a count), "yes" | "no", point_xy or bbox_xyxy as lists of floats
Answer = int | str | list[float]


@dataclass(frozen=True, slots=True)
class Sample:
    """One question on one image, as it stands in metadata.jsonl.

    gold is an int, "yes"/"no", a `point_xy_px` or a `bbox_xyxy`; coordinates here and in `geometry`
    are continuous pixels of the original image, origin top-left, x right, y down.
    """

    sample_id: str
    image_id: str  # the cluster: questions on one image are not independent
    split: str
    image_path: Path
    image_size_wh: tuple[int, int]
    pixels_sha256: str | None  # over decoded pixels, not file bytes; None: prepared without its images
    gold: Answer
    stratum: str  # the class that splits and --limit keep in proportion
    variables: Mapping[str, Any]  # what the prompt template may name
    geometry: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked: one image and one text."""

    sample_id: str
    text: str
    image_path: Path
    image_size_wh: tuple[int, int]
    max_new_tokens: int
    sha256: str  # over the text, the image's pixels and max_new_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `text is None` means that no answer reached us; `error` then says why."""

    sample_id: str
    text: str | None
    finish_reason: FinishReason
    latency_s: float
    usage: Mapping[str, int] = field(default_factory=dict)  # input_tokens, output_tokens
    answered_by: str | None = None  # the model name the server returned
    attempts: int = 1
    error: str | None = None
    batched: bool = False  # answered by a provider's batch service, at its price


class Adapter(Protocol):
    """A model that answers prompts. Replies may come in any order, each exactly once.

    Prompts are drawn when there is room to ask them: the runner ends a run by handing out no more, and
    those that were drawn are answered still. A reply counts as paid for once it is yielded: the runner
    stores it durably before it asks for the next. One item's failure is a Reply with an `error`; an
    exception ends the run.

    One that can run as several copies (see model_adapters.replica) says how it is fed: `at_once`, the prompts it
    works on at a time, and `gathers`, whether it draws all that there are before it answers the first. One that
    does not gather may be handed prompts that block until there is another, and lets that hold up no reply.
    """

    def replies(self, prompts: Iterable[Prompt]) -> Iterator[Reply]: ...

    def describe(self) -> Mapping[str, str]:
        """What answered and on what: versions, device, dtype, checkpoint; stored in run.json."""
        ...

    def close(self) -> None: ...
