"""How quantities are written: exact texts, since readers compare them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import numbers

FINITE = st.floats(-1e9, 1e9, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (2**20, "1.00 MiB"),
        (2**30 - 1, "1,024 MiB"),
        (2**30, "1.00 GiB"),
        (130 * 2**20, "130 MiB"),
        (-(2**30), "-1.00 GiB"),
    ],
)
def test_bytes_have_three_digits_and_a_binary_unit(value: float | None, text: str) -> None:
    assert numbers.size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.0, "0 ms"),
        (0.0994, "99 ms"),
        (0.1, "0.1 s"),
        (99.9, "99.9 s"),
        (99.96, "1 min 39 s"),
        (3599.9, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (90_000, "25 h 00 min"),
    ],
)
def test_times_never_show_sixty_of_anything(seconds: float | None, text: str) -> None:
    assert numbers.duration(seconds) == text


@given(st.floats(0, 1e6))
def test_no_time_has_sixty_minutes_or_seconds(seconds: float) -> None:
    words = numbers.duration(seconds).split()
    assert not {("60", "s"), ("60", "min")} & set(pairwise(words))


@pytest.mark.parametrize(
    ("joules", "text"),
    [(None, "–"), (500, "0.500 kJ"), (99_400, "99.4 kJ"), (360_000, "100 Wh")],
)
def test_much_energy_is_written_as_on_an_electricity_bill(joules: float | None, text: str) -> None:
    assert numbers.energy(joules) == text


@pytest.mark.parametrize(
    ("share", "signed", "text"),
    [
        (None, False, "–"),
        (0.0, True, "0.00 %"),
        (0.184, True, "+18.40 %"),
        (-0.154, True, "−15.40 %"),
        (-0.154, False, "−15.40 %"),
        (0.154, False, "15.40 %"),
    ],
)
def test_a_share_is_per_cent_with_a_true_minus(
    share: float | None, signed: bool, text: str
) -> None:
    assert numbers.percent(share, signed=signed) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0, 4, "0"),
        (6.9, 4, "6.900"),
        (0.06998, 4, "0.06998"),
        (12345.678, 4, "12,346"),
        (1e-7, 3, "1.00e-07"),
        (1e12, 3, "1.00e+12"),
        (math.inf, 3, "inf"),
    ],
)
def test_a_number_has_significant_digits_and_no_exponent_where_it_can_be_read(
    value: float, digits: int, text: str
) -> None:
    assert numbers.significant(value, digits) == text


@given(FINITE)
def test_a_number_keeps_its_sign_and_its_first_digits(value: float) -> None:
    text = numbers.number(value).replace("−", "-").replace(",", "")
    assert float(text) == pytest.approx(value, rel=6e-4)
    assert text.startswith("-") == (value < 0)


@pytest.mark.parametrize(
    ("value", "width", "text"),
    [
        (6.9, 6.2, "6.9"),
        (0.4833, 0.31, "0.48"),
        (0.4833, 0.031, "0.483"),
        (-0.05, 0.4, "−0.05"),
        (1234.5, 400, "1,234"),
        (6.9, 0.0, "6.900"),
        (6.9, math.inf, "6.900"),
    ],
)
def test_an_end_is_written_as_finely_as_its_interval_is_wide(
    value: float, width: float, text: str
) -> None:
    assert numbers.to_width(value, width) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0, "< 0.0001"), (0.00009, "< 0.0001"), (0.008, "0.0080"), (0.23, "0.23"), (1.0, "1.00")],
)
def test_a_p_value_is_not_written_finer_than_it_means(p: float, text: str) -> None:
    assert numbers.p_value(p) == text


def test_counts_have_thousands_and_unknown_is_no_zero() -> None:
    assert numbers.count(4_884_480) == "4,884,480"
    assert numbers.count(2.5) == "2"
    assert numbers.count(None) == numbers.number(None) == "–"


@pytest.mark.parametrize(
    ("names", "most", "text"),
    [
        ([], 3, ""),
        (["a"], 3, "a"),
        (["a", "b", "c"], 3, "a, b, c"),
        (["a", "b", "c", "d"], 3, "a, b, c and 1 other"),
        ([str(place) for place in range(2000)], 1, "0 and 1,999 others"),
    ],
)
def test_a_few_names_stand_for_many(names: list[str], most: int, text: str) -> None:
    assert numbers.some_of(names, most) == text
