"""What a message may say of a value from outside."""

from derm_hash.errors import shown


def test_a_message_quotes_a_value_in_one_short_line():
    assert shown("Nävus, \x1b[31m\u2028\ud800") == r"Nävus, \x1b[31m\u2028\ud800"
    assert len(shown("x" * 10**6)) < 310
