"""One self-contained HTML page of an explanation: no files and no network beside it."""

import html

from models.screen import printable

STYLE = """
:root { --text: #1d1d1f; --soft: #666; --line: #ddd; --card: #f7f7f8; --back: #fff; color-scheme: light }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); margin: 0 auto;
  max-width: 72rem; padding: 1.5rem 1rem 3rem }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
p { margin: .4rem 0 } .soft { color: var(--soft); font-size: .9rem }
.points { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: .8rem }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem; min-width: 0 }
.card h3 { font-size: .95rem; margin: 0 0 .3rem; overflow-wrap: anywhere }
img { max-width: 100%; height: auto; display: block } .wide { overflow-x: auto }
.large img { width: 100%; min-width: 34rem; max-width: none }
.words { overflow-wrap: anywhere; line-height: 1.9; font-size: .95rem }
.card .words { max-height: 15rem; overflow-y: auto; font-size: .85rem }
.words span { padding: .1em 0; border-radius: .2em }
"""
BLUE, RED = (5, 113, 176), (202, 0, 32)  # for, against


HOW = {
    True: "Above the words they are put together, level by level, the most telling first.",
    False: "From level to level they are put together, the most telling first: grey tiles are chosen, frames show the "
    "components, and the bars below, in the colours of the frames, what each of them brings.",
}


def page(data):
    """The page of an explanation, as `explainer.explain` gathers it."""
    question = data["question"]
    parts = [f"<h1>{_title(data)}</h1>", f"<p>{_said(question)}</p>"]
    parts.append("<h2>Which parts of it</h2>")
    parts.append(
        f'<p class="soft">What each part brings to the logit of {_escape(question["class"])}, '
        f"{question['logit']:+.2f}, by contextual decomposition: blue speaks for it, red against it. Parts act "
        f"together, so what they bring by themselves does not sum to the logit. {HOW['words' in question]}</p>"
    )
    parts.append(_parts(question, data["scale"], True))
    for method in data["methods"]:
        parts.append(f"<h2>Which training points: {_escape(method['label'])}</h2>")
        parts.append(f'<p class="soft">{_escape(method["about"])}</p><div class="points">')
        for point in method["points"]:
            head = f"{_escape(point['name'])}: {_escape(point['class'])}, {point['score']:+.3g}"
            parts.append(f'<div class="card"><h3>{head}</h3>{_parts(point, data["scale"], False)}</div>')
        parts.append("</div>")
    title = _escape(f"{data['model']}: {question['name']}")
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n" + "\n".join(parts) + "\n</html>\n"
    )


def _escape(text):
    return html.escape(printable(text, keep="\n\t"))


def _title(data):
    question = data["question"]
    return f"{_escape(question['name'])} is predicted {_escape(question['class'])}"


def _said(question):
    said = f"Probability {question['probability']:.3f}"
    if question["label"] is not None:
        said += f"; its label is {_escape(question['label'])}"
    return said + "."


def _parts(point, scale, large):
    """The picture and the words of a point."""
    found = ""
    if "words" in point:
        spans = (f'<span style="{_colour(value / scale)}" title="{value:+.3g}">{_escape(text)}</span>{" " * apart}'
                 for text, value, apart in point["words"])  # fmt: skip
        found += f'<p class="words">{"".join(spans)}</p>'
    if "picture" in point:
        alt = f"the parts of {_escape(point['name'])}"
        source = f"data:image/png;base64,{point['picture']}"
        found += f'<div class="wide{" large" * large}"><img alt="{alt}" src="{source}"></div>'
    return found


def _colour(share):
    """A background for a score between -1 and 1."""
    r, g, b = BLUE if share > 0 else RED
    return f"background: rgba({r}, {g}, {b}, {min(1.0, abs(share)) * 0.6:.2f})"
