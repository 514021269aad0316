r"""Regular expressions of task files in the syntax of the service.

lm-evaluation-harness has Python's `re`; a dataset service has RE2, which takes time in proportion
to the text and has no look-around. Where the first find alone is asked for, what the harness's own
tasks use of it can be said without:

- `(?=…)` at the very end may be consumed: nothing is looked for behind it.
- `(?<=text)` at the very beginning may be consumed, since a find begins where its text does; of
  several alternatives only if none of the texts occurs within another, which would be found first.
"""

from __future__ import annotations

import re
import warnings

from evalpool.tasks.errors import TaskError
from evalpool.tasks.fields import shown

_PIECE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
_LOOK_AROUND = re.compile(r"\(\?(?:<?[=!]|>|\(|P=)")
_GROUP = re.compile(r"\((?!\?)|\(\?P<")
_BEHIND = re.compile(r"\(\?<=(?P<text>(?:[^\\()\[\]{}.*+?^$|]|\\\W)*)\)")
_LINE = r"(.*)(?=.)"


def without_look_around(pattern: str, group_select: int, field: str) -> str:
    """The same expression in RE2's syntax.

    Args:
        pattern: As the task file has it.
        group_select: Which find is asked for.
        field: Its name in the file, for messages.

    Raises:
        TaskError: It is no regular expression, or cannot be written in that syntax.
    """
    try:
        with warnings.catch_warnings():
            # Of sets that may come to mean something else some day.
            warnings.simplefilter("ignore", FutureWarning)
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise TaskError(f"{field}: {shown(pattern)} is no regular expression: {error}") from error
    if not _asks_for_more(pattern):
        return pattern
    written = _rewritten(pattern) if group_select == 0 else None
    if written is None or _asks_for_more(written):
        raise TaskError(
            f"{field}: {shown(pattern)} has look-around, back-references or atomic groups, which "
            "are not done here; write it without"
        )
    return written


def _asks_for_more(pattern: str) -> bool:
    pieces = _PIECE.findall(pattern)
    plain = "".join(piece if len(piece) == 1 else "x" for piece in pieces)
    return bool(_LOOK_AROUND.search(plain)) or any(re.match(r"\\[1-9]", piece) for piece in pieces)


def _rewritten(pattern: str) -> str | None:
    """The expression with the look-around at its ends consumed; None where that is not the same."""
    if not _GROUP.search(pattern):
        # What is found would be the whole, with what was only looked at.
        return None
    alternatives = _alternatives(pattern)
    if alternatives is not None:
        texts = [_literal(text) for text in alternatives]
        if any(one in other[:-1] for one in texts for other in texts):
            return None
        return "|".join(f"{text}(.*)." for text in alternatives)
    if len(_parts(pattern)) > 1:
        return None
    begins = _BEHIND.match(pattern)
    if begins:
        pattern = begins["text"] + pattern[begins.end() :]
    return re.sub(r"\(\?=([^()]*)\)$", r"(?:\1)", pattern)


def _alternatives(pattern: str) -> list[str] | None:
    """The texts of `((?<=text)(.*)(?=.)|…)`, which finds the rest of a line but its last letter."""
    if not (pattern.startswith("((?<=") and pattern.endswith(")")):
        return None
    found = []
    for part in _parts(pattern[1:-1]):
        behind = _BEHIND.match(part)
        if behind is None or part[behind.end() :] != _LINE:
            return None
        found.append(behind["text"])
    return found if len(found) > 1 else None


def _literal(text: str) -> str:
    return re.sub(r"\\(\W)", r"\1", text)


def _parts(pattern: str) -> list[str]:
    """An expression's alternatives, as far as they are not within groups."""
    parts, depth = [""], 0
    for piece in _PIECE.findall(pattern):
        depth += {"(": 1, ")": -1}.get(piece, 0)
        if piece == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    return parts
