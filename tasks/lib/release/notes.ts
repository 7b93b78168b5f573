// The release notes: one release's entry in the form of Keep a Changelog, and its place in the file. Text in, text out;
// text is only ever inserted, and what stood in the file stays as it is. What is a heading is decided by `marked`.
import { Lexer } from 'marked';
import semver from 'semver';
import { TaskError } from '../errors.ts';
import type { Change } from './commits.ts';

interface EntryOptions {
  /** Git tag, e.g. `v1.2.0`; becomes the heading. */
  tag: string;
  /** `YYYY-MM-DD`. */
  date: string;
  changes: readonly Change[];
  /** Title of a section → the commit types that it lists, in the order of the notes. */
  sections: Record<string, string[]>;
  /** Image reference, e.g. `synapse:v1.2.0` or `registry.example/synapse:v1.2.0`. */
  image: string;
  /** Tag of the release that one can go back to. */
  rollback?: string | undefined;
}

const HASH_LENGTH = 7;

/** The entry as Markdown with `\n` line ends, the last one included. User text is escaped. */
export function renderEntry({ tag, date, changes, sections, image, rollback }: EntryOptions): string {
  const usage = [`- Image: \`${image}\``, `- Upgrade: \`${commandFor(tag)}\``];
  if (rollback) usage.push(`- Roll back to ${rollback}: \`${commandFor(rollback)}\``);
  const lists = [BREAKING, ...Object.keys(sections), 'Other'].flatMap((title) => {
    const own = changes.filter((change) => sectionOf(change, sections) === title);
    return own.length > 0 ? [`### ${title}`, own.map(renderChange).join('\n')] : [];
  });
  const parts = lists.length > 0 ? lists : ['No notable changes.'];
  return `${[`## [${tag}] - ${date}`, usage.join('\n'), ...parts].join('\n\n')}\n`;
}

/** For any machine that the notes are read on. */
function commandFor(tag: string): string {
  return `npm run switch -- prod --version ${tag}`;
}

const BREAKING = 'Breaking changes';

function sectionOf({ type, isBreaking }: Change, sections: Record<string, string[]>): string {
  if (isBreaking) return BREAKING;
  return Object.keys(sections).find((title) => sections[title]!.includes(type)) ?? 'Other';
}

/** One list item, e.g. `- **api:** add login (#12) (abc1234), with Jane Doe`. */
function renderChange({ subject, scope, references, hash, coAuthors, note }: Change): string {
  const words = escapeLine(subject) || '(no message)';
  const sources = [...references, hash.slice(0, HASH_LENGTH)].join(', ');
  const names = coAuthors.length > 0 ? `, with ${coAuthors.map(escapeLine).join(', ')}` : '';
  const title = scope ? `**${escapeLine(scope).replaceAll('*', '\\*')}:** ` : '';
  const item = `- ${title}${words} (${sources})${names}`;
  return note && note !== subject ? `${item}\n\n${renderNote(note)}` : item;
}

/** The text of a BREAKING CHANGE, as paragraphs that belong to the list item; its own lists stay lists. */
function renderNote(note: string): string {
  const lines = note.split('\n').map((line) => {
    const [, marker, text = ''] = /^\s*([-*] +(?=\S))?(.*)$/.exec(line) ?? [];
    return text.trim() === '' ? '' : `  ${marker ? '- ' : ''}${escapeLine(text)}`;
  });
  return lines.join('\n').replace(/\n{3,}/g, '\n\n');
}

const CONTROL = /[\p{Cc}\u2028\u2029\u202A-\u202E\u2066-\u2069]+/gu;

/**
 * One line of Markdown that shows other people's words as they were meant: emphasis, links and code spans stay, what
 * would open a block, a tag or an image is escaped, control characters and line breaks become spaces.
 */
export function escapeLine(text: string): string {
  const line = text.replace(CONTROL, ' ').replace(/ {2,}/g, ' ').trim();
  return line
    .replace(/`[^`]+`|[<`\\]|&(?=#?\w+;)|!(?=\[)/g, (part) => (part.length > 1 ? part : `\\${part}`))
    .replace(
      /^(?:#(?=#*(?:\s|$))|[-+*](?=[\s-]|$)|[>~|=_[]|(\d{1,9})(?=[.)](?:\s|$)))/,
      (mark, digits?: string) => (digits ? `${digits}\\` : `\\${mark}`),
    );
}

// The file around its entries: where one goes, where it is, and how it is marked withdrawn.

/** An entry in place. `text` has `\n` line ends and no blank lines at its end, to compare it with another one. */
interface FoundEntry {
  /** Offsets into the file: from the heading, and what follows it, to the end of the last line that is not blank. */
  start: number;
  body: number;
  end: number;
  text: string;
  isWithdrawn: boolean;
}

/** A new notes file. */
export const NEW_NOTES = '# Release notes\n';

const WITHDRAWN = '> **Withdrawn:**';
const VERSION_HEADING =
  /^(?:(?:version|release)\s+)?\[?[A-Za-z@/_.-]*?(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)(?=$|[\s\])(:,+])/i;

/**
 * The file with `entry` as its newest: above the first version, else at the end. A file that already has an entry for the
 * tag is returned as it is. @throws TaskError for a file in which it would not be found again
 */
export function insertEntry(text: string, entry: string, tag: string): string {
  verifyText(text);
  const { headings, end } = outline(text);
  if (findEntry(text, tag, { headings, end })) return text;
  const newest = headings.find((heading) => headingVersion(heading.text) !== undefined);
  const inserted = insertAt(text, newest?.start ?? end, entry);
  if (findEntry(inserted, tag)) return inserted;
  throw new TaskError('Cannot add to the release notes: they end inside a code block or an HTML block', {
    code: 'notes-form',
    hint: 'close it (``` or -->) and commit that',
  });
}

/** @throws TaskError: in UTF-16 or Latin-1 no heading would be found */
function verifyText(text: string): void {
  if (!/[\0\uFFFD]/.test(text)) return;
  throw new TaskError('Cannot add to the release notes: they are not UTF-8', {
    code: 'notes-form',
    hint: 'save the file as UTF-8 and commit it',
  });
}

/** The entry of a tag, found by the version in a heading of any level; undefined if there is none. */
export function findEntry(
  text: string,
  tag: string,
  { headings, end } = outline(text),
): FoundEntry | undefined {
  const version = headingVersion(tag);
  const heading = headings.find((one) => version !== undefined && headingVersion(one.text) === version);
  if (!heading) return undefined;
  const isNext = ({ start, level, text: title }: Heading) =>
    start > heading.start && (level <= heading.level || headingVersion(title) !== undefined);
  const next = headings.find(isNext);
  const raw = text.slice(heading.start, next?.start ?? Math.max(end, heading.end)).trimEnd();
  const place = { start: heading.start, body: heading.end, end: heading.start + raw.length };
  return { ...place, text: raw.replaceAll('\r\n', '\n'), isWithdrawn: isMarked(text, heading) };
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
 * A second call changes nothing. `reason` is one line of Markdown. @throws TaskError if there is no such entry
 */
export function withdrawEntry(text: string, tag: string, reason: string): string {
  verifyText(text);
  const found = findEntry(text, tag);
  if (!found) {
    throw new TaskError(`Cannot mark ${tag} as withdrawn: the notes have no entry for it`, {
      code: 'no-entry',
      hint: 'add the entry again, or mark the release yourself',
    });
  }
  if (found.isWithdrawn) return text;
  return insertAt(text, found.body, `${WITHDRAWN} ${reason.replace(/\s+/g, ' ').trim()}`);
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

interface Heading {
  level: number;
  text: string;
  /** Offset of the first character of the heading's first line. */
  start: number;
  /** Offset after its line end. */
  end: number;
}

interface Outline {
  /** In the order of the file, without what only looks like one: in code fences, comments, lists. */
  headings: Heading[];
  /** Offset after the last line that is neither blank nor a `[1.0.0]: https://…` definition. */
  end: number;
}

export function outline(text: string): Outline {
  const mark = text.startsWith('\uFEFF') ? 1 : 0;
  const starts = [mark, ...[...text.matchAll(/\n/g)].map(({ index }) => index + 1)];
  const offset = (line: number) => starts[line] ?? text.length;
  const found: Outline = { headings: [], end: mark };
  let line = 0;
  for (const token of new Lexer().blockTokens(text.slice(mark).replaceAll('\r\n', '\n'))) {
    const next = line + token.raw.split('\n').length - 1;
    const end = offset(line + token.raw.trimEnd().split('\n').length);
    if (token.type === 'heading')
      found.headings.push({ level: token.depth, text: token.text, start: offset(line), end });
    if (token.type !== 'space' && token.type !== 'def') found.end = end;
    line = next;
  }
  return found;
}

function lineEndOf(text: string): string {
  return /\r?\n/.exec(text)?.[0] ?? '\n';
}

/** Inserts lines at the start of a line, set off by blank lines, in the line ends of the file. */
export function insertAt(text: string, position: number, lines: string): string {
  const before = text.slice(0, position);
  const after = text.slice(position);
  const lineEnd = lineEndOf(text);
  const body = text.trim() === '' ? `${NEW_NOTES}\n${lines.trimEnd()}` : lines.trimEnd();
  const startsFile = before.replace('\uFEFF', '') === '';
  const ends = /(?:\r?\n)?(?:\r?\n)?$/.exec(before.slice(-4))?.[0].match(/\n/g)?.length ?? 0;
  const gap = startsFile ? '' : lineEnd.repeat(2 - ends);
  const blankAfter = after === '' || /^[ \t]*\r?\n/.test(after) ? '' : lineEnd;
  return `${before}${gap}${body.replace(/\r?\n/g, lineEnd)}${lineEnd}${blankAfter}${after}`;
}
