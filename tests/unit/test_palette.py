"""The colours of people can be read: by day and by night, as names on paper and as paper on them (WCAG 2.2, 1.4.3)."""

import re
from pathlib import Path

import pytest

STATIC = Path(__file__).parents[2] / "gateway" / "edge" / "pages" / "static"
CONTRAST_MIN = 4.5


def luminance(colour: str) -> float:
    def linear(part: float) -> float:
        return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("sheet", ["hiroba.css", "dark.css"])
def test_every_person_can_be_read(sheet: str) -> None:
    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", (STATIC / sheet).read_text("utf-8")))
    people = {name: colour for name, colour in colours.items() if name.startswith("person-")}
    chosen = set(re.findall(r'data-colour="(\d+)"', (STATIC / "room.css").read_text("utf-8")))
    (count,) = re.findall(r"const COLOURS = (\d+);", (STATIC / "who.js").read_text("utf-8"))
    assert {f"person-{number}" for number in range(int(count))} == people.keys() == {f"person-{n}" for n in chosen}
    for name, colour in people.items():
        darker, lighter = sorted(map(luminance, (colour, colours["paper"])))
        assert (lighter + 0.05) / (darker + 0.05) >= CONTRAST_MIN, name
