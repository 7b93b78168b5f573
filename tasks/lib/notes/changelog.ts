// The file release-notes.md around its entries: where one goes, where it is, and how it is marked withdrawn.
// Text is only ever inserted: whatever form the file has, what stood in it stays byte for byte.

import { TaskError } from '../errors.ts';
import { semver } from '../libraries.ts';
import { type Heading, type Outline, outline } from './headings.ts';
import { insertAt, verifyReadable } from './insertion.ts';

/** An entry in place. `text` has `\n` line ends and no blank lines at its end, to compare it with a new one. */
export interface FoundEntry {
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
