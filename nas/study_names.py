"""What may name a study: its files are called after it, on any file system."""

from __future__ import annotations

import unicodedata

MOST_NAME_BYTES = 200  # file systems take 255, and its files have endings


def is_study_name(name: str) -> bool:
    """Whether it is a plain file name in letters and digits of any script, not hidden, and in composed form (NFC)."""
    if not 1 <= len(name) <= 100 or name.startswith(".") or not unicodedata.is_normalized("NFC", name):
        return False  # two spellings that look the same would be two studies, and on some file systems one
    return all(map(_is_of_a_name, name)) and len(name.encode()) <= MOST_NAME_BYTES


def _is_of_a_name(character: str) -> bool:
    """Marks are letters' vowel signs and accents, without which many scripts cannot be written."""
    return character.isalnum() or character in "._-" or unicodedata.category(character).startswith("M")
