"""The errors that a user can act on."""


class UserError(Exception):
    """Something the user can put right; the message says what is wrong and what to do.

    The command line prints it without a traceback; any other exception is a bug and keeps its own.
    """
