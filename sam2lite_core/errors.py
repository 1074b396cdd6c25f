"""Errors that callers can act on; each message names the offending value and what is allowed instead."""


class Sam2LiteError(Exception):
    """Base of every error that this package raises on purpose; the CLI turns it into exit code 2."""


class InvalidFrameError(Sam2LiteError):
    """An image is not a usable frame: wrong shape, wrong dtype, empty."""


class InvalidPromptError(Sam2LiteError):
    """A prompt cannot be used: nothing in it, outside the image, a bad object id."""


class UnknownObjectError(Sam2LiteError):
    """An object id that the tracker does not follow."""


class UnknownVariantError(Sam2LiteError):
    """A model variant that does not exist."""


class BackendError(Sam2LiteError):
    """A backend that does not exist, cannot run here, or failed while running."""


class ModelFileError(Sam2LiteError):
    """A weights file that is missing, unreadable, or not one of ours."""


class SourceError(Sam2LiteError):
    """A folder, video file, camera or bag that cannot be read, or an output that cannot be written."""


class ConfigurationError(Sam2LiteError):
    """A setting outside its range."""


class ParityError(Sam2LiteError):
    """An exported model that does not do what the student does."""
