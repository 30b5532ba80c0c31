"""`point` and `box`: coordinates as models write them, in the order and frame of the text.

Tags (`<point x= y=>`, `<points x1= y1=>`, `<points coords=>`, `<|box_start|>`, `{<1><2><3><4>}`), JSON with
or without a fence, bracket lists, prose ("x = 3, y = 4"). One place was asked for: a reply with several different ones
commits to none, unless it marks one as its answer.
"""

import re
from collections.abc import Callable

from evalkit.parsers.result import Parsed, found, nothing
from evalkit.parsers.text import clean, is_refusal

_N = r"[-+]?\d{1,9}(?:\.\d{1,12})?"
_NUMBER = re.compile(_N)
_POINT_TAG = re.compile(r"<points?\b([^<>]{0,4000})>", re.IGNORECASE)
_ATTRIBUTE = re.compile(rf"\b([xy])(\d*)\s*=\s*[\"']?\s*({_N})\s*[\"']?", re.IGNORECASE)
_COORDS = re.compile(r"\bcoords\s*=\s*[\"']([^\"']*)[\"']", re.IGNORECASE)
_BOX_TOKENS = re.compile(
    r"<\|box_start\|>(.{0,200}?)<\|box_end\|>|<box>(.{0,200}?)</box>|\{((?:<\d{1,4}>){2,4})\}",
    re.DOTALL | re.IGNORECASE,
)
_POINT_KEY = re.compile(
    r"[\"'](?:point_2d|point|points|coordinates?|position|location|center)[\"']\s*:\s*(?=[\[({])",
    re.IGNORECASE,
)
_BOX_KEY = re.compile(
    r"[\"'](?:bbox_2d|box_2d|bbox|box|bounding_box|boundingbox)[\"']\s*:\s*(?=[\[({])", re.IGNORECASE
)
_XY_KEYS = re.compile(
    rf"[\"']?\bx[\"']?\s*[:=]\s*[\"']?({_N})[\"']?\s*(?:,|;|and|\s)\s*[\"']?\by[\"']?\s*[:=]\s*[\"']?({_N})",
    re.I,
)
_COLUMN_ROW = re.compile(
    rf"\bcolumn\s*(?:is|=|:)?\s*({_N})\s*(?:,|;|and|\s)+\s*row\s*(?:is|=|:)?\s*({_N})", re.I
)
_SIDES = (r"x_?min|x1|left", r"y_?min|y1|top", r"x_?max|x2|right", r"y_?max|y2|bottom")
_CORNERS = re.compile(
    r".{0,12}?".join(rf"[\"']?\b(?:{side})[\"']?\s*[:=]\s*({_N})" for side in _SIDES),
    re.IGNORECASE | re.DOTALL,
)
_MARK = re.compile(
    r"\b(?:final answer|answer|correct (?:output|answer|box|bounding box|point))\b[\s*_]*(?:is|are|would be|=|:)+\s*",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"^\W{0,4}(?:is|are|was|were)?\s*(?:not|wrong|incorrect)\b|^\W{0,4}is(?:n't)\b", re.IGNORECASE
)
# Innermost bracket groups that hold numbers alone.
_GROUP = re.compile(r"[\[({]([-+\d.,;\s]{1,200})[\])}]")
_OPEN, _CLOSE = "[({", "])}"

Place = list[float]
_PLURAL = {"point": "points", "box": "boxes"}


def point(reply: str) -> Parsed:
    """[x, y] as stated, or why there is none."""
    return _read(reply, _points_in, "point")


def box(reply: str) -> Parsed:
    """Four numbers as stated, corners reduced to min and max, or why there is none."""
    return _read(reply, _boxes_in, "box")


def _read(reply: str, places_in: Callable[[str], list[Place]], what: str) -> Parsed:
    text = clean(reply)
    if not text:
        return nothing("empty")
    marks = list(_MARK.finditer(text))
    for part in ([text[marks[-1].end() :]] if marks else []) + [text]:
        places = _distinct(places_in(part))
        if len(places) == 1:
            return found(places[0])
        if len(places) > 1:
            return nothing(f"{len(places)} different {_PLURAL[what]} where one was asked for")
        if marks and part.lstrip(" `\n*").startswith(("[]", "[ ]", "none", "None", "()")):
            return nothing(f"the marked answer holds no {what}")
    if is_refusal(text):
        return Parsed(None, "blocked", "a refusal")
    return nothing(f"no complete {what}")


def _distinct(places: list[Place]) -> list[Place]:
    return [place for i, place in enumerate(places) if place not in places[:i]]


def _points_in(text: str) -> list[Place]:
    if tags := list(_POINT_TAG.finditer(text)):
        return [place for tag in tags for place in _tag_points(tag[1])]
    if re.search(r"<points?\b", text, re.IGNORECASE):
        return []  # a tag that was cut off
    if tokens := _BOX_TOKENS.findall(text):
        return [n for pair in tokens if len(n := _numbers("".join(pair))) == 2]
    if _POINT_KEY.search(text):
        return [p for group in _keyed(text, _POINT_KEY) for p in _as_points(group)]
    if _BOX_KEY.search(text):
        return []  # a box is no point
    groups = [g for g in _groups(text) if len(g) == 2]
    if groups or _groups(text):
        return groups
    pairs = [*_XY_KEYS.findall(text), *_COLUMN_ROW.findall(text)]
    if pairs:
        return [[float(x), float(y)] for x, y in pairs]
    bare = re.fullmatch(rf"\W*({_N})\s*[,;\s]\s*({_N})\W*", text)
    return [[float(bare[1]), float(bare[2])]] if bare else []


def _tag_points(attributes: str) -> list[Place]:
    if coords := _COORDS.search(attributes):
        return _molmo2_points(coords[1])
    values: dict[str, dict[str, float]] = {}
    for axis, index, number in _ATTRIBUTE.findall(attributes):
        values.setdefault(index, {})[axis.lower()] = float(number)
    return [[pair["x"], pair["y"]] for pair in values.values() if {"x", "y"} <= pair.keys()]


def _molmo2_points(coords: str) -> list[Place]:
    """`frame i x y i x y ...`, frames parted by tabs or semicolons (Molmo2's compact form)."""
    places = []
    for frame in re.split(r"[\t;]", coords):
        numbers = _numbers(frame)
        rest = numbers[1:]
        if not numbers or len(rest) % 3:
            return []
        places += [[rest[i + 1], rest[i + 2]] for i in range(0, len(rest), 3)]
    return places


def _boxes_in(text: str) -> list[Place]:
    if tokens := _BOX_TOKENS.findall(text):
        return [b for pair in tokens if (b := _as_box(_numbers("".join(pair)))) is not None]
    if _BOX_KEY.search(text):
        return [b for group in _keyed(text, _BOX_KEY) if (b := _as_box(_numbers(group))) is not None]
    if _POINT_KEY.search(text):
        return []
    if corners := _CORNERS.findall(text):
        return [[float(v) for v in four] for four in corners]
    return _bracketed_boxes(text)


def _bracketed_boxes(text: str) -> list[Place]:
    """Groups of four; two pairs in a row are two corners, four pairs are four."""
    places: list[Place] = []
    run: list[float] = []
    end = -1
    for match in _GROUP.finditer(text):
        numbers = _numbers(match[1])
        if _DENIED.match(re.sub(r"^[\])}]+", "", text[match.end() : match.end() + 30]).lstrip()):
            continue
        if len(numbers) != 2:
            places += [b for b in (_as_box(run), _as_box(numbers)) if b is not None]
            run = []
            continue
        joined = end >= 0 and re.fullmatch(r"[\s,;]*(?:and|to|-)?[\s,;]*", text[end : match.start()], re.I)
        if not joined:
            places += [b for b in [_as_box(run)] if b is not None]
            run = []
        run += numbers
        end = match.end()
    places += [b for b in [_as_box(run)] if b is not None]
    if not places and not _GROUP.search(text):
        bare = re.fullmatch(rf"\W*{_N}(?:\s*[,;\s]\s*{_N}){{3}}(?:(?:\s*[,;\s]\s*{_N}){{4}})?\W*", text)
        if bare and (b := _as_box(_numbers(text))) is not None:
            places.append(b)
    return places


def _as_box(numbers: list[float]) -> Place | None:
    """Four numbers as they stand; eight are the corners of an axis-aligned rectangle, or no box."""
    if len(numbers) == 4:
        return numbers
    if len(numbers) != 8:
        return None
    xs, ys = numbers[0::2], numbers[1::2]
    corners = {(x, y) for x, y in zip(xs, ys, strict=True)}
    if len(set(xs)) == 2 and len(set(ys)) == 2 and len(corners) == 4:
        return [min(xs), min(ys), max(xs), max(ys)]
    return None


def _as_points(group: str) -> list[Place]:
    if pair := _XY_KEYS.search(group):
        return [[float(pair[1]), float(pair[2])]]
    inner = [g for g in _groups(group) if len(g) == 2]
    return inner


def _keyed(text: str, key: re.Pattern[str]) -> list[str]:
    """The bracketed value after each key; one that never closes is left out."""
    values = []
    for match in key.finditer(text):
        depth = 0
        for i in range(match.end(), min(len(text), match.end() + 400)):
            depth += (text[i] in _OPEN) - (text[i] in _CLOSE)
            if depth == 0:
                values.append(text[match.end() : i + 1])
                break
    return values


def _groups(text: str) -> list[list[float]]:
    kept = []
    for match in _GROUP.finditer(text):
        after = re.sub(r"^[\])}]+", "", text[match.end() : match.end() + 30]).lstrip()
        if not _DENIED.match(after) and (numbers := _numbers(match[1])):
            kept.append(numbers)
    return kept


def _numbers(text: str) -> list[float]:
    return [float(number) for number in _NUMBER.findall(text)]
