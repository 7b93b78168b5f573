// What the commits of a range amount to: the lines that the release notes get, and the bump that they ask for. `git log`
// is read as a stream; which lines one message deserves is decided by Conventional Commits, as people really write them.
import { filterRevertedCommitsSync } from 'conventional-commits-filter';
import { CommitParser, type ParserOptions } from 'conventional-commits-parser';
import { TaskError } from '../errors.ts';

/** One commit of the range; `parents` and `hash` are full hashes. */
export interface Commit {
  hash: string;
  parents: readonly string[];
  author: string;
  /** First line of the message, '' when the message is empty. */
  header: string;
  /** Everything after the first line, as written; '' when there is nothing. */
  body: string;
}

const FIELDS = ['%H', '%P', '%an', '%B'];

/**
 * Arguments for the one `git log` of a range such as `v1.1.0..HEAD` or `HEAD`. Fields and commits end in NUL,
 * the only byte that no message can contain. Children come before their parents, so that a revert is met before what it
 * takes back. The options are spelled out against the user's own git configuration.
 */
export function commitLogArguments(range: string): string[] {
  const format = `--format=tformat:${FIELDS.join('%x00')}`;
  const plain = ['--no-show-signature', '--no-color', '--no-patch', '--encoding=UTF-8'];
  return ['log', '-z', '--topo-order', ...plain, format, '--end-of-options', range, '--'];
}

/**
 * The commits in the output of `git log` with {@link commitLogArguments}, one at a time, in git's order.
 * Chunks may split anywhere, inside a character too. Throws TaskError when the output ends inside a commit.
 */
export async function* parseCommitLog(chunks: AsyncIterable<Buffer | string>): AsyncGenerator<Commit> {
  // Chunks without any NUL are only collected: joining at each one would cost a huge message its square.
  let waiting: Buffer[] = [];
  let fields: string[] = [];
  for await (const chunk of chunks) {
    const bytes = Buffer.from(chunk as Buffer);
    let start = 0;
    for (let end = bytes.indexOf(0); end !== -1; end = bytes.indexOf(0, start)) {
      fields.push(Buffer.concat([...waiting, bytes.subarray(start, end)]).toString());
      waiting = [];
      start = end + 1;
      if (fields.length < FIELDS.length) continue;
      yield readCommit(fields);
      fields = [];
    }
    if (start < bytes.length) waiting.push(bytes.subarray(start));
  }
  if (fields.length === 0 && waiting.length === 0) return;
  throw new TaskError('Cannot read the commits: the output of `git log` ends in the middle of a commit', {
    code: 'truncated-log',
    hint: 'run it again; if it stays so, check the repository with `git fsck`',
  });
}

function readCommit([hash = '', parents = '', author = '', text = '']: readonly string[]): Commit {
  const message = text.replace(/^[\r\n]+/, '');
  const end = message.indexOf('\n');
  const header = end === -1 ? message : message.slice(0, end).replace(/\r$/, '');
  const body = end === -1 ? '' : message.slice(end + 1);
  return { hash, parents: parents ? parents.split(' ') : [], author, header, body };
}

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
// option turns it off: a commit message could stop a release. References are found below instead.
Object.assign(parser, { parseReferences: () => [] });

const SQUASH_LINE = /^[*-] (\w+(?:\([^()]*\))?!?: .*)$/;
const SQUASH_MERGE_LINE = /^ {4}(\w+(?:\([^()]*\))?!?: .*)$/;
const HAS_SQUASH_LINE = /^(?:[*-] | {4})\w+(?:\([^()\n]*\))?!?: /m;
/** What tools and habits put before the type: `Merged PR 12:`, `Merge pull request #3:`, `[ABC-12]`, `:sparkles:`, ✨. */
const DECORATION =
  /^(?:merged? (?:pr|pull request) [#!]?\d+:\s+|\[[A-Z][A-Z0-9]*-\d+\]:?\s+|:[\w+-]+:\s*|(?:\p{Extended_Pictographic}|\p{Emoji_Modifier}|[\uFE0F\u200D])+\s*)/iu;
const NONE: readonly string[] = [];
const MAX_SUBJECT = 400;

/**
 * The lines that one commit deserves, at least one: its header, then each conventional line of a squash body. A
 * header without a known type is kept as it is, unless such lines say the same in detail.
 */
function commitChanges({ hash, header, body, author }: Commit): Change[] {
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

function parseHeader(header: string, hash: string): Change | undefined {
  if (!header.includes(':')) return undefined;
  const { type, scope, mark, subject } = parser.parse(withoutDecoration(header));
  const section = type ? SECTION_OF_TYPE.get(type.toLowerCase()) : undefined;
  if (!type || !section || !subject) return undefined;
  const change = plainChange(type.toLowerCase() === 'revert' ? `Revert "${subject}"` : subject, hash);
  change.section = mark ? 'breaking' : section;
  change.scope = scope?.trim() || undefined;
  return change;
}

/** At most three: an emoji behind a ticket behind a pull request. */
function withoutDecoration(header: string): string {
  return header.replace(DECORATION, '').replace(DECORATION, '').replace(DECORATION, '');
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

// References and co-authors in a commit message, found in linear time: git's and GitHub's habits, not part of
// Conventional Commits.

const REFERENCE = /(?<![\w./&-])(?:[\w.-]+\/[\w.-]+)?#\d+\b/g;
const KEYWORD =
  /\b(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?|refs?|references|relate[sd]? to|see|part of|implements|issues?|reverts|pr):? {1,3}[\w./-]*#\d/i;
const FOOTER =
  /^(?:[A-Za-z]+(?:-[A-Za-z]+)+: |(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?|refs?|see)\b:? {1,3}\S*#\d)/i;
const IN_PARENTHESES = /^(?:[A-Za-z]+:? )?[\w./-]*#\d+(?:,? (?:and )?[\w./-]*#\d+)*$/;

/** `#12` and `owner/repo#12` wherever they stand in the text. */
function findReferences(text: string): string[] {
  return text.includes('#') ? (text.match(REFERENCE) ?? []) : [];
}

/** Splits `add login (#12)` into the words and what the parentheses at the end refer to. */
function splitReferences(text: string): { words: string; references: readonly string[] } {
  if (!text.includes('#')) return { words: text.trimEnd(), references: NONE };
  let words = text.trimEnd();
  const references: string[] = [];
  while (words.endsWith(')')) {
    const open = words.lastIndexOf('(');
    if (open < 1 || !IN_PARENTHESES.test(words.slice(open + 1, -1))) break;
    references.unshift(...findReferences(words.slice(open)));
    words = words.slice(0, open).trimEnd();
  }
  return { words, references };
}

/** References on lines that say what they mean by them: `Closes #12, #13`, `Refs: acme/api#3`. */
function footerReferences(body: string): readonly string[] {
  if (!body.includes('#')) return NONE;
  return body.split('\n').flatMap((line) => (KEYWORD.test(line) ? findReferences(line) : []));
}

/** Names in `Co-authored-by:` lines without their addresses, each once and without the author. */
function findCoAuthors(body: string, author: string): readonly string[] {
  const lines = body.match(/^co-authored-by:.*$/gim);
  if (!lines) return NONE;
  const names = lines.map((line) => line.slice('co-authored-by:'.length).split('<', 1)[0]!.trim());
  return unique(names.filter((name) => name !== '' && name !== author));
}

/** True for a line that starts another footer and so ends the text of a BREAKING CHANGE. */
function isFooter(line: string): boolean {
  return FOOTER.test(line);
}

function unique(values: readonly string[]): string[] {
  return values.length < 2 ? [...values] : [...new Set(values)];
}

/** What a range of commits amounts to. `bump` is the smallest honest step from the last stable release. */
export interface Changes {
  /** Newest first, as git lists them. */
  changes: readonly Change[];
  bump: 'major' | 'minor' | 'patch';
  /** Commits read, the silent ones included. */
  commits: number;
}

const BREAKING_FOOTER = /^BREAKING[ -]CHANGES?:/m;
const RELEASE_COMMIT = /^chore\(release\): (?:release )?\S*\d+\.\d+\.\d+\S*(?: \(#\d+\))?$/;
/** Git's own sentence. That of a reverted merge goes on (", reversing changes made to"), and stays an entry. */
const REVERTS = /^This reverts commit ([0-9a-f]{40,64})\.$/m;

/**
 * Judges commits in the order of `git log --topo-order` (children first). A revert inside the range disappears with its
 * target, the revert of a revert brings the target back; a revert of something older is an entry.
 */
export async function collectChanges(commits: AsyncIterable<Commit> | Iterable<Commit>): Promise<Changes> {
  const all: { hash: string; reverts: string | undefined; changes: Change[] }[] = [];
  for await (const commit of commits) {
    const reverts = REVERTS.exec(commit.body)?.[1];
    all.push({ hash: commit.hash, reverts, changes: isSilent(commit) ? [] : commitChanges(commit) });
  }
  // Only of commits in the range: an open revert makes the filter compare each further commit with all since.
  const hashes = new Set(all.some(({ reverts }) => reverts) ? all.map(({ hash }) => hash) : []);
  const candidates = all.map(({ reverts, ...commit }) =>
    reverts && hashes.has(reverts) ? { ...commit, revert: { hash: reverts } } : { ...commit, revert: null },
  );
  const changes = [...filterRevertedCommitsSync(candidates)].flatMap((commit) => commit.changes);
  return { changes, bump: bumpOf(changes), commits: all.length };
}

/** Merge commits that only join what is listed anyway, and the commits of earlier releases. */
function isSilent({ hash, header, body, parents }: Commit): boolean {
  if (RELEASE_COMMIT.test(header)) return true;
  return parents.length > 1 && !parseHeader(header, hash) && !BREAKING_FOOTER.test(body);
}

function bumpOf(changes: readonly Change[]): Changes['bump'] {
  if (changes.some(({ section }) => section === 'breaking')) return 'major';
  return changes.some(({ section }) => section === 'features') ? 'minor' : 'patch';
}
