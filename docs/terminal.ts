// A terminal's output as text, and as an animated SVG: what a task wrote, when, and where it wrote over it.

/** What arrived on the terminal, and how many seconds after the start. */
export interface Chunk {
  at: number;
  text: string;
}

interface Cell {
  character: string;
  /** SGR numbers, e.g. `1;32`. */
  style: string;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: that is what a terminal gets
const SEQUENCE = /\x1b\[([?\d;]*)([A-Za-z])|[\s\S]/g;

/** Rows of cells, as far as our tasks use a terminal: colours, carriage return, erasing, moving the cursor. */
function openScreen() {
  const rows: Cell[][] = [[]];
  let [row, column, style] = [0, 0, ''];
  const line = () => {
    while (rows.length <= row) rows.push([]);
    return rows[row]!;
  };
  const control = (parameters: string, letter: string) => {
    const count = Number(parameters) || 1;
    if (letter === 'm') style = parameters === '' || parameters === '0' ? '' : parameters;
    if (letter === 'A') row = Math.max(0, row - count);
    if (letter === 'B') row += count;
    if (letter === 'G') column = count - 1;
    if (letter === 'K') line().splice(parameters === '2' ? 0 : column);
    if (letter === 'J') {
      line().splice(column);
      rows.splice(row + 1);
    }
  };
  const put = (character: string) => {
    if (character === '\n') row += 1;
    if (character === '\r') column = 0;
    if (character < ' ') return;
    const cells = line();
    while (cells.length < column) cells.push({ character: ' ', style: '' });
    cells[column] = { character, style };
    column += 1;
  };
  return {
    rows,
    write: (text: string) => {
      for (const [all, parameters, letter] of text.matchAll(SEQUENCE)) {
        if (letter) control(parameters ?? '', letter);
        else put(all);
      }
      line();
    },
  };
}

/** What can be read on the terminal at the end. */
export function finalText(chunks: readonly Chunk[]): string {
  const screen = openScreen();
  for (const { text } of chunks) screen.write(text);
  return screen.rows
    .map((cells) =>
      cells
        .map(({ character }) => character)
        .join('')
        .trimEnd(),
    )
    .join('\n')
    .trim();
}

// The SVG: each state of a row is a text that is visible from when it was written until it was written over.

const COLUMNS = 100;
const ROWS = 24;
const [CHARACTER, LINE, MARGIN] = [8.4, 20, 18];
const [WIDTH, HEIGHT] = [COLUMNS * CHARACTER + 2 * MARGIN, ROWS * LINE + 2 * MARGIN];
/** Seconds for which the end is shown before it starts again. */
const HOLD = 5;

interface RowState {
  row: number;
  markup: string;
  from: number;
  to: number;
}

const escaped = (text: string) => text.replace(/[&<>]/g, (character) => `&#${character.charCodeAt(0)};`);

function markupOf(cells: readonly Cell[]): string {
  const runs: Cell[] = [];
  for (const { character, style } of cells) {
    const last = runs.at(-1);
    if (last?.style === style) last.character += character;
    else runs.push({ character, style });
  }
  return runs
    .map(({ character, style }) => {
      const names = style.split(';').map((number) => `s${number}`);
      return style ? `<tspan class="${names.join(' ')}">${escaped(character)}</tspan>` : escaped(character);
    })
    .join('');
}

/** Long rows continue on the next one, from the last space. */
function wrap(cells: Cell[]): Cell[][] {
  if (cells.length <= COLUMNS) return [cells];
  const space = cells.slice(0, COLUMNS).findLastIndex(({ character }) => character === ' ');
  const end = space > COLUMNS / 2 ? space + 1 : COLUMNS;
  return [cells.slice(0, end), ...wrap(cells.slice(end))];
}

function statesOf(chunks: readonly Chunk[]) {
  const screen = openScreen();
  const states: RowState[] = [];
  const heights: { at: number; rows: number }[] = [];
  let shown: (RowState | undefined)[] = [];
  for (const { at, text } of chunks) {
    screen.write(text);
    const rows = screen.rows.flatMap(wrap).map(markupOf);
    for (let row = 0; row < Math.max(rows.length, shown.length); row += 1) {
      const markup = rows[row] ?? '';
      if ((shown[row]?.markup ?? '') === markup) continue;
      if (shown[row]) shown[row]!.to = at;
      shown[row] = markup ? { row, markup, from: at, to: Infinity } : undefined;
      if (shown[row]) states.push(shown[row]!);
    }
    shown = shown.slice(0, Math.max(rows.length, shown.length));
    if (heights.at(-1)?.rows !== rows.length) heights.push({ at, rows: rows.length });
  }
  return { states: states.filter(({ from, to }) => to > from), heights };
}

/** Plays again and again; with reduced motion, the end alone. */
export function animatedSvg(title: string, chunks: readonly Chunk[]): string {
  const { states, heights } = statesOf(chunks);
  const total = (chunks.at(-1)?.at ?? 0) + HOLD;
  const at = (seconds: number) => `${((100 * seconds) / total).toFixed(2)}%`;
  const up = (rows: number) => `{transform:translateY(${-LINE * Math.max(0, rows - ROWS)}px)}`;
  const visible = states.map(({ from, to }, index) => {
    const end = to === Infinity ? '' : `${at(to)}{opacity:0}`;
    return `@keyframes k${index}{0%{opacity:0}${at(from)}{opacity:1}${end}}`;
  });
  const scroll = heights.map(({ at: time, rows }) => `${at(time)}${up(rows)}`);
  const last = heights.at(-1)?.rows ?? 0;
  const texts = states.map(({ row, markup, to }, index) => {
    const hidden = to === Infinity ? '' : ' opacity="0"';
    return `<text y="${(row + 0.75) * LINE}"${hidden} style="animation-name:k${index}">${markup}</text>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escaped(title)}">
<style>text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#d8dee6;white-space:pre}
text,.scroll{animation:${total.toFixed(2)}s step-end infinite}.scroll{animation-name:scroll;transform:translateY(${-LINE * Math.max(0, last - ROWS)}px)}
.s1{font-weight:700}.s2{opacity:.6}.s31{fill:#f08a80}.s32{fill:#7cc9a2}.s33{fill:#e2b662}.s36{fill:#7fbfd6}
@media (prefers-reduced-motion:reduce){text,.scroll{animation:none}}
@keyframes scroll{0%{transform:none}${scroll.join('')}}
${visible.join('\n')}
</style>
<rect width="100%" height="100%" rx="10" fill="#16191e"/>
<svg x="${MARGIN}" y="${MARGIN}" width="${COLUMNS * CHARACTER}" height="${ROWS * LINE}"><g class="scroll">
${texts.join('\n')}
</g></svg></svg>
`;
}
