"""A project with an empty store, for the tests of tracking."""

from stores import empty, project, said  # noqa: F401 - fixtures
