// Commits as git tells them: which `git log` to ask, and its answer read as a stream. Apart from the rules
// for notes, because here only bytes matter: a hundred thousand commits pass through without being held.
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
