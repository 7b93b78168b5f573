// Finds the headings of a Markdown file and where they stand, skipping what only looks like one: code fences,
// HTML comments, front matter. Reads positions and changes nothing, so that the file can be kept byte for byte.

export interface Heading {
  level: number;
  text: string;
  /** Offset of the first character of the heading's line. */
  start: number;
  /** Offset after its line end; for underlined headings after the underline's. */
  end: number;
}

export interface Outline {
  headings: Heading[];
  /** Offset after a byte order mark and front matter: the first place where text may be inserted. */
  top: number;
  /** True if the file ends inside a fence or a comment, so that nothing may be appended to it. */
  endsInside: boolean;
}

const BYTE_ORDER_MARK = /^(?:\uFEFF|\u00EF\u00BB\u00BF)/;
const LINE = /([^\r\n]*)(\r\n|\n|\r|$)/y;
const FENCE = /^(?: *(?:[-*+]|\d{1,9}[.)]))? *(`{3,}|~{3,})(?!.*`)/;
const ATX = /^(#{1,6})(?:[ \t]+(.*))?$/;
const UNDERLINE = /^(=+|-+)[ \t]*$/;
const NO_PARAGRAPH = /^(?:\s*$|[#>|]|[-*+][ \t]|\d+[.)][ \t]| {4}|[-=*_ \t]+$|<)/;
const HTML_BLOCKS: readonly (readonly [RegExp, RegExp])[] = [
  [/^ {0,3}<!--/, /-->/],
  [/^ {0,3}<(?:pre|script|style|textarea)(?=[\s>]|$)/i, /<\/(?:pre|script|style|textarea)>/i],
];

/** Headings in the order of the file. `text` may be UTF-8 decoded or latin1 bytes: only ASCII is looked at. */
export function outline(text: string): Outline {
  const top = afterFrontMatter(text, BYTE_ORDER_MARK.exec(text)?.[0].length ?? 0);
  const headings: Heading[] = [];
  let closes: ((line: string) => boolean) | undefined;
  let above: { line: string; start: number } | undefined;
  for (const { line, start, end } of lines(text, top)) {
    if (closes) {
      if (closes(line)) closes = undefined;
      continue;
    }
    const heading = atxHeading(line, start, end) ?? underlined(line, end, above);
    if (heading) headings.push(heading);
    else closes = opensBlock(line);
    above = heading || closes || NO_PARAGRAPH.test(line) ? undefined : { line, start };
  }
  return { headings, top, endsInside: closes !== undefined };
}

/** YAML or TOML between two equal fences on the very first lines; without a second fence it is ordinary text. */
function afterFrontMatter(text: string, start: number): number {
  let fence: string | undefined;
  for (const { line, end } of lines(text, start)) {
    const trimmed = line.trimEnd();
    if (fence === undefined) {
      if (trimmed !== '---' && trimmed !== '+++') return start;
      fence = trimmed;
    } else if (trimmed === fence) {
      return end;
    }
  }
  return start;
}

function* lines(text: string, from: number) {
  LINE.lastIndex = from;
  for (let start = from; start < text.length; start = LINE.lastIndex) {
    LINE.lastIndex = start;
    const match = LINE.exec(text);
    if (!match) return;
    yield { line: match[1]!, start, end: LINE.lastIndex };
  }
}

function atxHeading(line: string, start: number, end: number): Heading | undefined {
  const match = line.startsWith('#') ? ATX.exec(line.trimEnd()) : null;
  return match ? { level: match[1]!.length, text: withoutClosing(match[2] ?? ''), start, end } : undefined;
}

/** `## v1.2.0 ##` has the same text as `## v1.2.0`. */
function withoutClosing(text: string): string {
  const words = text.trim().split(/[ \t]+/);
  return (/^#+$/.test(words.at(-1) ?? '') ? words.slice(0, -1) : words).join(' ');
}

function underlined(line: string, end: number, above: { line: string; start: number } | undefined) {
  const match = above ? UNDERLINE.exec(line) : null;
  if (!match || !above) return undefined;
  return { level: match[1]!.startsWith('=') ? 1 : 2, text: above.line.trim(), start: above.start, end };
}

/** The test for the line that ends the fence or HTML block which this line opens, if it opens one. */
function opensBlock(line: string): ((line: string) => boolean) | undefined {
  const fence = FENCE.exec(line)?.[1];
  if (fence) {
    return (other) => {
      const run = other.trim();
      return run.length >= fence.length && run === fence.charAt(0).repeat(run.length);
    };
  }
  const html = HTML_BLOCKS.find(([open]) => open.test(line));
  if (!html || html[1].test(line)) return undefined;
  return (other) => html[1].test(other);
}
