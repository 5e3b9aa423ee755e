"""The stylesheet of the HTML report: one column, system type, light and dark, no file but the page itself."""

from typing import Final

CSS: Final = """
:root { color-scheme: light dark; --paper: #fdfdfc; --ink: #1b1d20; --muted: #63686e; --rule: #e2e3e1; --tint: #f4f5f3;
  --accent: #0072b2; --accent-tint: #e8f2f9; --warm: #c2510a;
  --font: ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --ink: #e9eaeb; --muted: #9ba1a8; --rule: #31353a; --tint: #1d2024;
  --accent: #56b4e9; --accent-tint: #16303f; --warm: #f0994b; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--font); font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
main { max-width: 1008px; margin: 0 auto; padding: 56px 24px 72px; }
header p.kind { margin: 0 0 6px; color: var(--muted); font-size: 14px; }
h1 { font-size: 34px; line-height: 1.15; letter-spacing: -0.02em; font-weight: 650; margin: 0 0 20px; }
h2 { font-size: 21px; line-height: 1.25; letter-spacing: -0.01em; font-weight: 650; margin: 60px 0 8px; }
p { margin: 0 0 12px; max-width: 70ch; }
p.lead { font-size: 19px; line-height: 1.5; max-width: 62ch; }
p.small, figcaption, ul.notes, .apart li, .failed li { font-size: 14px; line-height: 1.5; color: var(--muted); }
strong { font-weight: 650; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 16px 24px; margin: 28px 0 0; padding: 18px 0;
  border: solid var(--rule); border-width: 1px 0; }
dl.facts dt { font-size: 13px; color: var(--muted); }
dl.facts dd { margin: 0; font-size: 16px; line-height: 1.35; }
.scroll { overflow-x: auto; margin: 18px 0 6px; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; line-height: 1.4; overflow-wrap: normal; }
th { font-weight: 500; font-size: 13px; color: var(--muted); text-align: right; vertical-align: bottom; padding: 0 0 8px 18px;
  border-bottom: 1px solid var(--ink); }
td { text-align: right; padding: 8px 0 8px 18px; border-bottom: 1px solid var(--rule); white-space: nowrap; vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; min-width: 150px; overflow-wrap: anywhere; }
td small { display: block; color: var(--muted); font-size: 13px; }
tr.best td { background: var(--accent-tint); }
tr.best td:first-child, tr.base td:first-child { box-shadow: inset 3px 0 var(--accent); padding-left: 12px; }
tr.base td:first-child { box-shadow: inset 3px 0 var(--ink); }
tr.base td { background: var(--tint); }
td .mark { display: block; font-size: 12px; color: var(--accent); white-space: nowrap; }
tr.base .mark { color: var(--muted); }
figure { margin: 18px 0 0; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { margin-top: 10px; max-width: 76ch; }
.narrow { display: none; }
details { margin-top: 14px; }
summary { cursor: pointer; font-size: 14px; color: var(--accent); }
ul.notes, ul.apart, ul.failed { padding-left: 18px; margin: 10px 0; max-width: 76ch; }
ul.notes li, ul.apart li, ul.failed li { margin-bottom: 6px; }
.apart b, .failed b { color: var(--ink); font-weight: 500; }
@media (max-width: 720px) {
  main { padding: 32px 16px 48px; }
  h1 { font-size: 28px; } p.lead { font-size: 17px; } h2 { margin-top: 46px; }
  dl.facts { grid-template-columns: 1fr 1fr; }
  .wide { display: none; } .narrow { display: block; max-width: 480px; }
  table.cards thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table.cards, table.cards tbody { display: block; }
  table.cards tr { display: grid; grid-template-columns: 1fr 1fr 1.4fr; gap: 8px 12px; border-bottom: 1px solid var(--rule); padding: 12px 0; }
  table.cards tr.best, table.cards tr.base { background: var(--tint); padding: 12px; box-shadow: inset 3px 0 var(--ink); }
  table.cards tr.best { background: var(--accent-tint); box-shadow: inset 3px 0 var(--accent); }
  table.cards tr td { padding: 0; border: 0; background: none; text-align: left; }
  table.cards tr td:first-child { grid-column: 1 / -1; font-weight: 600; padding: 0; box-shadow: none; }
  table.cards td.long { grid-column: 1 / -1; white-space: normal; }
  table.cards td[data-label]::before { content: attr(data-label); display: block; color: var(--muted); font-size: 12px; line-height: 1.3; }
  table.cards td .mark { display: inline; margin-left: 8px; font-weight: 400; }
}
@media print { body { background: none; } main { padding: 0; max-width: none; } h2, figure, tr { break-inside: avoid; } }
"""
