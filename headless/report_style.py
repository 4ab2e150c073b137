"""How the report of a batch looks: on a wide and a narrow window, light, dark and on paper."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --page: #faf7f1; --sheet: #fff; --ink: #22262c; --faint: #6b6a66; --line: #e2dccf; --gold: #8a5d10;
  --bad: #a3281c; }
@media screen and (prefers-color-scheme: dark) { :root { --page: #14171b; --sheet: #1c2026; --ink: #e8e4da; --faint: #a09c92;
  --line: #333a43; --gold: #e0b05a; --bad: #ff8f80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 28px 20px 48px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
a { color: inherit; text-decoration-color: var(--gold); text-underline-offset: 2px; }
h1 { margin: 0; font-size: 28px; line-height: 1.2; }
h2 { margin: 36px 0 12px; font-size: 19px; }
p { margin: 4px 0; }
.faint { color: var(--faint); }
ul { margin: 0; padding: 0; list-style: none; }
.counts { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px; margin: 24px 0 16px; }
.counts li, .failed, details, .card, .plots figure { background: var(--sheet); border: 1px solid var(--line); border-radius: 8px; }
.counts li { padding: 10px 14px; color: var(--faint); }
.counts b { display: block; color: var(--ink); font-size: 26px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.counts .bad b { color: var(--bad); }
details { padding: 8px 14px; }
summary { cursor: pointer; }
h3 { margin: 14px 0 4px; font-size: 15px; }
table { border-collapse: collapse; }
th, td { padding: 2px 16px 2px 0; text-align: left; vertical-align: top; font-weight: normal; white-space: pre-wrap; }
th { color: var(--faint); }
.failed { padding: 2px 14px; border-left: 4px solid var(--bad); }
@media screen { .failed { max-height: 480px; overflow: auto; } }
.failed li { padding: 8px 0; }
.failed li + li { border-top: 1px solid var(--line); }
.failed p { color: var(--bad); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 280px), 1fr)); gap: 14px; }
.card { padding: 10px; break-inside: avoid; }
.card h3 { margin: 8px 0 0; line-height: 1.3; }
.card p { font-size: 13px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; }
figure { margin: 0; }
.frame { display: grid; place-items: center; border-radius: 4px; background: var(--page); overflow: hidden; }
.frame img { width: 100%; aspect-ratio: 1; object-fit: contain; }
.pair figure > a { display: block; }
.empty { aspect-ratio: 1; padding: 8px; border: 1px dashed var(--line); color: var(--faint); font-size: 12px; text-align: center; }
figcaption { color: var(--faint); font-size: 12px; }
.pair figcaption { text-align: center; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 14px; }
.plots figure { padding: 12px 14px; break-inside: avoid; }
.plots figcaption { margin-bottom: 6px; }
.plots b { color: var(--ink); font-size: 15px; }
.plots img { display: block; width: 100%; max-width: 620px; }
@media (max-width: 640px) { .counts { grid-template-columns: 1fr 1fr; } }
@media print { :root { color-scheme: light; } body { padding: 0; font-size: 11pt; }
  .cards { grid-template-columns: repeat(3, 1fr); } .plots { grid-template-columns: 1fr 1fr; } }
"""
