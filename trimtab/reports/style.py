"""The report's only style sheet. Colour says how the weights were made, everywhere the same; shape says the context."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1b2126; --soft: #56616b; --rule: #d8dde2; --wash: #f4f6f7;
  --base: #69727c; --tuned: #1467b3; --blend: #06795a; --linear: #98500f; --api: #7d4a9c;
  --yes: #06795a; --no: #a3341f; --warn: #8a5a00; --target: #1b2126;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181b; --ink: #e7eaec; --soft: #a1abb4; --rule: #333b42; --wash: #1c2226;
    --base: #9fa8b1; --tuned: #6db3f2; --blend: #4cc39b; --linear: #e2a468; --api: #c79de0;
    --yes: #4cc39b; --no: #f0917c; --warn: #e2b04e; --target: #e7eaec;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
main { max-width: 1088px; margin: 0 auto; padding: 48px 24px 64px; }
h1 { font-size: 2.1rem; line-height: 1.22; font-weight: 650; letter-spacing: -0.015em; margin: 12px 0 16px; max-width: 30em; text-wrap: balance; }
h2 { font-size: 1.3rem; line-height: 1.3; font-weight: 650; margin: 0 0 4px; }
h3 { font-size: 1rem; font-weight: 650; margin: 28px 0 8px; }
p { margin: 0 0 12px; max-width: 46em; text-wrap: pretty; }
section { border-top: 1px solid var(--rule); margin-top: 48px; padding-top: 24px; }
a { color: inherit; text-underline-offset: 3px; text-decoration-color: var(--soft); }
:focus-visible { outline: 2px solid var(--tuned); outline-offset: 2px; }
.lead, .soft, .note, .rests { color: var(--soft); }
.lead { margin-bottom: 16px; }
.note { font-size: 0.875rem; margin-top: 8px; }
.yes { color: var(--yes); }
.no { color: var(--no); }
.warn { color: var(--warn); }

.kicker { display: flex; flex-wrap: wrap; gap: 4px 20px; align-items: baseline; margin: 0; color: var(--soft); font-size: 0.9rem; max-width: none; }
.kicker > * { min-width: 0; }
.kicker b { color: var(--ink); font-weight: 600; }
.state { font-weight: 650; border: 1.5px solid; border-radius: 4px; padding: 1px 9px; }
.needs { font-size: 1.1rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 0 32px; margin: 28px 0 0; }
.facts div { border-top: 2px solid var(--ink); padding-top: 8px; min-width: 0; display: grid; grid-template-columns: minmax(0, 1fr); grid-template-rows: subgrid; grid-row: span 3; row-gap: 0; }
.facts dt { font-size: 0.9rem; line-height: 1.35; margin-bottom: 2px; }
.facts dd { margin: 0; }
.facts .value { font-size: 1.9rem; line-height: 1.3; font-weight: 600; letter-spacing: -0.01em; font-variant-numeric: tabular-nums; }
.facts .note { margin: 2px 0 20px; }
.caveats { border-left: 3px solid var(--warn); padding-left: 16px; margin: 8px 0 0; }
.caveats h2 { font-size: 1rem; }
.caveats ul { margin: 4px 0 0; padding-left: 18px; max-width: 60em; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 20px; padding: 0; margin: 32px 0 -16px; font-size: 0.9rem; }

.mark { font-size: 0.75rem; line-height: 1; border: 1px solid var(--rule); border-radius: 3px; padding: 1px 5px; color: var(--soft); font-weight: 400; white-space: nowrap; }
.mark.predicted { border-style: dashed; border-color: var(--soft); }
.mark.yours { border-color: var(--soft); background: var(--wash); }
.arm { white-space: nowrap; font-weight: 500; }
.arm strong { font-weight: 700; }
.icon { vertical-align: -2px; margin-right: 6px; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 22px; padding: 0; margin: 0 0 14px; font-size: 0.875rem; color: var(--soft); }
.plain, .remarks { list-style: none; padding: 0; margin: 0 0 12px; }
.plain li { padding: 5px 0; }
.remarks li { padding: 7px 0; border-bottom: 1px solid var(--rule); max-width: 62em; }
.level { display: inline-block; min-width: 3.2em; font-weight: 650; color: var(--soft); }
.level.warn { color: var(--warn); }
.level.stop { color: var(--no); }

.scroll { overflow-x: auto; margin: 8px 0; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: baseline; padding: 8px 18px 8px 0; border-bottom: 1px solid var(--rule); }
th:last-child, td:last-child { padding-right: 2px; }
thead th { font-weight: 500; color: var(--soft); border-bottom-color: var(--soft); vertical-align: bottom; }
tbody th { font-weight: 500; overflow-wrap: anywhere; min-width: 9em; }
td { white-space: nowrap; }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 12em; }
.number { text-align: right; }
.number + .text { padding-left: 14px; }
.cell + .cell { margin-top: 6px; }
.cell .arm { display: block; }

svg { display: block; max-width: 100%; height: auto; overflow: visible; }
svg.icon { display: inline-block; max-width: none; overflow: hidden; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; fill: var(--ink); font-variant-numeric: tabular-nums; }
svg text.strong { font-weight: 700; }
svg text.tick, svg text.axis-title { fill: var(--soft); }
svg text.target-text { fill: var(--ink); }
svg text.halo { paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round; }
.grid { stroke: var(--rule); stroke-width: 1; }
.target { stroke: var(--target); stroke-width: 1.25; stroke-dasharray: 5 4; }
.leader { stroke: var(--soft); stroke-width: 1; }
.whisker { stroke-width: 3; stroke-linecap: round; opacity: 0.75; }
.whisker.thin { stroke-width: 1.5; opacity: 0.75; }
.dot { stroke: var(--paper); stroke-width: 1.5; }
.dot.outline { fill: none; stroke: var(--soft); }
.dot.base { fill: var(--base); } .dot.tuned { fill: var(--tuned); } .dot.blend { fill: var(--blend); } .dot.linear { fill: var(--linear); } .dot.api { fill: var(--api); }
.whisker.base { stroke: var(--base); } .whisker.tuned { stroke: var(--tuned); } .whisker.blend { stroke: var(--blend); } .whisker.linear { stroke: var(--linear); } .whisker.api { stroke: var(--api); }
.line { fill: none; stroke-width: 1.75; stroke-linejoin: round; }
.line.train { stroke: var(--soft); stroke-width: 1.25; }
.line.base, .point.base { stroke: var(--base); } .line.tuned, .point.tuned { stroke: var(--tuned); } .line.blend, .point.blend { stroke: var(--blend); } .line.linear, .point.linear { stroke: var(--linear); } .line.api, .point.api { stroke: var(--api); }
.point { fill: var(--paper); stroke-width: 1.5; }
.spot { display: inline-block; width: 8px; height: 8px; border-radius: 50%; background: var(--tuned); margin-right: 6px; }
.swatch { display: inline-block; width: 18px; border-top: 1.5px solid var(--soft); vertical-align: 4px; margin-right: 6px; }
.swatch.dev { border-top: 2.5px solid var(--tuned); }
.narrow { display: none; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 8px 30px; }
.pair h3 { margin-top: 12px; }

.glossary { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 20px; margin: 4px 0 12px; font-size: 0.9375rem; }
.glossary dd { margin: 0; color: var(--soft); }
details { border-bottom: 1px solid var(--rule); padding: 4px 0; }
details:last-child { border-bottom: 0; }
summary { cursor: pointer; padding: 7px 0; }
summary b { font-weight: 600; }
.example { margin: 20px 0 28px; }
details .example { padding-left: 18px; }
.question { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 2px 16px; margin: 0 0 8px; max-width: 62em; }
.question dt { color: var(--soft); font-size: 0.875rem; line-height: 1.7; }
.question dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; unicode-bidi: isolate; }
.question dd:first-of-type { font-weight: 600; }
.answers { list-style: none; padding: 0; margin: 0; border-top: 1px solid var(--rule); }
.answers li { display: grid; grid-template-columns: 15em minmax(0, 1fr); gap: 0 20px; padding: 7px 0; border-bottom: 1px solid var(--rule); font-size: 0.9375rem; }
.answers .who { grid-row: span 2; display: flex; flex-wrap: wrap; align-items: baseline; align-content: flex-start; gap: 0 10px; }
.answers .who .no { flex-basis: 100%; font-size: 0.8125rem; padding-left: 20px; }
.answers .figure { font-variant-numeric: tabular-nums; color: var(--soft); }
.answers .said { overflow-wrap: anywhere; white-space: pre-wrap; unicode-bidi: isolate; }
.answers .soft { font-size: 0.8125rem; overflow-wrap: anywhere; }
pre { overflow: auto; max-height: 480px; background: var(--wash); padding: 14px 16px; font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; margin: 8px 0 16px; }
footer { border-top: 1px solid var(--rule); margin-top: 48px; padding-top: 16px; color: var(--soft); font-size: 0.875rem; }

@media (max-width: 980px) {
  .pair { grid-template-columns: 1fr; }
  .facts { grid-template-columns: repeat(2, minmax(0, 1fr)); }
}
@media (max-width: 700px) {
  main { padding: 28px 16px 48px; }
  h1 { font-size: 1.5rem; }
  .facts { column-gap: 20px; }
  .scroll tr > :first-child { position: sticky; left: 0; background: var(--paper); }
  .cell .soft { display: block; }
  tbody th { min-width: 7em; }
  th, td { padding-right: 14px; }
  .glossary { grid-template-columns: minmax(0, 1fr); gap: 0; }
  .glossary dd { margin-bottom: 8px; }
  .facts .value { font-size: 1.45rem; }
  .wide { display: none; }
  .narrow { display: block; }
  .question { grid-template-columns: minmax(0, 1fr); gap: 0; }
  .answers li { grid-template-columns: minmax(0, 1fr); gap: 2px; }
  .answers .who { grid-row: auto; }
  .answers .who .no { flex-basis: auto; padding-left: 0; }
}
@media print {
  :root { --paper: #fff; --ink: #000; --soft: #444; --rule: #bbb; --wash: #fff; }
  @page { margin: 14mm; }
  body { font-size: 10.5pt; }
  h1 { font-size: 1.6rem; }
  table { font-size: 8pt; }
  th, td { padding-right: 10px; }
  .facts { grid-template-columns: repeat(4, 1fr); column-gap: 18px; }
  .facts .value { font-size: 1.4rem; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  section { margin-top: 24px; padding-top: 14px; }
  h2, h3 { break-after: avoid; }
  svg, tr, .answers li { break-inside: avoid; }
  .scroll { overflow: visible; }
  td { white-space: normal; }
  pre { max-height: none; white-space: pre-wrap; overflow-wrap: anywhere; }
  details:not([open])::details-content { content-visibility: visible; block-size: auto; }
}
"""
