"""The operations of views, recorded as they run."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from isc_jobs.vision import operations, sources, views
from isc_jobs.vision.decode import Window

Calls = list[tuple[str, dict[str, Any]]]  # operations in their order, with arguments by name


class Record:
    """The calls of each view, through the operations' own names."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.views: list[Calls] = []
        self._depth = 0
        patch.setattr(views, "resized_crop", self._cropped(sources.resized_crop))
        for name, operation in inspect.getmembers(operations, inspect.isfunction):
            if not name.startswith("_") and name != "rotated_size" and operation.__module__ == operations.__name__:
                patch.setattr(operations, name, self._recorded(name, operation))

    def _cropped(self, crop: Callable[..., Any]) -> Callable[..., Any]:
        def call(source: sources.Source, window: Window, size: int) -> Any:
            view = crop(source, window, size)
            self.views[-1].append(("crop", {"window": window}))  # after what it called: rotation and overlay
            return view

        return call

    def _recorded(self, name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(operation)

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._depth:  # what an operation itself calls is its own business
                self.views[-1].append((name, signature.bind(*args, **kwargs).arguments))
            self._depth += 1
            try:
                return operation(*args, **kwargs)
            finally:
                self._depth -= 1

        return call

    def of(self, operation: str, argument: str) -> list[Any]:
        return [arguments[argument] for calls in self.views for name, arguments in calls if name == operation]
