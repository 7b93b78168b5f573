// What a commit message says to a reader of release notes: one entry, or several for a squashed branch.
// Apart from changes.ts, which judges many commits together, because one message needs no history.
import { CommitParser, type ParserOptions } from 'conventional-commits-parser';
import type { Commit } from './commits.ts';
import { findCoAuthors, footerReferences, isFooter, splitReferences, unique } from './footers.ts';

export type Section = 'breaking' | 'features' | 'fixes' | 'performance' | 'other';

/** One line of the notes, and the commit (full hash) that it tells about. */
export interface Change {
  hash: string;
  section: Section;
  scope?: string | undefined;
  subject: string;
  /** As written: `#12`, `acme/api#3`. */
  references: readonly string[];
  /** Names without addresses. */
  coAuthors: readonly string[];
  /** The text of a BREAKING CHANGE footer, possibly of several lines. */
  note?: string | undefined;
}

const SECTION_OF_TYPE = new Map<string, Section>([
  ['feat', 'features'],
  ['feature', 'features'],
  ['fix', 'fixes'],
  ['bugfix', 'fixes'],
  ['hotfix', 'fixes'],
  ['perf', 'performance'],
]);
const OTHER_TYPES = ['build', 'chore', 'ci', 'deps', 'docs', 'refactor', 'revert', 'style', 'test', 'tests'];
for (const type of OTHER_TYPES) SECTION_OF_TYPE.set(type, 'other');

const parser = new CommitParser({
  headerPattern: /^(\w+)(?:\(([^()]*)\))?(!)?:\s+(.*)$/,
  headerCorrespondence: ['type', 'scope', 'mark', 'subject'],
  noteKeywords: [/BREAKING[ -]CHANGES?/],
  notesPattern: (keywords: string) => new RegExp(`^[\\s|*]{0,8}(${keywords})\\**:\\**\\s*(.*)`),
  // `-field-` lines in a body could otherwise overwrite any property of the result.
  fieldPattern: undefined,
  revertPattern: undefined,
} as unknown as ParserOptions);
// The parser's own search for references takes cubic time, half a second for a header of 800 letters, and no
// option turns it off: a commit message could stop a release. footers.ts finds references instead.
Object.assign(parser, { parseReferences: () => [] });

const SQUASH_LINE = /^[*-] (\w+(?:\([^()]*\))?!?: .*)$/;
const SQUASH_MERGE_LINE = /^ {4}(\w+(?:\([^()]*\))?!?: .*)$/;
const HAS_SQUASH_LINE = /^(?:[*-] | {4})\w+(?:\([^()\n]*\))?!?: /m;
const NONE: readonly string[] = [];
const MAX_SUBJECT = 400;

/**
 * The lines that one commit deserves, at least one: its header, then each conventional line of a squash body. A
 * header without a known type is kept as it is, unless such lines say the same in detail.
 */
export function commitChanges({ hash, header, body, author }: Commit): Change[] {
  const own = parseHeader(header, hash);
  if (body === '') return [own ?? plainChange(header, hash)];
  const squashed = HAS_SQUASH_LINE.test(body) ? squashedChanges(header, body, hash) : [];
  const first = own ?? (squashed.length === 0 ? plainChange(header, hash) : undefined);
  const changes = withoutRepeats(first ? [first, ...squashed] : squashed);
  const shared = [...splitReferences(header).references, ...footerReferences(body)];
  const coAuthors = findCoAuthors(body, author);
  for (const change of changes) {
    if (shared.length > 0) change.references = unique([...change.references, ...shared]);
    change.coAuthors = coAuthors;
  }
  if (body.includes('BREAKING')) addBreakingNote(changes, body);
  return changes;
}

/** True if the first line has a type that Conventional Commits or its usual extensions know. */
export function isConventional(header: string): boolean {
  return parseHeader(header, '') !== undefined;
}

function parseHeader(header: string, hash: string): Change | undefined {
  if (!header.includes(':')) return undefined;
  const { type, scope, mark, subject } = parser.parse(header);
  const section = type ? SECTION_OF_TYPE.get(type.toLowerCase()) : undefined;
  if (!type || !section || !subject) return undefined;
  const change = plainChange(type.toLowerCase() === 'revert' ? `Revert "${subject}"` : subject, hash);
  change.section = mark ? 'breaking' : section;
  change.scope = scope?.trim() || undefined;
  return change;
}

function plainChange(text: string, hash: string): Change {
  const { words, references } = splitReferences(text);
  // A first line of a megabyte is an accident; the hash leads to the rest of it.
  const subject = words.length > MAX_SUBJECT ? `${words.slice(0, MAX_SUBJECT)}…` : words;
  return { hash, section: 'other', scope: undefined, subject, references, coAuthors: NONE, note: undefined };
}

/** `* feat: a` and `- fix: b` lines, or the indented ones below git's own "Squashed commit of the following:". */
function squashedChanges(header: string, body: string, hash: string): Change[] {
  const pattern = header.startsWith('Squashed commit of') ? SQUASH_MERGE_LINE : SQUASH_LINE;
  return body.split('\n').flatMap((line) => {
    const text = pattern.exec(line.trimEnd())?.[1];
    const change = text ? parseHeader(text, hash) : undefined;
    return change ? [change] : [];
  });
}

/** A pull request's title usually repeats its only commit; the more serious of two equal lines is kept. */
function withoutRepeats(changes: readonly Change[]): Change[] {
  if (changes.length === 1) return [...changes];
  const seen = new Map<string, Change>();
  for (const change of changes) {
    const key = `${change.scope ?? ''}:${change.subject}`.toLowerCase();
    const known = seen.get(key);
    if (!known) seen.set(key, change);
    else if (change.section === 'breaking') known.section = 'breaking';
  }
  return [...seen.values()];
}

function addBreakingNote(changes: readonly Change[], body: string): void {
  const text = parser
    .parse(`header\n\n${body}`)
    .notes.map((note) => untilFooter(note.text))
    .join('\n\n');
  const change = changes.find(({ section }) => section === 'breaking') ?? changes[0];
  if (!change || text === '') return;
  change.section = 'breaking';
  change.note = text;
}

function untilFooter(text: string): string {
  const lines = text.split('\n');
  const end = lines.findIndex((line) => isFooter(line) || SQUASH_LINE.test(line));
  return (end === -1 ? lines : lines.slice(0, end)).join('\n').trim();
}
