// One release's entry in release-notes.md, in the form of Keep a Changelog. Text in, text out; the file around
// the entry is changelog.ts, and what to say is changes.ts.
import semver from 'semver';
import { TaskError } from '../errors.ts';
import type { Change, Changes, Section } from './commits.ts';

interface EntryOptions {
  /** Git tag, e.g. `v1.2.0`; becomes the heading. */
  tag: string;
  /** `YYYY-MM-DD`. */
  date: string;
  changes: Pick<Changes, 'changes'>;
  /** Image reference, e.g. `synapse:v1.2.0` or `registry.example/synapse:v1.2.0`. */
  image: string;
  /** Commands to copy, e.g. `npm run switch -- prod --version v1.2.0`. */
  upgrade: string;
  rollback?: string | undefined;
  /** Left out for a first release; then there is nothing to roll back to either. */
  previousTag?: string | undefined;
}

const SECTIONS: readonly (readonly [Section, string])[] = [
  ['breaking', 'Breaking changes'],
  ['features', 'Features'],
  ['fixes', 'Fixes'],
  ['performance', 'Performance'],
  ['other', 'Other'],
];
const HASH_LENGTH = 7;

/** The entry as Markdown with `\n` line ends, the last one included. User text is escaped. */
export function renderEntry(options: EntryOptions): string {
  const { tag, date, changes } = options;
  const parts = [`## [${tag}] - ${date}`, usage(options)];
  const lines = new Map<Section, string[]>(SECTIONS.map(([section]) => [section, []]));
  for (const change of changes.changes) lines.get(change.section)!.push(renderChange(change));
  for (const [section, title] of SECTIONS) {
    const list = lines.get(section)!;
    if (list.length > 0) parts.push(`### ${title}`, list.join('\n'));
  }
  if (changes.changes.length === 0) parts.push('No notable changes.');
  return `${parts.join('\n\n')}\n`;
}

function usage({ image, upgrade, rollback, previousTag }: EntryOptions): string {
  const lines = [`- Image: ${codeSpan(image)}`, `- Upgrade: ${codeSpan(upgrade)}`];
  if (rollback && previousTag) lines.push(`- Roll back to ${previousTag}: ${codeSpan(rollback)}`);
  return lines.join('\n');
}

/** One list item, e.g. `- **api:** add login (#12, abc1234), with Jane Doe`. */
function renderChange(change: Change): string {
  const subject = change.subject.trim() || '(no message)';
  const words = change.scope
    ? `**${escapeBold(change.scope)}:** ${escapeLine(subject)}`
    : escapeLine(subject);
  const sources = [...change.references, change.hash.slice(0, HASH_LENGTH)].join(', ');
  const names = change.coAuthors.map(escapeLine).join(', ');
  const item = `- ${words} (${sources})${names ? `, with ${names}` : ''}`;
  return change.note && change.note !== change.subject ? `${item}\n\n${renderNote(change.note)}` : item;
}

/** The text of a BREAKING CHANGE, as paragraphs that belong to the list item; its own lists stay lists. */
function renderNote(note: string): string {
  const lines = note.split(/\r?\n/).map((line) => {
    const marker = /^\s*[-*] +(?=\S)/.test(line) ? '- ' : '';
    const text = escapeLine(marker ? line.replace(/^\s*[-*] +/, '') : line);
    return text === '' ? '' : `  ${marker}${text}`;
  });
  return lines.join('\n').replace(/\n{3,}/g, '\n\n');
}

// The file release-notes.md around its entries: where one goes, where it is, and how it is marked withdrawn.
// Text is only ever inserted: whatever form the file has, what stood in it stays byte for byte.

/** An entry in place. `text` has `\n` line ends and no blank lines at its end, to compare it with a new one. */
interface FoundEntry {
  /** Offsets into the file: from the heading to the end of the last line that is not blank. */
  start: number;
  end: number;
  text: string;
  isWithdrawn: boolean;
}

const WITHDRAWN = '> **Withdrawn:**';
const VERSION_HEADING =
  /^(?:(?:version|release)\s+)?\[?[A-Za-z@/_.-]*?(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)(?=$|[\s\])(:,+])/i;
const UNRELEASED = /^\[?unreleased\b/i;
const LINK_DEFINITION = /^\[[^\]]+\]:/;

/**
 * The file with `entry` as its newest: under the title and any "Unreleased" section, above the first version.
 * A file that already has an entry for the tag is returned as it is, so a resumed release can repeat the step.
 * Give a Buffer to keep bytes that are not valid UTF-8. Throws TaskError for UTF-16.
 */
export function insertEntry<T extends string | Buffer>(existing: T, entry: string, tag: string): T {
  if (typeof existing !== 'string') {
    const bytes = existing as Buffer;
    verifyReadable(bytes);
    const result = insertEntry(bytes.toString('latin1'), Buffer.from(entry).toString('latin1'), tag);
    return Buffer.from(result, 'latin1') as Buffer as T;
  }
  const text: string = existing;
  if (findEntry(text, tag)) return existing;
  const shape = outline(text);
  const place = insertionPoint(text, shape);
  // Is a heading at that place seen as one? A file too odd for that gets the entry at the very top.
  const trial = insertAt(text.slice(0, place), place, entry.split('\n', 1)[0]!);
  return insertAt(text, findEntry(trial, tag) ? place : shape.top, entry) as T;
}

/** The entry of a tag, found by the version in a heading of any form; undefined if there is none. */
export function findEntry(existing: string | Buffer, tag: string): FoundEntry | undefined {
  const text = typeof existing === 'string' ? existing : existing.toString('latin1');
  const { headings } = outline(text);
  const version = headingVersion(tag);
  const index = headings.findIndex(
    (heading) => version !== undefined && headingVersion(heading.text) === version,
  );
  const heading = headings[index];
  if (!heading) return undefined;
  const rest = headings.slice(index + 1);
  const next = rest.find(
    ({ level, text: title }) => level <= heading.level || headingVersion(title) !== undefined,
  );
  const raw = withoutLinkDefinitions(text.slice(heading.start, next?.start)).trimEnd();
  const decoded = typeof existing === 'string' ? raw : Buffer.from(raw, 'latin1').toString('utf8');
  const isWithdrawn = raw
    .slice(heading.end - heading.start)
    .trimStart()
    .startsWith(WITHDRAWN);
  const unified = decoded.replace(/\r\n?/g, '\n');
  return { start: heading.start, end: heading.start + raw.length, text: unified, isWithdrawn };
}

/**
 * The file with the tag's entry marked as withdrawn, for a release that was published and so cannot be deleted.
 * A second call changes nothing. `reason` is one line of Markdown. Throws TaskError if there is no such entry.
 */
export function withdrawEntry<T extends string | Buffer>(existing: T, tag: string, reason: string): T {
  if (typeof existing !== 'string') {
    const bytes = existing as Buffer;
    verifyReadable(bytes);
    const result = withdrawEntry(bytes.toString('latin1'), tag, Buffer.from(reason).toString('latin1'));
    return Buffer.from(result, 'latin1') as Buffer as T;
  }
  const text: string = existing;
  const found = findEntry(text, tag);
  if (!found) {
    const hint = 'add the entry again, or mark the release yourself';
    throw new TaskError(`Cannot mark ${tag} as withdrawn: the notes have no entry for it`, {
      code: 'no-entry',
      hint,
    });
  }
  if (found.isWithdrawn) return existing;
  const heading = outline(text).headings.find(({ start }) => start === found.start)!;
  return insertAt(text, heading.end, `${WITHDRAWN} ${reason.replace(/\s+/g, ' ').trim()}`.trimEnd()) as T;
}

/** Versions (without prefix) that the file marks as withdrawn; one pass, for a file with thousands of them. */
export function withdrawnVersions(existing: string): Set<string> {
  const marked = outline(existing).headings.filter((heading) => isMarked(existing, heading));
  return new Set(marked.flatMap((heading) => headingVersion(heading.text) ?? []));
}

function isMarked(text: string, { end }: Heading): boolean {
  const next = /\S/g;
  next.lastIndex = end;
  const found = next.exec(text);
  return found !== null && text.startsWith(WITHDRAWN, found.index);
}

/** The version that a heading or a tag begins with, or undefined. */
function headingVersion(text: string): string | undefined {
  const version = VERSION_HEADING.exec(text)?.[1];
  return version === undefined ? undefined : (semver.parse(version)?.version ?? undefined);
}

function insertionPoint(text: string, { headings, top, endsInside }: Outline): number {
  const unreleased = headings.findIndex((heading) => UNRELEASED.test(heading.text));
  const deepest = headings[unreleased]?.level ?? 3;
  const isRelease = (heading: Heading) =>
    heading.level <= deepest && headingVersion(heading.text) !== undefined;
  const newest = headings.find(isRelease);
  if (newest) return newest.start;
  const end = endsInside ? undefined : withoutLinkDefinitions(text).length;
  if (unreleased !== -1) {
    const next = headings.slice(unreleased + 1).find(({ level }) => level <= deepest);
    return next?.start ?? end ?? headings[unreleased]!.start;
  }
  const title = headings[0];
  if (title?.level !== 1) return top;
  return headings[1]?.start ?? firstListItem(text, title.end) ?? end ?? title.end;
}

/** A history kept as a plain list under the title: what is newer belongs above it. */
function firstListItem(text: string, from: number): number | undefined {
  const match = /^(?:[-*+]|\d{1,9}[.)])[ \t]/m.exec(text.slice(from));
  return match ? from + match.index : undefined;
}

/** The text up to a block of `[1.0.0]: https://…` lines at its end, which belong to the file, not to an entry. */
function withoutLinkDefinitions(text: string): string {
  let end = text.length;
  while (end > 0) {
    const start = Math.max(text.lastIndexOf('\n', end - 1), text.lastIndexOf('\r', end - 1)) + 1;
    const line = text.slice(start, end).trim();
    if (line !== '' && !LINK_DEFINITION.test(line)) break;
    end = Math.max(0, start - 1);
  }
  const rest = text.slice(end);
  return rest.trim() === '' ? text : text.slice(0, end + (/^(?:\r\n|\n|\r)?/.exec(rest)?.[0].length ?? 0));
}

// Finds the headings of a Markdown file and where they stand, skipping what only looks like one: code fences,
// HTML comments, front matter. Reads positions and changes nothing, so that the file can be kept byte for byte.

interface Heading {
  level: number;
  text: string;
  /** Offset of the first character of the heading's line. */
  start: number;
  /** Offset after its line end; for underlined headings after the underline's. */
  end: number;
}

interface Outline {
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

// Puts lines into a text without touching a byte of what is there: blank lines around them, the line ends of
// the file, a title if there was nothing. Apart from changelog.ts, which decides where.

const TITLE = '# Release notes';

/** Inserts lines at the start of a line, set off by blank lines, in the line ends of the file. */
export function insertAt(text: string, position: number, lines: string): string {
  const before = text.slice(0, position);
  const after = text.slice(position);
  const lineEnd = /\r\n|\n|\r/.exec(text)?.[0] ?? '\n';
  const isEmpty = text.replace(BYTE_ORDER_MARK, '').trim() === '';
  const body = isEmpty ? `${TITLE}\n\n${lines.trimEnd()}` : lines.trimEnd();
  const startsFile = before.replace(BYTE_ORDER_MARK, '') === '';
  const gap = startsFile ? '' : lineEnd.repeat(2 - Math.min(2, lineEndsAtEnd(before)));
  const blankAfter = after === '' || /^[ \t]*(?:\r|\n)/.test(after) ? '' : lineEnd;
  return `${before}${gap}${body.replace(/\r?\n/g, lineEnd)}${lineEnd}${blankAfter}${after}`;
}

function lineEndsAtEnd(text: string): number {
  const tail = /(?:\r\n|\n|\r)?(?:\r\n|\n|\r)?$/.exec(text.slice(-4))?.[0] ?? '';
  return tail.match(/\r\n|\n|\r/g)?.length ?? 0;
}

/** Throws for UTF-16: in its bytes no heading can be found, and ASCII must not be mixed into it. */
function verifyReadable(bytes: Buffer): void {
  const [first, second] = bytes;
  if (!((first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff))) return;
  throw new TaskError('Cannot add to the release notes: the file is UTF-16', {
    code: 'notes-encoding',
    hint: 'save it as UTF-8 first',
  });
}

// Makes other people's words safe inside a Markdown list item: no HTML, no headings, no nested lists, no
// control characters. Apart from notes.ts, because escaping is where a mistake lets a commit message write HTML.

const CONTROL = /[\p{Cc}\u2028\u2029\u202A-\u202E\u2066-\u2069]+/gu;
/** Most lines: begins with a letter, and nothing in it means anything to Markdown or HTML. */
const PLAIN = /^[A-Za-z][\w ,.;:'"/()?%@=+#-]*$/;
const BLOCK_START =
  /^(?:#{1,6}(?=\s|$)|>|~{3,}|\[|\||[-+*](?=\s|$)|[-=]+$|[-*_](?:\s*[-*_])+$|(?<digits>\d{1,9})[.)](?=\s|$))/;

/**
 * One line of Markdown that shows `text` as it was meant: emphasis, links and balanced code spans stay, what
 * would open a block, a tag or an image is escaped, control characters and line breaks become spaces.
 */
export function escapeLine(text: string): string {
  if (PLAIN.test(text)) return text;
  const line = text.replace(CONTROL, ' ').replace(/ {2,}/g, ' ').trim();
  const block = BLOCK_START.exec(line);
  if (!block) return escapeInline(line);
  const digits = block.groups?.digits ?? '';
  return `${digits}\\${line[digits.length]}${escapeInline(line.slice(digits.length + 1))}`;
}

/** Like {@link escapeLine}, for words that stand between `**` and `**`. */
function escapeBold(text: string): string {
  return escapeInline(text.replace(CONTROL, ' ').trim()).replaceAll('*', '\\*');
}

/** Code that a reader can copy, whatever backticks it contains. */
function codeSpan(text: string): string {
  const longest = Math.max(0, ...(text.match(/`+/g) ?? []).map((run) => run.length));
  const fence = '`'.repeat(longest + 1);
  const pad = longest > 0 ? ' ' : '';
  return `${fence}${pad}${text}${pad}${fence}`;
}

/** Code spans are copied, everything between them is escaped; a run of backticks without partner is text. */
function escapeInline(line: string): string {
  if (!/[`<&\\!]/.test(line)) return line;
  const parts = line.split(/(`+)/);
  const lastOfLength = new Map<number, number>();
  for (let i = 1; i < parts.length; i += 2) lastOfLength.set(parts[i]!.length, i);
  let result = '';
  for (let i = 0; i < parts.length; i += 1) {
    const part = parts[i]!;
    if (i % 2 === 0) {
      result += escapeText(part, i + 1 < parts.length);
    } else if (lastOfLength.get(part.length)! <= i) {
      result += part.replaceAll('`', '\\`');
    } else {
      let close = i + 2;
      while (parts[close]!.length !== part.length) close += 2;
      result += parts.slice(i, close + 1).join('');
      i = close;
    }
  }
  return result;
}

function escapeText(text: string, isBeforeBacktick: boolean): string {
  const escaped = text
    .replace(/\\(?=[!-/:-@[-`{-~])/g, '\\\\')
    .replace(/</g, '\\<')
    .replace(/&(?=#?\w+;)/g, '&amp;')
    .replace(/!(?=\[)/g, '\\!');
  return isBeforeBacktick && text.endsWith('\\') ? `${escaped}\\` : escaped;
}

// Taking exactly that text out of the notes which a release put in, even when others wrote above and below it
// since. Pure.

/**
 * `present` without what `after` has more than `before`; undefined if that text is not in it exactly once.
 */
export function withoutInsertion(present: string, before: string, after: string): string | undefined {
  if (after === before) return present;
  let start = 0;
  while (start < before.length && before[start] === after[start]) start += 1;
  let end = 0;
  while (end < before.length - start && before.at(-1 - end) === after.at(-1 - end)) end += 1;
  if (start + end !== before.length) return undefined;
  const inserted = wholeLines(before, after.slice(start, after.length - end), start);
  const place = present.indexOf(inserted);
  if (place === -1 || present.indexOf(inserted, place + 1) !== -1) {
    return present.includes(inserted) ? undefined : alreadyGone(present, inserted);
  }
  return present.slice(0, place) + present.slice(place + inserted.length);
}

/**
 * What two texts have in common may reach into the first line of the insertion (`## [v1.`): seen from the start
 * of that line, it is the same insertion.
 */
function wholeLines(before: string, inserted: string, start: number): string {
  const line = before.lastIndexOf('\n', start - 1) + 1;
  const common = before.slice(line, start);
  return inserted.endsWith(common) ? common + inserted.slice(0, inserted.length - common.length) : inserted;
}

/** A person took the entry out already: no line of it that names the version is left. */
function alreadyGone(present: string, inserted: string): string | undefined {
  const heading = /^#+ .*$/m.exec(inserted)?.[0];
  return heading && !present.includes(heading) ? present : undefined;
}
