"""Foreign text is shown bounded, and cannot control a terminal."""

from __future__ import annotations

from unship.text import printable


def test_control_characters_and_line_ends_are_replaced():
    assert printable("a\x1b[2J\nb") == "a?[2J?b"


def test_text_of_the_limit_is_whole_and_longer_text_is_cut():
    assert printable("x" * 300, 300) == "x" * 300
    assert printable("x" * 301, 300) == "x" * 300 + "…"


def test_letters_of_all_scripts_stay():
    assert printable("Zürich 東京") == "Zürich 東京"
