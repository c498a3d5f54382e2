"""The machinery: runs notebooks as DVC stages. It knows nothing of digits, nets or plots."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class Refused(Exception):
    """Something that a person has to put right; its text is one sentence that says what, where and how."""
