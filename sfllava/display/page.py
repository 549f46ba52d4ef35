"""A page of its own with a table that can be sorted and searched: one file, which loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sfllava.display.html import STYLE, Html

_STYLE = """<style>
:root { color-scheme: light dark; background: light-dark(#fff, #14181d); }
body { margin: 24px auto; max-width: 1600px; padding: 0 20px; }
h1 { font-size: 20px; margin: 0 0 4px; } .sfl .scroll { overflow-x: auto; }
.sfl p { margin: 0 0 12px; } .sfl table { width: 100%; } .sfl td { overflow-wrap: break-word; }
.sfl td:has(svg), .sfl .num, .sfl .whole { white-space: nowrap; }
.sfl .name { display: inline-block; min-width: 170px; } .sfl ul { margin: 16px 0; padding: 0 0 0 18px; }
.sfl input { font: inherit; color: inherit; background: var(--sfl-fill); border: 1px solid var(--sfl-line);
  border-radius: 6px; padding: 5px 10px; width: 280px; max-width: 100%; box-sizing: border-box; margin: 0 0 12px; }
.sfl thead th { cursor: pointer; white-space: nowrap; user-select: none; position: sticky; top: 0;
  background: light-dark(#fff, #14181d); }
.sfl thead th:hover, .sfl thead th:focus-visible { color: var(--sfl-text); }
.sfl th[aria-sort=ascending]::after { content: " \\2191"; } .sfl th[aria-sort=descending]::after { content: " \\2193"; }
.sfl tbody tr:hover { background: var(--sfl-fill); }
@media print { .sfl input { display: none; } .sfl thead th { position: static; } }
</style>"""
# Numbers are compared as numbers. The first click on a column of numbers puts the largest first.
_SCRIPT = """<script>
const body = document.querySelector("tbody"), heads = [...document.querySelectorAll("thead th")];
const key = cell => {
  const text = cell.textContent.trim(), number = Number(text.replaceAll(",", ""));
  return text === "" || text === "–" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
};
const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
function sort(i) {
  const rows = [...body.rows].map(row => [key(row.cells[i]), row]);
  const numbers = rows.some(([value]) => typeof value === "number"), before = heads[i].getAttribute("aria-sort");
  const down = before === null ? numbers : before === "ascending";
  heads.forEach(head => head.removeAttribute("aria-sort"));
  heads[i].setAttribute("aria-sort", down ? "descending" : "ascending");
  // what is missing stays at the end
  rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : (down ? -1 : 1) * compare(a, b));
  body.append(...rows.map(([, row]) => row));
}
heads.forEach((head, i) => {
  head.tabIndex = 0; head.title = "sort by this column"; head.onclick = () => sort(i);
  head.onkeydown = event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(i); } };
});
const find = document.querySelector("input"), shown = document.querySelector("output");
find.oninput = () => {
  const words = find.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let count = 0;
  for (const row of body.rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word)); count += !row.hidden;
  }
  shown.textContent = words.length ? count + " of " + body.rows.length + " rows" : "";
};
</script>"""


def table_page(title: str, about: str, table: Html, below: Sequence[str] = ()) -> str:
    """Return a page with a table that a reader can sort by a click on a column's name, and search.

    Args:
        title: The title of the page.
        about: A sentence below it.
        table: The table, from `display.html.table`.
        below: Lines below the table.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    notes = "".join(f"<li>{escape(line)}</li>" for line in below)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'{STYLE}\n{_STYLE}\n</head><body class="sfl">\n<h1>{escape(title)}</h1>\n<p class="soft">{escape(about)}</p>\n'
        '<input type="search" placeholder="search" aria-label="search the rows"> <output class="soft"></output>\n'
        f'<div class="scroll">{table}</div>\n{f"<ul>{notes}</ul>" if notes else ""}\n{_SCRIPT}\n</body></html>\n'
    )
