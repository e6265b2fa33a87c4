"""The one exception a user's mistake raises: what was wrong, where, and what to do."""


class MinclipError(ValueError):
    """Bad input. The command line prints its message without a traceback."""
