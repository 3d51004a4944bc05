"""The one exception for input a user can mend: the command line prints it as a single sentence and exits with 2."""


class InputError(ValueError):
    """Bad input: the message names the file or value, what is wrong with it and what would work."""
