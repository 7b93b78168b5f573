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
  /** Everything after the first line, as written. */
  body: string;
}

const FIELDS = ['%H', '%P', '%an', '%B'];

/**
 * Arguments for the one `git log` of a range such as `v1.1.0..HEAD`. Fields and commits end in NUL, the only byte that no
 * message can contain; children come before their parents. The options overrule the user's own git configuration.
 */
export function commitLogArguments(range: string): string[] {
  const format = `--format=tformat:${FIELDS.join('%x00')}`;
  const plain = ['--no-show-signature', '--no-color', '--no-patch', '--encoding=UTF-8'];
  return ['log', '-z', '--topo-order', ...plain, format, '--end-of-options', range, '--'];
}

/** The commits in the output of `git log` with {@link commitLogArguments}, in git's order. @throws TaskError if it is cut */
export async function* parseCommitLog(chunks: AsyncIterable<Buffer>): AsyncGenerator<Commit> {
  const decoder = new TextDecoder();
  const fields: string[] = [];
  let rest = '';
  for await (const chunk of chunks) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split('\0');
    rest = parts.pop() ?? '';
    fields.push(...parts);
    while (fields.length >= FIELDS.length) yield readCommit(fields.splice(0, FIELDS.length));
  }
  if (fields.length === 0 && rest === '') return;
  throw new TaskError('Cannot read the commits: the output of `git log` ends in the middle of a commit', {
    code: 'truncated-log',
    hint: 'run it again; if it happens again, check the repository: git fsck',
  });
}

function readCommit([hash = '', parents = '', author = '', text = '']: readonly string[]): Commit {
  const [, header = '', body = ''] = /^[\r\n]*([^\n]*)\n?([\s\S]*)$/.exec(text) ?? [];
  return { hash, parents: parents ? parents.split(' ') : [], author, header: header.trimEnd(), body };
}

/** One line of the notes, and the commit (full hash) that it describes. */
export interface Change {
  hash: string;
  /** In lower case, e.g. `feat`; '' for a message that is not conventional. */
  type: string;
  isBreaking: boolean;
  scope?: string | undefined;
  subject: string;
  /** What the message refers to beside its subject: `#12`, `acme/api#3`. */
  references: readonly string[];
  /** Names without addresses. */
  coAuthors: readonly string[];
  /** The text of a BREAKING CHANGE footer, possibly of several lines. */
  note?: string | undefined;
}

const FEATURES = ['feat', 'feature'];
/** Known without being configured; any other word before a colon is prose. */
const TYPES = [
  ...[...FEATURES, 'fix', 'bugfix', 'hotfix', 'perf', 'security', 'build', 'chore', 'ci', 'deps', 'docs'],
  ...['refactor', 'revert', 'style', 'test', 'tests'],
];

const parser = new CommitParser({
  headerPattern: /^(\w+)(?:\(([^()]*)\))?(!)?:\s+(.*)$/,
  headerCorrespondence: ['type', 'scope', 'mark', 'subject'],
  noteKeywords: [/BREAKING[ -]CHANGES?/],
  notesPattern: (keywords: string) => new RegExp(`^[\\s|*]{0,8}(${keywords})\\**:\\**\\s*(.*)`),
  // `-field-` lines in a body could otherwise overwrite any property of the result.
  fieldPattern: undefined,
  revertPattern: undefined,
} as unknown as ParserOptions);
// The parser's own search for references takes cubic time and no option turns it off: a message could stop a release.
Object.assign(parser, { parseReferences: () => [] });

/** A line of a squash body: `* feat: a`, `- fix: b`, or indented as git's own "Squashed commit of the following:". */
const SQUASHED = /^(?:[*-] | {4})(\w+(?:\([^()]*\))?!?: .*)$/;
/** What tools and habits put before the type: `Merged PR 12:`, `Merge pull request #3:`, `[ABC-12]`, `:sparkles:`, ✨. */
const DECORATIONS =
  /^(?:(?:merged? (?:pr|pull request) [#!]?\d+:\s+|\[[A-Z][A-Z0-9]*-\d+\]:?\s+|:[\w+-]+:\s*|(?:\p{Extended_Pictographic}|\p{Emoji_Modifier}|[\uFE0F\u200D])+\s*)){1,3}/iu;
const MAX_SUBJECT = 400;

/**
 * The lines that one commit deserves, at least one: its header, then each conventional line of a squash body. A
 * header without a known type is kept as it is, unless such lines say the same in detail.
 */
function commitChanges({ hash, header, body, author }: Commit, types: ReadonlySet<string>): Change[] {
  const own = parseHeader(header, hash, types);
  const lines = body.split('\n').flatMap((line) => SQUASHED.exec(line.trimEnd())?.[1] ?? []);
  const squashed = lines.flatMap((line) => parseHeader(line, hash, types) ?? []);
  const first = own ?? (squashed.length === 0 ? plainChange(header, hash) : undefined);
  const changes = withoutRepeats([...(first ? [first] : []), ...squashed]);
  const references = [...findReferences(header), ...footerReferences(body)];
  for (const change of changes) {
    const shown = new Set(findReferences(change.subject));
    change.references = [...new Set(references)].filter((reference) => !shown.has(reference));
    change.coAuthors = findCoAuthors(body, author);
  }
  if (body.includes('BREAKING')) addBreakingNote(changes, body);
  return changes;
}

function parseHeader(header: string, hash: string, types: ReadonlySet<string>): Change | undefined {
  if (!header.includes(':')) return undefined;
  const { type, scope, mark, subject } = parser.parse(header.replace(DECORATIONS, ''));
  const known = type?.toLowerCase() ?? '';
  if (!types.has(known) || !subject) return undefined;
  const change = plainChange(known === 'revert' ? `Revert "${subject}"` : subject, hash);
  return { ...change, type: known, isBreaking: Boolean(mark), scope: scope?.trim() || undefined };
}

function plainChange(text: string, hash: string): Change {
  // A first line of a megabyte is an accident; the hash leads to the rest of it.
  const subject = text.length > MAX_SUBJECT ? `${text.slice(0, MAX_SUBJECT)}…` : text;
  return { hash, type: '', isBreaking: false, subject, references: [], coAuthors: [] };
}

/** A pull request's title usually repeats its only commit; the more serious of two equal lines is kept. */
function withoutRepeats(changes: readonly Change[]): Change[] {
  const seen = new Map<string, Change>();
  for (const change of changes) {
    const key = `${change.scope ?? ''}:${change.subject.replace(/ \(#\d{1,9}\)$/, '')}`.toLowerCase();
    const known = seen.get(key);
    if (!known) seen.set(key, change);
    else known.isBreaking ||= change.isBreaking;
  }
  return [...seen.values()];
}

function addBreakingNote(changes: readonly Change[], body: string): void {
  const { notes } = parser.parse(`header\n\n${body}`);
  const text = notes.map((note) => untilFooter(note.text)).join('\n\n');
  const change = changes.find(({ isBreaking }) => isBreaking) ?? changes[0];
  if (!change || text === '') return;
  change.isBreaking = true;
  change.note = text;
}

// References and co-authors in a commit message, found in linear time: git's and GitHub's habits, not part of
// Conventional Commits.

const REFERENCE = /(?<![\w./&-])(?:[\w.-]+\/[\w.-]+)?#\d+\b/g;
const KEYWORD =
  /\b(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?|refs?|references|relate[sd]? to|see|part of|implements|issues?|reverts|pr):? {1,3}[\w./-]*#\d/i;
const FOOTER =
  /^(?:[A-Za-z]+(?:-[A-Za-z]+)+: |(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?|refs?|see)\b:? {1,3}\S*#\d)/i;

/** The text of a BREAKING CHANGE ends where another footer or a squashed commit begins. */
function untilFooter(text: string): string {
  const lines = text.split('\n');
  const end = lines.findIndex((line) => FOOTER.test(line) || SQUASHED.test(line));
  return (end === -1 ? lines : lines.slice(0, end)).join('\n').trim();
}

/** `#12` and `owner/repo#12` wherever they stand in the text. */
function findReferences(text: string): string[] {
  return text.slice(0, MAX_SUBJECT * 2).match(REFERENCE) ?? [];
}

/** References on lines that say what they mean by them: `Closes #12, #13`, `Refs: acme/api#3`. */
function footerReferences(body: string): string[] {
  if (!body.includes('#')) return [];
  return body.split('\n').flatMap((line) => (KEYWORD.test(line) ? findReferences(line) : []));
}

/** Names in `Co-authored-by:` lines without their addresses, each once and without the author. */
function findCoAuthors(body: string, author: string): string[] {
  const lines = body.match(/^co-authored-by:.*$/gim) ?? [];
  const names = lines.map((line) => line.slice('co-authored-by:'.length).split('<', 1)[0]!.trim());
  return [...new Set(names)].filter((name) => name !== '' && name !== author);
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
 * target, the revert of a revert brings the target back; a revert of something older is an entry. `types`: commit types
 * beside the usual ones.
 */
export async function collectChanges(
  commits: AsyncIterable<Commit> | Iterable<Commit>,
  types: readonly string[] = [],
): Promise<Changes> {
  const known = new Set([...TYPES, ...types]);
  const all: { hash: string; reverts: string | undefined; changes: Change[] }[] = [];
  for await (const commit of commits) {
    const reverts = REVERTS.exec(commit.body)?.[1];
    const changes = isSilent(commit, known) ? [] : commitChanges(commit, known);
    all.push({ hash: commit.hash, reverts, changes });
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
function isSilent({ hash, header, body, parents }: Commit, types: ReadonlySet<string>): boolean {
  if (RELEASE_COMMIT.test(header)) return true;
  return parents.length > 1 && !parseHeader(header, hash, types) && !BREAKING_FOOTER.test(body);
}

function bumpOf(changes: readonly Change[]): Changes['bump'] {
  if (changes.some(({ isBreaking }) => isBreaking)) return 'major';
  return changes.some(({ type }) => FEATURES.includes(type)) ? 'minor' : 'patch';
}
