# SPDX-License-Identifier: Apache-2.0
"""The gallery sets beside what was sent what the strongest attack of each audit made of it."""

from __future__ import annotations

from dataclasses import replace

from example_audits import Page, audit, before_and_after, pixels, result
from sfumato.report import to_html
from sfumato.types import Exhibit


def gallery(page: Page) -> list[str]:
    """What each picture of the gallery is, up to the folded sheets."""
    start = next(place for place, (_, attributes) in enumerate(page.tags) if attributes.get("id") == "gallery")
    end = next((place for place, (tag, _) in enumerate(page.tags) if tag == "details" and place > start), None)
    return [str(attributes["alt"]).split(", with")[0] for tag, attributes in page.tags[start:end] if tag == "img"]


def test_gallery_sets_before_and_after_beside_what_was_sent() -> None:
    seen = [f"as the adversary rebuilds it ({name})" for name in ("before", "after")]
    cards = [f"Picture {number} of 2, {what}" for number in (1, 2) for what in ("as the user sent it", *seen)]
    assert gallery(Page(to_html(before_and_after()))) == cards


def test_gallery_shows_the_strongest_attack_that_has_pictures() -> None:
    changed = audit(attacks=(result(0.5), result(0.1, name="mirror", selection="last"), result(0.01, name="unseen")))
    page = Page(to_html([changed]))
    assert str(page.all("img")[1]["alt"]).endswith("with the attack mirror, last epoch, seed 0")


def test_audits_of_other_pictures_get_a_gallery_each() -> None:
    first, second = before_and_after()
    other = replace(
        second, exhibits=(Exhibit("inference", pixels(3, seed=9)), Exhibit("inference", pixels(3), "decoder", "best"))
    )
    page = Page(to_html([first, other]))
    assert len([attributes for attributes in page.all("ol") if attributes.get("class") == "gallery"]) == 2
    assert [alt.split(", ")[1] for alt in gallery(page)[:2]] == ["as the user sent it", "as the adversary rebuilds it (before)"]
