"""What a question is, whatever the API it came in: its text and its image, and from them its identity."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Question:
    """text: the user's text parts joined; image: the file's bytes, empty without one; body: the request."""

    text: str
    image: bytes
    model: str
    body: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def item(self) -> str:
        return item_id(self.text, self.image)

    @property
    def image_size_wh(self) -> tuple[int, int]:
        """Width and height in pixels as a PNG's header says them; (0, 0) for anything else."""
        if not self.image.startswith(_PNG) or len(self.image) < 24:
            return (0, 0)
        return (int.from_bytes(self.image[16:20], "big"), int.from_bytes(self.image[20:24], "big"))


def item_id(text: str, image: bytes) -> str:
    """The same for every attempt at one question, whatever its other parameters: 16 hex digits of a sha256."""
    return hashlib.sha256(text.encode() + b"\0" + image).hexdigest()[:16]


def text_tokens(text: str) -> int:
    """About what a tokenizer counts."""
    return max(1, (len(text) + 3) // 4)
