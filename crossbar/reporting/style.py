"""Owns the style sheet: colours by light and by dark, and what wraps on a narrow screen.

Colours are those of Okabe and Ito (Color Universal Design, 2008), told apart by people who are colour-blind.
"""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1b1f24;--dim:#5b6570;--rule:#dfe3e8;
--blue:#0072b2;--orange:#c35500;--track:#eceff2}
@media (prefers-color-scheme:dark){:root{--page:#12151a;--card:#1a1f26;--ink:#e6e9ed;--dim:#9aa5b1;--rule:#2d343d;
--blue:#56b4e9;--orange:#f0913a;--track:#262c34}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.45 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1480px;margin:0 auto;padding:20px 16px}
h1{font-size:24px;line-height:1.2;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:16px;margin:0}
header p{margin:0 0 16px;color:var(--dim);max-width:70ch}
section>p{margin:2px 0 10px;color:var(--dim);font-size:13px}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(138px,1fr));gap:10px;margin:0 0 14px}
.figures div,section{background:var(--card);border:1px solid var(--rule);border-radius:10px}
.figures div{padding:10px 12px}
dt{color:var(--dim);font-size:12px}
dd{margin:0;font-size:21px;font-weight:600;font-variant-numeric:tabular-nums}
dd.note{font-size:12px;font-weight:400;color:var(--dim)}
.facts{border-collapse:collapse;margin:0 0 16px;font-size:14px}
.facts th{text-align:left;font-weight:400;color:var(--dim);padding:2px 14px 2px 0;vertical-align:top}
.facts td{padding:2px 0;overflow-wrap:anywhere}
.cards{columns:400px 3;column-gap:14px}
section{padding:14px;margin:0 0 14px;break-inside:avoid}
svg{display:block;width:100%;height:auto;font-family:inherit}
svg text{fill:var(--ink)}
.label{font-size:13px}.small{font-size:12.5px}svg .small,svg .tick{fill:var(--dim)}.tick{font-size:12.5px}
.grid{stroke:var(--rule);stroke-width:1}.axis{stroke:var(--dim);stroke-width:1}
.line,.thin{fill:none;stroke-width:2;stroke-linejoin:round}.thin{stroke-width:1.4}
.dashed{stroke-dasharray:5 4;stroke-width:1.6}
.line.blue,.thin.blue{stroke:var(--blue)}.line.orange,.thin.orange{stroke:var(--orange)}
.fill.blue,.dot.blue,.area.blue{fill:var(--blue)}.fill.orange,.dot.orange,.area.orange{fill:var(--orange)}
.area{fill-opacity:.22}.track{fill:var(--track)}.mark{stroke:var(--ink);stroke-width:2}
.empty{fill:var(--track)}.heat{fill:#1f87c9}.tile{fill:transparent;stroke:var(--card);stroke-width:2}.stuck-on{fill:#e69f00}.stuck-off{fill:#cc79a7}.pixels{image-rendering:pixelated;pointer-events:none}
footer{color:var(--dim);font-size:12.5px;margin:16px 0 4px;max-width:90ch}
"""
