"""The simulated shop's assortment: titles that read like a shop's, and the latent style the words carry.

Category, product noun, adjective, material and brand each own a style vector; an item's style is their sum plus a
little of its own. So the words of a title say something about who will like the item, as in a real shop, and a
model that reads text can place an item nobody has touched yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

N_STYLES = 8
"""Dimensions of the latent style space."""


class Category(NamedTuple):
    """A department, its price level and the words its titles are made of."""

    path: str
    used_up: bool
    """Bought again once used up (coffee), not bought twice (a lamp)."""
    price: float
    """Typical, in the shop's currency."""
    nouns: tuple[str, ...]
    materials: tuple[str, ...]


_DEPARTMENTS = """\
Home > Lighting | lasts | 45
    table lamp, floor lamp, pendant light, string lights, lantern
    brass, paper, opal glass, rattan, steel
Home > Candles | used up | 14
    scented candle, pillar candle, tea lights, candle refill, wax melts
    beeswax, soy wax, cedar, fig, vanilla
Home > Textiles | lasts | 38
    cushion cover, throw, bath towel, rug, curtain
    linen, wool, cotton, velvet, jute
Home > Storage | lasts | 26
    basket, shelf, storage box, coat rack, drawer organiser
    seagrass, oak, bamboo, felt, wire
Kitchen > Tableware | lasts | 22
    mug, dinner plate, serving bowl, teapot, cake stand
    stoneware, porcelain, enamel, terracotta, glass
Kitchen > Cookware | lasts | 55
    saucepan, frying pan, casserole, chopping board, kitchen knife
    cast iron, copper, walnut, carbon steel, aluminium
Kitchen > Coffee | used up | 13
    coffee beans, ground coffee, espresso blend, coffee filters, cold brew
    arabica, robusta, decaf, single origin, dark roast
Kitchen > Tea | used up | 11
    green tea, black tea, herbal tea, chai, tea sampler
    organic, jasmine, mint, ginger, loose leaf
Stationery > Paper | used up | 9
    notebook, sketchbook, letter set, gift wrap, planner
    recycled, dotted, kraft, handmade, marbled
Stationery > Writing | lasts | 17
    fountain pen, pencil set, brush pens, pencil case, ink bottle
    brass, cedar, canvas, resin, leather
Garden > Pots | lasts | 24
    plant pot, planter, hanging pot, watering can, plant stand
    terracotta, concrete, zinc, ceramic, bamboo
Garden > Seeds | used up | 5
    herb seeds, wildflower mix, tomato seeds, bulb set, compost
    organic, heirloom, alpine, bee-friendly, dwarf
Beauty > Soap | used up | 8
    bar soap, hand wash, shampoo bar, bath salts, body scrub
    lavender, oat, charcoal, rose, sea salt
Beauty > Skin | used up | 19
    face cream, lip balm, hand cream, cleansing oil, serum
    shea, aloe, rosehip, calendula, jojoba
Clothing > Knitwear | lasts | 68
    jumper, cardigan, scarf, beanie, socks
    merino, cashmere, lambswool, alpaca, cotton
Clothing > Bags | lasts | 59
    tote bag, backpack, wash bag, belt bag, weekender
    canvas, leather, waxed cotton, nylon, cork
Kids > Toys | lasts | 21
    building blocks, puzzle, soft toy, train set, kite
    wooden, felt, beech, organic cotton, cardboard
Kids > Books | lasts | 12
    picture book, colouring book, sticker book, bedtime stories, activity book
    forest, ocean, space, dinosaur, farm
Outdoor > Camping | lasts | 49
    flask, camp mug, picnic blanket, headlamp, hammock
    steel, enamel, wool, titanium, ripstop
Festive > Decorations | lasts | 10
    bauble set, garland, wreath, advent calendar, tree topper
    glass, paper, pine, felt, straw
"""


def _category(head: str, nouns: str, materials: str) -> Category:
    path, fate, price = head.split(" | ")
    return Category(path, fate == "used up", float(price), tuple(nouns.split(", ")), tuple(materials.split(", ")))


_LINES = [line.strip() for line in _DEPARTMENTS.splitlines()]
CATEGORIES = tuple(_category(*lines) for lines in zip(_LINES[::3], _LINES[1::3], _LINES[2::3], strict=True))
ADJECTIVES = (
    "vintage",
    "modern",
    "rustic",
    "pastel",
    "bold striped",
    "minimal",
    "floral",
    "hand-dyed",
    "classic",
    "retro",
    "nordic",
    "speckled",
)
BRANDS = (
    "Alder & Finch",
    "Bluewren",
    "Calluna",
    "Dovetail",
    "Elderhouse",
    "Fennmoor",
    "Greywacke",
    "Halden",
    "Inkwell Row",
    "Juniper Lane",
    "Kestrel",
    "Lumo",
)
SIZES = ("", "", "small", "large", "set of 4", "gift edition")


@dataclass(frozen=True)
class Assortment:
    """Every item the shop will ever sell; row number = item. Arrays are [n_items] unless said otherwise."""

    item_ids: list[str]
    titles: list[str]
    nouns: list[str]
    brands: list[str]
    category: NDArray[np.int64]
    style: NDArray[np.float64]
    """[n_items, N_STYLES]"""
    appeal: NDArray[np.float64]
    """How much everybody likes it: added to the logit of a click."""
    price: NDArray[np.float64]
    used_up: NDArray[np.bool_]

    def record(self, row: int, *, in_stock: bool, updated_at_ms: int) -> bytes:
        """The item's record for the `items` topic: JSON as the wire has it."""
        title, brand = self.titles[row], self.brands[row]
        return msgspec.json.encode(
            {
                "item_id": self.item_ids[row],
                "title": title,
                "description": f"{title} by {brand}.",
                "category": CATEGORIES[self.category[row]].path,
                "brand": brand,
                "price": float(self.price[row]),
                "in_stock": in_stock,
                "updated_at": updated_at_ms,
            }
        )


def assortment(seed: int, n_items: int) -> Assortment:
    """Draw `n_items` items with distinct titles; the same seed gives the same items.

    >>> a = assortment(7, 300)
    >>> len(set(a.titles)), a.style.shape
    (300, (300, 8))
    """
    rng = np.random.default_rng([seed, 1])
    category = np.arange(n_items) % len(CATEGORIES)
    pick = rng.integers(0, 60_000, size=(n_items, 5))
    style_of: dict[str, NDArray[np.float64]] = {}
    for word in _all_words():
        style_of[word] = rng.normal(0, 0.45, N_STYLES)
    style = rng.normal(0, 0.25, (n_items, N_STYLES))
    titles: dict[str, None] = {}
    nouns, brands = [], []
    for row in range(n_items):
        _path, _again, _price, products, materials = CATEGORIES[category[row]]
        words = [
            c[p % len(c)] for c, p in zip((ADJECTIVES, materials, products, BRANDS, SIZES), pick[row], strict=True)
        ]
        for word in words[:4]:
            style[row] += style_of[word]
        titles[_distinct(f"{words[0]} {words[1]} {words[2]}".capitalize(), words[4], titles)] = None
        nouns.append(words[2])
        brands.append(words[3])
    typical = np.array([c.price for c in CATEGORIES])[category]
    return Assortment(
        item_ids=[f"SKU{10_000 + row}" for row in range(n_items)],
        titles=list(titles),
        nouns=nouns,
        brands=brands,
        category=category,
        style=style,
        appeal=rng.gumbel(-0.3, 0.5, n_items),
        price=np.round(typical * np.exp(rng.normal(0, 0.4, n_items)), 2),
        used_up=np.array([c.used_up for c in CATEGORIES])[category],
    )


def _all_words() -> dict[str, None]:
    words = dict.fromkeys(ADJECTIVES + BRANDS)
    for department in CATEGORIES:
        words.update(dict.fromkeys(department.nouns + department.materials))
    return words


def _distinct(title: str, size: str, taken: dict[str, None]) -> str:
    full = f"{title}, {size}" if size else title
    number = 2
    candidate = full
    while candidate in taken:
        candidate = f"{full} no. {number}"
        number += 1
    return candidate
