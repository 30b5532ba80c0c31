"""One form for many spellings: full-width and odd characters, special tokens, thinking, answer tags."""

import re

# Read at most this many characters, from the end: the final answer stands there. Beyond any answer a
# task asks for (max_new_tokens is 64-128), and small enough that hostile text stays cheap.
MAX_CHARS = 6_000

_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\ufe0e\ufe0f\u20e3\ufffd"
_FOLDED = {
    **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full-width ASCII
    **{chr(0x0660 + digit): str(digit) for digit in range(10)},  # Arabic-Indic digits
    **{chr(0x06F0 + digit): str(digit) for digit in range(10)},  # and their Persian forms
    **dict.fromkeys(_SPACES, " "),
    **dict.fromkeys(_INVISIBLE),
    **dict.fromkeys("\r\u2028\u2029\u0085\v\f", "\n"),
    **dict.fromkeys("\u2018\u2019\u02bc\u00b4", "'"),
    **dict.fromkeys("\u201c\u201d\u300c\u300d", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\u2015", "-"),
    **dict.fromkeys((chr(code) for code in range(0x20) if chr(code) not in "\t\n\r\v\f"), " "),
    "\u2014": " - ",
    "\u3001": ", ",
    "\u3002": ". ",
    "\u3010": "[",
    "\u3011": "]",
    "\u00d7": "*",
}
_FOLD = str.maketrans(_FOLDED)

# Chat and vocabulary tokens that leak into decoded text. Box, point and quad tokens carry structure and
# become brackets; the double bracket keeps a quad apart, whose corners need not be axis-aligned.
_BRACKETS = re.compile(r"<\|?(/?)(box|point|quad)(_start|_end)?\|?>", re.IGNORECASE)
_TOKENS = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|</?(?:s|p|bos|eos|pad|unk|end_of_turn|start_of_turn|im_start|im_end|ref)>|\[SEG\]",
    re.IGNORECASE,
)
# MiniGPT-v2 writes a box as {<10><20><30><40>}.
_ANGLED = re.compile(r"<([0-9]{1,4})>(?=<|\})")
_THINK_ENDS = ("</think>", "</thinking>", "</thought>", "</reasoning>", "\u25c1/think\u25b7")
_THINK_STARTS = ("<think>", "<thinking>", "<thought>", "<reasoning>", "\u25c1think\u25b7")
_ANSWER_TAG = re.compile(r"<answer>([^<>]*(?:<(?!/?answer>)[^<>]*)*+)(?:</answer>|\Z)", re.IGNORECASE)
_RUNS = re.compile(r"([ \n])\1{2,}")  # long blanks mean no more than short ones
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mathit|operatorname)\s?\{([^{}\n]{0,80})\}")
_LATEX_NOISE = re.compile(r"\\(?:left|right)(?=[(\[{)\]}])|\\[,;!]|\\(?=[%$#])")


def after_thinking(reply: str) -> str | None:
    """What follows the model's thinking; None where it opens with thinking that never ends."""
    ends = [reply.rfind(mark) + len(mark) for mark in _THINK_ENDS if mark in reply]
    if ends:
        return reply[max(ends) :]
    return None if reply[:200].lstrip().startswith(_THINK_STARTS) else reply


def last_part(text: str) -> str:
    """At most MAX_CHARS from the end, beginning at a word."""
    if len(text) <= MAX_CHARS:
        return text
    tail = text[-MAX_CHARS:]
    space = re.search(r"\s", tail[:200])
    return tail[space.end() :] if space else tail


def _bracket(token: re.Match[str]) -> str:
    closing = token[1] == "/" or (token[3] or "").lower() == "_end"
    if token[2].lower() == "quad":
        return "\u27e7" if closing else "\u27e6"
    return "]" if closing else "["


def fold(text: str) -> str:
    """ASCII punctuation, digits and spaces; no special tokens; LaTeX text commands unwrapped."""
    text = _RUNS.sub(r"\1\1", text.translate(_FOLD))
    text = _ANGLED.sub(r"\1,", _TOKENS.sub(" ", _BRACKETS.sub(_bracket, text)))
    return _LATEX_NOISE.sub("", _LATEX_TEXT.sub(r"\1", text))


def inside_answer_tag(text: str) -> str:
    """The content of the last <answer> tag that has any; else the whole text."""
    contents = [content for content in _ANSWER_TAG.findall(text) if content.strip()]
    return contents[-1] if contents else text
