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
export function escapeBold(text: string): string {
  return escapeInline(text.replace(CONTROL, ' ').trim()).replaceAll('*', '\\*');
}

/** Code that a reader can copy, whatever backticks it contains. */
export function codeSpan(text: string): string {
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
