"""What the report's page adds to the style of all pages: matrices, grids, pictures."""

CSS = """
:root { --cuda: #3f7d20; --host: #2b6cb0; --other: #b7791f; --idle: #8882; --fast: #17662f26;
  --busy: #62748a; --over: #9a6bb8; }
@media (prefers-color-scheme: dark) {
  :root { --cuda: #7cc25b; --host: #6ba6e0; --other: #e0ac5a; --fast: #6fd08c33; --busy: #8ea3b8;
    --over: #c49be0; }
}
body { max-width: 90rem; }
h3 { margin: 1.5rem 0 .3rem; }
small { font-weight: normal; color: var(--dim); }
.doubt { color: var(--other); }
ul.plain { padding-left: 1.2rem; }
.scroll { overflow-x: auto; }
.matrix { width: auto; min-width: min(100%, 40rem); }
.matrix tbody th { font-weight: normal; min-width: 7rem; }
.matrix thead th, .matrix td { text-align: center; padding: .3rem .5rem; }
.matrix .wide { font-weight: normal; font-size: .85em; display: block; }
.matrix tbody tr:hover, .kv tbody tr:hover { background: var(--idle); }
.grids { display: flex; flex-wrap: wrap; gap: 0 2.5rem; overflow-x: auto; }
.kv { width: auto; font-size: .9rem; margin: .5rem 0; }
.kv th, .kv td { padding: .1rem .3rem; border: 1px solid var(--line); text-align: center;
  font-weight: normal; white-space: nowrap; }
.kv thead td { border: 0; }
.kv thead th { vertical-align: bottom; padding: .4rem .1rem; line-height: 1; }
.kv thead th span { display: inline-block; writing-mode: vertical-rl; transform: rotate(180deg); }
.kv tbody th { text-align: right; }
.kv td { min-width: 1.4rem; }
.fast { background: var(--fast); color: var(--good); }
.slow { color: var(--dim); }
figure { margin: .8rem 0 0; }
figcaption { color: var(--dim); font-size: .9rem; }
svg { display: block; width: 100%; background: var(--idle); }
.strip { height: 3.75rem; }
.busy { fill: var(--busy); }
.over { fill: var(--over); }
.host { fill: var(--host); }
.cuda { fill: var(--cuda); }
.other { fill: var(--other); }
.cores { stroke: var(--bad); stroke-width: 1; stroke-dasharray: 6 4; vector-effect: non-scaling-stroke; }
.key { display: inline-block; width: .8em; height: .8em; }
.key.cuda { background: var(--cuda); }
.key.host { background: var(--host); }
.key.other { background: var(--other); }
.axis { display: flex; justify-content: space-between; margin: .2rem 0; font-size: .85rem;
  color: var(--dim); }
.axis span { white-space: nowrap; }
.slowest { max-width: 62rem; }
.slowest th { white-space: nowrap; }
.slowest th + th, .slowest td + td { text-align: right; padding-right: 0; padding-left: .6rem; }
@media (max-width: 60rem) { .matrix .wide { display: none; } }
@media (max-width: 40rem) {
  .matrix { font-size: .85rem; }
  .matrix small { display: block; }
  .slowest { font-size: .85rem; }
  .kv { font-size: .8rem; }
  .kv th, .kv td { padding: .1rem; }
  .kv td { min-width: 1.1rem; }
  .axis span:nth-child(even) { display: none; }
  .matrix tbody th small { display: none; }
  .matrix thead th, .matrix td { padding: .3rem .25rem; }
}
@media print {
  .rows { font-size: 8pt; }
  .grids { display: block; overflow: visible; }
  .kv { display: inline-table; break-inside: avoid; margin-right: 1rem; }
  .fast, .busy, .over, .cuda, .host, .other, .key, svg { print-color-adjust: exact; }
}
"""
