"""The exceptions for what a user can mend: their text is shown without a traceback."""


class UserError(ValueError):
    """Wrong input or settings: one sentence with what was found, where, and what to do (exit status 1)."""


class WrongUse(UserError):
    """A command line that cannot be understood (exit status 2)."""


class Said(UserError):
    """What one of several processes has printed already; the others need not."""
