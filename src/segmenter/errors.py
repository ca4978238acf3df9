"""The one exception for what a user can mend: its text is shown without a traceback."""


class UserError(ValueError):
    """Wrong input or settings: one sentence with what was found, where, and what to do (exit status 1)."""
