"""What a user can cause and mend: an input that is wrong, and a disk that is full."""

import errno

NO_ROOM = ("No space left on device", "Disk quota exceeded", "inline_container.cc")
"""What Python, safetensors and PyTorch (which knows no reason) say of a disk that takes no more."""


class UserError(Exception):
    """Something in the user's input is wrong; the message says what, where, and what to do.

    Stages print the message without a traceback and exit with status 1.
    """


def disk_is_full(error: Exception) -> bool:
    """Whether something could not be written since there is no room."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(words in str(error) for words in NO_ROOM)


def listed(problems: list[str], limit: int = 40) -> str:
    """One line per problem, at most `limit`, then how many more there are."""
    lines = [f"  - {problem}" for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  ... and {len(problems) - limit} more")
    return "\n".join(lines)
