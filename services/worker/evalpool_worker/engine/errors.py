"""What an engine refuses, and how it fails."""

from __future__ import annotations


class EngineError(Exception):
    """Something that an engine can't do, with a sentence that says why."""


class ModelLoadError(EngineError):
    """The file is no model that this engine can load."""


class NoModelLoadedError(EngineError):
    """The call needs a loaded model and there is none."""


class ModelAlreadyLoadedError(EngineError):
    """A model is loaded; it has to be unloaded before another can take its place."""


class InvalidParametersError(EngineError):
    """A request that the engine refuses before it starts; `field` says where it is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class PromptTooLongError(InvalidParametersError):
    """A prompt that leaves no room for a token in the model's own context."""

    def __init__(self, message: str) -> None:
        super().__init__("prompt", message)


class TooLittleMemoryError(EngineError):
    """This machine has too little memory for a context of that length; another may have more."""


class EngineBusyError(EngineError):
    """The engine has no room now; nothing was tried.

    Attributes:
        retry_after: Seconds after which another try makes sense.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after
