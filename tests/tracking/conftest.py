"""Stores and a trained project for the tests of this folder."""

from stores import empty, project, trained  # noqa: F401 - fixtures
