"""The one error that means: what the user gave cannot be used."""


class InputError(ValueError):
    """A value, file or folder from outside cannot be used.

    ``str(error)`` is one sentence that names the value and the remedy. The
    command line prints it without a traceback; the widgets show it in place.
    """
