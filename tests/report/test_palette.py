"""The colours of the page: what can be read, in both schemes, computed as WCAG 2.2 does."""

from __future__ import annotations

import itertools

import pytest

from stepcost.report.page.palette import SHADES, css

LETTERS, DRAWN = 4.5, 3.0
"""Least contrast of letters (1.4.3) and of what is drawn (1.4.11)."""
GROUNDS = ("paper", "wash")
ONLY_GROUND = (*GROUNDS, "rule")


def luminance(color: str) -> float:
    """Relative luminance of ``#rrggbb``, from 0 to 1."""
    channels = (int(color[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    """Black on white has 21; #767676, the lightest grey that passes on white, 4.54; a colour on itself 1."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)
    assert contrast("#123456", "#123456") == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ground", GROUNDS)
def test_letters_and_lines_are_read(scheme: str, ground: str) -> None:
    """Every colour that letters or lines may have has 4.5 on both grounds: lines' names too."""
    under = getattr(SHADES[ground], scheme)
    for name, shade in SHADES.items():
        if name not in ONLY_GROUND:
            assert contrast(getattr(shade, scheme), under) >= LETTERS, f"{name} on {ground}, {scheme}"


def test_each_light_colour_is_one_thing() -> None:
    """No two have the same light shade, since a drawing's colours are replaced by their names."""
    lights = [shade.light for shade in SHADES.values()]
    assert len(set(lights)) == len(lights)
    assert all(light == light.lower() and len(light) == 7 for light in lights)


def test_both_schemes_are_in_the_page() -> None:
    """Dark is chosen by the reader's system, on a screen alone; paper is light."""
    light, _, dark = css().partition("@media screen and (prefers-color-scheme: dark)")
    for name, shade in SHADES.items():
        assert f"--{name}: {shade.light};" in light
        assert f"--{name}: {shade.dark};" in dark


def test_colors_of_the_stack_are_told_apart() -> None:
    """No two of the colours that fill bars are nearer than 20 in CIE L*a*b*, in either scheme."""
    for scheme in ("light", "dark"):
        fills = {name: lab(getattr(shade, scheme)) for name, shade in list(SHADES.items())[6:]}
        for one, other in itertools.combinations(fills, 2):
            apart = sum((a - b) ** 2 for a, b in zip(fills[one], fills[other], strict=True)) ** 0.5
            assert apart >= 20, f"{one} and {other}, {scheme}: {apart:.0f}"


def lab(color: str) -> tuple[float, float, float]:
    """CIE L*a*b* of ``#rrggbb`` under D65."""
    channels = (int(color[place : place + 2], 16) / 255 for place in (1, 3, 5))
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    xyz = (
        (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505,
        0.2126 * r + 0.7152 * g + 0.0722 * b,
        (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089,
    )
    x, y, z = (value ** (1 / 3) if value > 216 / 24389 else value * 841 / 108 + 4 / 29 for value in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)
