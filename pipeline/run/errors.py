"""The one error that a user can cause and mend."""


class UserError(Exception):
    """Something in the user's input is wrong; the message says what, where, and what to do.

    Stages print the message without a traceback and exit with status 1.
    """


def listed(problems: list[str], limit: int = 40) -> str:
    """One line per problem, at most `limit`, then how many more there are."""
    lines = [f"  - {problem}" for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  ... and {len(problems) - limit} more")
    return "\n".join(lines)
