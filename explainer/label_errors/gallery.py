"""The most suspicious points on one page that needs nothing beside it: pictures, texts or rows, to sort and to read."""

import html

from explainer.decomposition.page import STYLE
from models.screen import printable

MORE = """
.bar { display: flex; gap: .5rem; flex-wrap: wrap; align-items: center; margin: .8rem 0 }
.bar button { font: inherit; padding: .2rem .7rem; border: 1px solid var(--line); border-radius: .4rem;
  background: var(--card); cursor: pointer }
.bar button[aria-pressed=true] { background: #0571b0; border-color: #0571b0; color: #fff }
.card img { width: 100%; image-rendering: pixelated; border-radius: .3rem; margin-bottom: .4rem }
.card dl { display: grid; grid-template-columns: auto 1fr; gap: 0 .6rem; margin: .3rem 0 0; font-size: .85rem }
.card dt { color: var(--soft) } .card dd { margin: 0; overflow-wrap: anywhere }
.row { border-top: 1px solid var(--line); padding-top: .3rem }
.given { color: #ca0020 } .proposed { color: #0571b0 }
.small { grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)) } .small .card dd { overflow-wrap: normal }
"""
SCRIPT = """
const grid = document.querySelector('.points'), buttons = document.querySelectorAll('.bar button');
buttons.forEach(button => button.addEventListener('click', () => {
  const key = button.dataset.key, text = button.dataset.text === '1', sign = key === 'score' ? -1 : 1;
  const value = card => text ? card.dataset[key] : sign * Number(card.dataset[key]);
  const before = (a, b) => value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : a.dataset.rank - b.dataset.rank;
  [...grid.children].sort(before).forEach(card => grid.append(card));
  buttons.forEach(other => other.setAttribute('aria-pressed', other === button));
}));
"""
KEYS = (
    ("score", "most suspicious first", False),
    ("probability", "least probable label first", False),
    ("given", "by given label", True),
    ("index", "by number", False),
)


LEGEND = (
    "Numbered from 0. Proposed: the most probable label by heads without the point; probability: that of the given "
    "label by these heads; score: larger is more suspicious, noise reckoned with. Supported and opposed by: the "
    "nearest points that speak for the given label, and for another one."
)


def gallery(table, items, title, said, name="training point", notes=()):
    """The page, as HTML. table: the rows of `find_label_errors` that it shows. title, said: its heading and its words.

    items: {index: {"picture": base64 of a PNG, "text": str, "row": {column: value}}}, each with what there is of it, of
    every point of the table; a row's columns are called as in its file, and stand apart from ours. name: what a point
    is called. notes: what was done with the data.
    """
    small = bool(items) and all(set(item) == {"picture"} for item in items.values())
    cards = [_card(row, items.get(row.index_, {}), name) for row in _rows(table)]
    buttons = "".join(
        f'<button data-key="{key}" data-text="{int(text)}" aria-pressed="{str(not k).lower()}">{label}</button>'
        for k, (key, label, text) in enumerate(KEYS)
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{_escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}{MORE}</style>\n<h1>{_escape(title)}</h1>\n<p>{_escape(said)}</p>\n"
        f"{''.join(f'<p>Note: {_escape(note)}.</p>' for note in notes)}<p><small>{LEGEND}</small></p>\n"
        f'<div class="bar">{buttons}</div>\n<div class="points{" small" * small}">{"".join(cards)}</div>\n'
        f"<script>{SCRIPT}</script>\n</html>\n"
    )


def _rows(table):
    """The rows as tuples; `index` is a method of tuples, so it is index_ here."""
    return table.rename(columns={"index": "index_"}).itertuples(index=False)


def _card(row, item, name):
    data = {"rank": row.rank, "score": row.score, "probability": row.loo_probability, "given": row.given_label,
            "index": row.index_}  # fmt: skip
    attributes = " ".join(f'data-{key}="{_escape(value)}"' for key, value in data.items())
    parts = [f"<h3>{row.rank}. {_escape(name)} {row.index_}</h3>"]
    if "picture" in item:
        parts.append(f'<img alt="{_escape(name)} {row.index_}" src="data:image/png;base64,{item["picture"]}">')
    if "text" in item:
        parts.append(f'<p class="words">{_escape(item["text"])}</p>')
    other = row.given_label != row.proposed_label
    facts = [
        ("given", row.given_label, "given" * other),
        ("proposed", row.proposed_label, "proposed" * other),
        ("probability", f"{row.loo_probability:.3f}", ""),
        ("score", f"{row.score:.2g}", ""),
    ]
    for label, points in (("supported by", row.supporting), ("opposed by", row.opposing)):
        if len(points):
            facts.append((label, ", ".join(map(str, points)), ""))
    parts.append(f'<dl class="facts">{_facts(facts)}</dl>')
    if item.get("row"):  # names of their own, which may be those above
        cells = [(column or "(no name)", value, "") for column, value in item["row"].items()]
        parts.append(f'<dl class="row" title="{_escape(name)} {row.index_} as the table has it">{_facts(cells)}</dl>')
    return f'<div class="card" {attributes}>{"".join(parts)}</div>\n'


def _facts(facts):
    """Names and values as the list of a card; style: class of a value."""
    return "".join(
        f'<dt>{_escape(label)}</dt><dd class="{style}">{_escape(value)}</dd>' for label, value, style in facts
    )


def _escape(value):
    return html.escape(printable(value, keep="\n\t"), quote=True)
