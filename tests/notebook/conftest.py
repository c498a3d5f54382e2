"""An empty store for the tests of tracking."""

from stores import empty  # noqa: F401 - a fixture
