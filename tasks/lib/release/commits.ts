// Commits as git tells them: which `git log` to ask, and its answer read as a stream. Apart from the rules
// for notes, because here only bytes matter: a hundred thousand commits pass through without being held.
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
const LF = 0x0a;
const CR = 0x0d;

/**
 * Arguments for the one `git log` of a range such as `v1.1.0..HEAD` or `HEAD`. Fields and commits end in NUL,
 * the only byte that no message can contain. Children come before their parents, which is what lets
 * reverts be resolved in one pass. The options are spelled out against the user's own git configuration.
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
  for await (const chunk of chunks) {
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
    waiting.push(bytes);
    if (!bytes.includes(0)) continue;
    const joined = waiting.length === 1 ? bytes : Buffer.concat(waiting);
    let start = 0;
    for (let ends = fieldEnds(joined, start); ends; ends = fieldEnds(joined, start)) {
      yield readCommit(joined, start, ends);
      start = ends[ends.length - 1]! + 1;
    }
    waiting = start < joined.length ? [joined.subarray(start)] : [];
  }
  if (waiting.some((bytes) => bytes.length > 0)) {
    throw new TaskError('Cannot read the commits: the output of `git log` ends in the middle of a commit', {
      code: 'truncated-log',
      hint: 'run it again; if it stays so, check the repository with `git fsck`',
    });
  }
}

/** Where each field of the record at `start` ends, or undefined when the record is not complete yet. */
function fieldEnds(bytes: Buffer, start: number): number[] | undefined {
  const ends: number[] = [];
  let from = start;
  for (let field = 0; field < FIELDS.length; field += 1) {
    const end = bytes.indexOf(0, from);
    if (end === -1) return undefined;
    ends.push(end);
    from = end + 1;
  }
  return ends;
}

function readCommit(bytes: Buffer, start: number, ends: readonly number[]): Commit {
  const [hash, parents, author, end] = ends as [number, number, number, number];
  let from = author + 1;
  while (from < end && (bytes[from] === LF || bytes[from] === CR)) from += 1;
  const newline = bytes.indexOf(LF, from);
  const headerEnd = newline === -1 || newline > end ? end : newline;
  const trimmed = headerEnd > from && bytes[headerEnd - 1] === CR ? headerEnd - 1 : headerEnd;
  // Header and body are decoded apart: what is kept of a header must not hold on to a long body's memory.
  return {
    hash: bytes.toString('latin1', start, hash),
    parents: hash + 1 === parents ? [] : bytes.toString('latin1', hash + 1, parents).split(' '),
    author: bytes.toString('utf8', parents + 1, author),
    header: bytes.toString('utf8', from, trimmed),
    body: headerEnd + 1 >= end ? '' : bytes.toString('utf8', headerEnd + 1, end),
  };
}

// What a commit message says to a reader of release notes: one entry, or several for a squashed branch.
// Apart from changes.ts, which judges many commits together, because one message needs no history.

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

/** True if the first line has a type that Conventional Commits or its usual extensions know. */
function isConventional(header: string): boolean {
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

// References and co-authors in a commit message, found in linear time. Its own file because these rules are
// git's and GitHub's habits, not part of Conventional Commits.

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

// Finds what reverts revert while commits stream by, newest first: a revert is always met before its target,
// so only the open ones are remembered. Its own file because git and GitHub write reverts in several ways.

/** A revert in force: what it shows in the notes, unless all its targets turn up in the range. */
interface Revert<T> {
  entries: T[];
  /** Targets that have not been met yet. */
  open: number;
  /** For the revert of a merge: the parent that stays, as written in the message. */
  mainline?: string | undefined;
}

/** What a revert does to its target: takes it back, or brings it back by taking a revert of it back. */
interface Operation {
  /** Of several the latest decides: the lowest, since commits come newest first. */
  order: number;
  restores: boolean;
}

/** What waits for a commit that a revert names. */
interface Waiting<T> {
  hash: string;
  operation: Operation;
  revert: Revert<T>;
}

/** A reverted merge: commits still to come that it brought in, and those that were there before it. */
interface RevertedMerge {
  brought: Set<string>;
  before: Set<string>;
}

const PREFIX = String.raw`^(?:\w+(?:\([^()]*\))?!?:\s+)?`;
const IS_REVERT = new RegExp(`${PREFIX}(?:revert|reapply)(?:s|ed|ing)?(?![\\w-])`, 'i');
const QUOTED_TITLE = new RegExp(`${PREFIX}(?:revert|reapply):?\\s+"(.+)"`, 'i');
const TYPED_TITLE = /^revert(?:\([^()]*\))?!?:\s+(.+)$/i;
const REVERTS_COMMIT = /\bThis (?:reverts|reapplies) commits? ([^.\n]*)/gi;
const MAINLINE = /\breversing\s{1,3}changes\s{1,3}made\s{1,3}to ([0-9a-f]{7,64})\b/i;
const REFS_FOOTER = /^refs?:(.*)$/gim;
const HASH = /\b[0-9a-f]{7,64}\b/gi;
const KEY_LENGTH = 7;

class RevertTracker<T> {
  readonly #byHash = new Map<string, Waiting<T>[]>();
  readonly #byTitle = new Map<string, Revert<T>[]>();
  readonly #all: Revert<T>[] = [];
  #merges: RevertedMerge[] = [];
  #visited = 0;

  /** Takes the next commit: is it reverted by a newer one, and is it itself a revert in force? */
  visit(commit: Commit): { isCancelled: boolean; revert?: Revert<T> } {
    this.#visited += 1;
    const met = this.#matchHash(commit);
    const [operation] = met.map((one) => one.operation).sort((a, b) => a.order - b.order);
    const isReverted = operation?.restores === false;
    if (isReverted) for (const { revert } of met) this.#followMerge(commit, revert.mainline);
    const isBrought = this.#matchMerges(commit);
    const isCancelled = isReverted || isBrought || this.#matchTitle(commit);
    if (!IS_REVERT.test(commit.header) || (isCancelled && !isReverted)) return { isCancelled };
    const revert = this.#register(commit, operation);
    return isCancelled ? { isCancelled } : { isCancelled, revert };
  }

  /** Entries of reverts whose targets were all met: between the two releases nothing happened there. */
  settled(): Set<T> {
    return new Set(this.#all.flatMap(({ open, entries }) => (open === 0 ? entries : [])));
  }

  #register({ header, body }: Commit, done: Operation | undefined): Revert<T> {
    const hashes = targetHashes(header, body);
    const open = Math.max(1, hashes.length);
    const revert: Revert<T> = { entries: [], open, mainline: MAINLINE.exec(body)?.[1] };
    // What was done to this revert since has been done, the other way round, to its targets.
    const operation = done
      ? { ...done, restores: !done.restores }
      : { order: this.#visited, restores: false };
    for (const hash of hashes) append(this.#byHash, hash.slice(0, KEY_LENGTH), { hash, operation, revert });
    if (done?.restores === false) return revert;
    this.#all.push(revert);
    // A title is trusted only without a hash: two commits may share a title, and none may be lost.
    const title =
      hashes.length > 0 ? undefined : (QUOTED_TITLE.exec(header) ?? TYPED_TITLE.exec(header))?.[1];
    if (title) append(this.#byTitle, title, revert);
    return revert;
  }

  /** What waited for this commit; it waits no longer. */
  #matchHash(commit: Commit): Waiting<T>[] {
    const key = commit.hash.slice(0, KEY_LENGTH);
    const waiting = this.#byHash.size > 0 ? this.#byHash.get(key) : undefined;
    if (!waiting) return [];
    const met = waiting.filter(({ hash }) => commit.hash.startsWith(hash));
    if (met.length === waiting.length) this.#byHash.delete(key);
    else
      this.#byHash.set(
        key,
        waiting.filter((one) => !met.includes(one)),
      );
    for (const { revert } of met) revert.open -= 1;
    return met;
  }

  #matchTitle({ header }: Commit): boolean {
    if (this.#byTitle.size === 0) return false;
    const title = this.#byTitle.has(header) ? header : splitReferences(header).words;
    const waiting = this.#byTitle.get(title);
    if (!waiting) return false;
    waiting.pop()!.open -= 1;
    if (waiting.length === 0) this.#byTitle.delete(title);
    return true;
  }

  #followMerge({ parents }: Commit, mainline: string | undefined): void {
    const before = mainline ? parents.filter((parent) => parent.startsWith(mainline)) : [];
    const brought = before.length === 1 ? parents.filter((parent) => parent !== before[0]) : [];
    if (brought.length > 0) this.#merges.push({ brought: new Set(brought), before: new Set(before) });
  }

  /** A commit is gone with a reverted merge if it is reachable from what was merged, but not from before it. */
  #matchMerges({ hash, parents }: Commit): boolean {
    if (this.#merges.length === 0) return false;
    let isGone = false;
    for (const { brought, before } of this.#merges) {
      const wasBefore = before.delete(hash);
      const wasBrought = brought.delete(hash);
      if (wasBefore) for (const parent of parents) before.add(parent);
      if (wasBrought && !wasBefore) {
        isGone = true;
        for (const parent of parents) brought.add(parent);
      }
    }
    this.#merges = this.#merges.filter(({ brought }) => brought.size > 0);
    return isGone;
  }
}

function targetHashes(header: string, body: string): string[] {
  const sentences = [...body.matchAll(REVERTS_COMMIT)].map((match) => match[1]!.split('reversing', 1)[0]!);
  const footers = TYPED_TITLE.test(header) ? [...body.matchAll(REFS_FOOTER)].map((match) => match[1]!) : [];
  const hashes = [...sentences, ...footers].flatMap((text) => text.match(HASH) ?? []);
  return [...new Set(hashes.map((hash) => hash.toLowerCase()))];
}

function append<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}

// Which commits of a range a reader should hear of, and how serious they are together: merges and our own
// release commits are dropped, reverts cancel what they revert. One pass, so that any history fits in memory.

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

/**
 * Judges commits in the order of `git log --topo-order` (children first). A revert inside the range disappears
 * with its target, the revert of a revert brings the target back; a revert of something older is an entry.
 */
export async function collectChanges(commits: AsyncIterable<Commit> | Iterable<Commit>): Promise<Changes> {
  // Loaded when there are commits to read: a `--help` does not pay for the parser.
  const reverts = new RevertTracker<Change>();
  const kept: Change[] = [];
  let count = 0;
  for await (const commit of commits) {
    count += 1;
    const fate = reverts.visit(commit);
    if (fate.isCancelled || isSilent(commit, isConventional)) continue;
    const changes = commitChanges(commit);
    kept.push(...changes);
    fate.revert?.entries.push(...changes);
  }
  const hidden = reverts.settled();
  const changes = hidden.size === 0 ? kept : kept.filter((change) => !hidden.has(change));
  return { changes, bump: bumpOf(changes), commits: count };
}

/** Merge commits that only join what is listed anyway, and the commits of earlier releases. */
function isSilent({ header, body, parents }: Commit, isConventional: (header: string) => boolean): boolean {
  if (parents.length > 1) return !isConventional(header) && !BREAKING_FOOTER.test(body);
  return RELEASE_COMMIT.test(header);
}

function bumpOf(changes: readonly Change[]): Changes['bump'] {
  if (changes.some(({ section }) => section === 'breaking')) return 'major';
  return changes.some(({ section }) => section === 'features') ? 'minor' : 'patch';
}
