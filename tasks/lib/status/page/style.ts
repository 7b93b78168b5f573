// How the page looks: one column on a phone, cards beside each other on a desktop, light and dark as the reader's
// system is. Nothing is loaded: system fonts, no images, no script.

export const STYLE = `
:root {
  color-scheme: light dark;
  --page: #f6f6f3; --card: #ffffff; --ink: #1c1e22; --soft: #5b616b; --line: #e4e4df; --track: #e9e9e4;
  --good: #2c7a57; --bad: #b23328; --wait: #8f6200; --prod: #2f68a6; --dev: #a8651a;
  --shadow: 0 1px 2px rgb(0 0 0 / 4%), 0 4px 16px rgb(0 0 0 / 3%);
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #131518; --card: #1b1e23; --ink: #e7e8ea; --soft: #a0a6b0; --line: #2c3037; --track: #2a2e35;
    --good: #62bb93; --bad: #ec8479; --wait: #dcae55; --prod: #84b5ea; --dev: #e2ab66;
    --shadow: none;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  -webkit-text-size-adjust: 100%; font-variant-numeric: tabular-nums;
}
main { max-width: 68rem; margin: 0 auto; padding: clamp(1.25rem, 4vw, 3.5rem) clamp(1rem, 4vw, 2.5rem) 2rem; }
h1 { font-size: clamp(1.9rem, 5vw, 2.6rem); line-height: 1.15; letter-spacing: -0.02em; font-weight: 640; margin: 0.1rem 0 0.5rem; }
h2 { font-size: 0.85rem; font-weight: 600; color: var(--soft); margin: 2.5rem 0 0.75rem; }
h3 { font-size: 1.15rem; font-weight: 620; margin: 0; }
p { margin: 0; }
.soft { color: var(--soft); }
.name { font-weight: 600; color: var(--soft); }
.grid { display: grid; gap: 1rem; grid-template-columns: minmax(0, 1fr); }
.four { grid-template-columns: repeat(2, minmax(0, 1fr)); }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 1.25rem;
  box-shadow: var(--shadow); min-width: 0;
}
.head { display: flex; justify-content: space-between; align-items: center; gap: 1rem; margin-bottom: 0.9rem; }
.mood { display: inline-flex; align-items: center; gap: 0.45rem; font-size: 0.9rem; font-weight: 560; }
.mood::before { content: ""; width: 0.6rem; height: 0.6rem; border-radius: 50%; background: currentColor; }
.good { color: var(--good); } .bad { color: var(--bad); } .wait { color: var(--wait); } .idle { color: var(--soft); }
dl { display: grid; grid-template-columns: minmax(5.5rem, max-content) minmax(0, 1fr); gap: 0.3rem 1rem; margin: 0; font-size: 0.93rem; }
dt { color: var(--soft); max-width: 34vw; overflow-wrap: anywhere; } dd { margin: 0; overflow-wrap: anywhere; }
code { font: 0.9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
a { color: inherit; text-decoration-color: var(--soft); text-underline-offset: 0.2em; }
.bar { display: block; height: 6px; border-radius: 3px; background: var(--track); overflow: hidden; margin-top: 0.45rem; }
.bar span { display: block; height: 100%; border-radius: 3px; background: var(--prod); min-width: 3px; }
.bar.full span { background: var(--bad); }
.measure .value { font-size: clamp(1.3rem, 5vw, 1.7rem); white-space: nowrap; font-weight: 620; letter-spacing: -0.015em; line-height: 1.2; margin: 0.15rem 0; }
.measure .aim { font-size: 0.9rem; }
.measure .note { font-size: 0.85rem; color: var(--soft); margin-top: 0.5rem; }
.problems { list-style: none; margin: 1.5rem 0 0; padding: 0; display: grid; gap: 0.75rem; }
.problems li { border-left: 3px solid var(--bad); padding: 0.1rem 0 0.1rem 0.9rem; }
.problems li.hint-only { border-color: var(--wait); }
.problems small { display: block; color: var(--soft); font-size: 0.88rem; white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: 0; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0.25rem 1rem; margin-bottom: 0.9rem; }
.key { display: flex; flex-wrap: wrap; gap: 0.2rem 0.9rem; font-size: 0.82rem; color: var(--soft); align-items: center; }
.key i { display: inline-block; width: 0.65rem; height: 0.65rem; border-radius: 2px; margin-right: 0.35rem; }
.plot { display: grid; grid-template-columns: auto 1fr; gap: 0 0.6rem; }
.plot svg { display: block; width: 100%; height: 9rem; overflow: visible; }
.scale { display: flex; flex-direction: column; justify-content: space-between; text-align: right; font-size: 0.75rem; color: var(--soft); line-height: 1; height: 9rem; white-space: nowrap; }
.dates { grid-column: 2; display: flex; justify-content: space-between; font-size: 0.75rem; color: var(--soft); margin-top: 0.4rem; }
.empty { height: 9rem; display: grid; place-items: center; text-align: center; color: var(--soft); font-size: 0.93rem; border: 1px dashed var(--line); border-radius: 10px; padding: 1rem; }
details { margin-top: 0.9rem; font-size: 0.85rem; }
summary { cursor: pointer; color: var(--soft); width: fit-content; }
.table { max-height: 16rem; overflow: auto; margin-top: 0.5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; padding: 0.2rem 0.6rem; border-bottom: 1px solid var(--line); font-weight: 400; white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; } thead th { color: var(--soft); }
.up { fill: var(--good); } .down { fill: var(--bad); } .off { fill: var(--soft); opacity: 0.35; } .unknown { fill: var(--track); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; vector-effect: non-scaling-stroke; }
.rule { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
.aim-rule { stroke: var(--bad); stroke-width: 1; stroke-dasharray: 4 4; vector-effect: non-scaling-stroke; }
.switch { fill: var(--prod); }
footer { margin-top: 2.5rem; font-size: 0.85rem; color: var(--soft); }
@media (min-width: 46rem) {
  .two { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .four { grid-template-columns: repeat(4, minmax(0, 1fr)); }
  .wide { grid-column: 1 / -1; }
}
`;
