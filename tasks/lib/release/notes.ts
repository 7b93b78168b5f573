// The release notes: one release's entry in the form of Keep a Changelog, and its place in the file. Text in, text out;
// text is only ever inserted, and what stood in the file stays as it is.
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

// The file around its entries: where one goes, where it is, and how it is marked withdrawn.

/** An entry in place. `text` has `\n` line ends and no blank lines at its end, to compare it with another one. */
interface FoundEntry {
  /** Offsets into the file: from the heading to the end of the last line that is not blank. */
  start: number;
  end: number;
  text: string;
  isWithdrawn: boolean;
}

/** A notes file that is just being begun. */
export const NEW_NOTES = '# Release notes\n';

const WITHDRAWN = '> **Withdrawn:**';
const VERSION_HEADING =
  /^(?:(?:version|release)\s+)?\[?[A-Za-z@/_.-]*?(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)(?=$|[\s\])(:,+])/i;
const UNRELEASED = /^\[?unreleased\b/i;

/**
 * The file with `entry` as its newest: under the title and any "Unreleased" section, above the first version.
 * A file that already has an entry for the tag is returned as it is. @throws TaskError for a form that is not read
 */
export function insertEntry(text: string, entry: string, tag: string): string {
  verifyForm(text);
  if (findEntry(text, tag)) return text;
  const shape = outline(text);
  const place = insertionPoint(text, shape);
  // Is a heading at that place seen as one? A file too odd for that gets the entry at the very top.
  const trial = insertAt(text.slice(0, place), place, entry.split('\n', 1)[0]!);
  return insertAt(text, findEntry(trial, tag) ? place : shape.top, entry);
}

/** @throws TaskError: a file in which no heading can be found must not be added to */
function verifyForm(text: string): void {
  const { underlined } = outline(text);
  const isText = !/[\0\uFFFD]/.test(text);
  if (isText && underlined === undefined) return;
  const reason = isText ? `its heading "${underlined}" is underlined` : 'it is not UTF-8';
  throw new TaskError(`Cannot add to the release notes: ${reason}`, {
    code: 'notes-form',
    hint: isText ? `write it as: ## ${underlined}` : 'save the file as UTF-8 and commit it',
  });
}

/** The entry of a tag, found by the version in a heading of any level; undefined if there is none. */
export function findEntry(text: string, tag: string): FoundEntry | undefined {
  const version = headingVersion(tag);
  if (version === undefined) return undefined;
  const { headings } = outline(text);
  const index = headings.findIndex((heading) => headingVersion(heading.text) === version);
  const heading = headings[index];
  if (!heading) return undefined;
  const rest = headings.slice(index + 1);
  const next = rest.find(
    ({ level, text: title }) => level <= heading.level || headingVersion(title) !== undefined,
  );
  const raw = withoutLinkDefinitions(text.slice(heading.start, next?.start)).trimEnd();
  const isWithdrawn = isMarked(text, heading);
  const unified = raw.replaceAll('\r\n', '\n');
  return { start: heading.start, end: heading.start + raw.length, text: unified, isWithdrawn };
}

/** The file without the tag's entry, as it was before {@link insertEntry}. */
export function removeEntry(text: string, tag: string): string {
  const found = findEntry(text, tag);
  if (!found) return text;
  const before = text.slice(0, found.start);
  const after = text.slice(found.end).trimStart();
  return after === '' ? `${before.trimEnd()}${lineEndOf(text)}` : before + after;
}

/**
 * The file with the tag's entry marked as withdrawn, for a release that was published and so cannot be deleted.
 * A second call changes nothing. `reason` is one line of Markdown. Throws TaskError if there is no such entry.
 */
export function withdrawEntry(text: string, tag: string, reason: string): string {
  verifyForm(text);
  const found = findEntry(text, tag);
  if (!found) {
    throw new TaskError(`Cannot mark ${tag} as withdrawn: the notes have no entry for it`, {
      code: 'no-entry',
      hint: 'add the entry again, or mark the release yourself',
    });
  }
  if (found.isWithdrawn) return text;
  const heading = outline(text).headings.find(({ start }) => start === found.start)!;
  return insertAt(text, heading.end, `${WITHDRAWN} ${reason.replace(/\s+/g, ' ').trim()}`.trimEnd());
}

/** Versions (without prefix) that the file marks as withdrawn; one pass, for a file with thousands of them. */
export function withdrawnVersions(text: string): Set<string> {
  const marked = outline(text).headings.filter((heading) => isMarked(text, heading));
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
  let isFound = false;
  while (end > 0) {
    const start = end < 2 ? 0 : text.lastIndexOf('\n', end - 2) + 1;
    const line = text.slice(start, end).trim();
    const isDefinition = /^\[[^\]]+\]:/.test(line);
    if (line !== '' && !isDefinition) break;
    isFound ||= isDefinition;
    end = start;
  }
  return isFound ? text.slice(0, end) : text;
}

interface Heading {
  level: number;
  text: string;
  /** Offset of the first character of the heading's line. */
  start: number;
  /** Offset after its line end. */
  end: number;
}

interface Outline {
  headings: Heading[];
  /** Offset after a byte order mark and front matter: the first place where text may be inserted. */
  top: number;
  /** True if the file ends inside a fence or a comment, so that nothing may be appended to it. */
  endsInside: boolean;
  /** A heading that is underlined, the first one: Markdown's other form, which is not read. */
  underlined: string | undefined;
}

const FENCE = /^(?: *(?:[-*+]|\d{1,9}[.)]))? *(`{3,}|~{3,})(?!.*`)/;
const ATX = /^(#{1,6})(?:[ \t]+(.*))?$/;
const NO_PARAGRAPH = /^(?:\s*$|[#>|<]|[-*+][ \t]|\d+[.)][ \t]| {4}|[-=*_ \t]+$|\[[^\]]+\]:)/;
const HTML_BLOCKS: readonly (readonly [RegExp, RegExp])[] = [
  [/^ {0,3}<!--/, /-->/],
  [/^ {0,3}<(?:pre|script|style|textarea)(?=[\s>]|$)/i, /<\/(?:pre|script|style|textarea)>/i],
];

/** The headings in the order of the file, without what only looks like one: in code fences, comments, front matter. */
export function outline(text: string): Outline {
  const shape: Outline = {
    headings: [],
    top: afterFrontMatter(text),
    endsInside: false,
    underlined: undefined,
  };
  let closes: ((line: string) => boolean) | undefined;
  let above: string | undefined;
  for (const { line, start, end } of lines(text, shape.top)) {
    if (closes) {
      if (closes(line)) closes = undefined;
      continue;
    }
    const [, marks, words = ''] = ATX.exec(line.trimEnd()) ?? [];
    // `## v1.2.0 ##` has the same text as `## v1.2.0`.
    if (marks) shape.headings.push({ level: marks.length, text: withoutClosing(words), start, end });
    else closes = opensBlock(line);
    const isUnderline = above !== undefined && /^=+\s*$/.test(line);
    const isVersionUnderline = /^-+\s*$/.test(line) && headingVersion(above ?? '') !== undefined;
    if (isUnderline || isVersionUnderline) shape.underlined ??= above;
    above = marks || closes || NO_PARAGRAPH.test(line) ? undefined : line.trim();
  }
  return { ...shape, endsInside: closes !== undefined };
}

function withoutClosing(text: string): string {
  const words = text.trim().split(/[ \t]+/);
  return (/^#+$/.test(words.at(-1) ?? '') ? words.slice(0, -1) : words).join(' ');
}

/** YAML or TOML between two equal fences on the very first lines; without a second fence it is ordinary text. */
function afterFrontMatter(text: string): number {
  const top = text.startsWith('\uFEFF') ? 1 : 0;
  let fence: string | undefined;
  for (const { line, end } of lines(text, top)) {
    const trimmed = line.trimEnd();
    if (fence === undefined) {
      if (trimmed !== '---' && trimmed !== '+++') return top;
      fence = trimmed;
    } else if (trimmed === fence) {
      return end;
    }
  }
  return top;
}

function* lines(text: string, from: number) {
  for (let start = from, end = from; start < text.length; start = end) {
    const newline = text.indexOf('\n', start);
    end = newline === -1 ? text.length : newline + 1;
    yield { line: text.slice(start, end).replace(/\r?\n$/, ''), start, end };
  }
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

function lineEndOf(text: string): string {
  return /\r?\n/.exec(text)?.[0] ?? '\n';
}

/** Inserts lines at the start of a line, set off by blank lines, in the line ends of the file. */
export function insertAt(text: string, position: number, lines: string): string {
  const before = text.slice(0, position);
  const after = text.slice(position);
  const lineEnd = lineEndOf(text);
  const isEmpty = text.trim() === '';
  const body = isEmpty ? `${NEW_NOTES}\n${lines.trimEnd()}` : lines.trimEnd();
  const startsFile = before.replace('\uFEFF', '') === '';
  const ends = /(?:\r?\n)?(?:\r?\n)?$/.exec(before.slice(-4))?.[0].match(/\n/g)?.length ?? 0;
  const gap = startsFile ? '' : lineEnd.repeat(2 - ends);
  const blankAfter = after === '' || /^[ \t]*\r?\n/.test(after) ? '' : lineEnd;
  return `${before}${gap}${body.replace(/\r?\n/g, lineEnd)}${lineEnd}${blankAfter}${after}`;
}

// Other people's words inside a Markdown list item: no HTML, no headings, no nested lists, no control characters.

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
