// Puts lines into a text without touching a byte of what is there: blank lines around them, the line ends of
// the file, a title if there was nothing. Apart from changelog.ts, which decides where.
import { TaskError } from '../errors.ts';

const TITLE = '# Release notes';
const BYTE_ORDER_MARK = /^(?:\uFEFF|\u00EF\u00BB\u00BF)/;

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
export function verifyReadable(bytes: Buffer): void {
  const [first, second] = bytes;
  if (!((first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff))) return;
  throw new TaskError('Cannot add to the release notes: the file is UTF-16', {
    code: 'notes-encoding',
    hint: 'save it as UTF-8 first',
  });
}
