// References and co-authors in a commit message, found in linear time. Its own file because these rules are
// git's and GitHub's habits, not part of Conventional Commits.

const NONE: readonly string[] = [];
const REFERENCE = /(?<![\w./&-])(?:[\w.-]+\/[\w.-]+)?#\d+\b/g;
const KEYWORD =
  /\b(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?|refs?|references|relate[sd]? to|see|part of|implements|issues?|reverts|pr):? {1,3}[\w./-]*#\d/i;
const FOOTER =
  /^(?:[A-Za-z]+(?:-[A-Za-z]+)+: |(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?|refs?|see)\b:? {1,3}\S*#\d)/i;
const IN_PARENTHESES = /^(?:[A-Za-z]+:? )?[\w./-]*#\d+(?:,? (?:and )?[\w./-]*#\d+)*$/;

/** `#12` and `owner/repo#12` wherever they stand in the text. */
export function findReferences(text: string): string[] {
  return text.includes('#') ? (text.match(REFERENCE) ?? []) : [];
}

/** Splits `add login (#12)` into the words and what the parentheses at the end refer to. */
export function splitReferences(text: string): { words: string; references: readonly string[] } {
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
export function footerReferences(body: string): readonly string[] {
  if (!body.includes('#')) return NONE;
  return body.split('\n').flatMap((line) => (KEYWORD.test(line) ? findReferences(line) : []));
}

/** Names in `Co-authored-by:` lines without their addresses, each once and without the author. */
export function findCoAuthors(body: string, author: string): readonly string[] {
  const lines = body.match(/^co-authored-by:.*$/gim);
  if (!lines) return NONE;
  const names = lines.map((line) => line.slice('co-authored-by:'.length).split('<', 1)[0]!.trim());
  return unique(names.filter((name) => name !== '' && name !== author));
}

/** True for a line that starts another footer and so ends the text of a BREAKING CHANGE. */
export function isFooter(line: string): boolean {
  return FOOTER.test(line);
}

export function unique(values: readonly string[]): string[] {
  return values.length < 2 ? [...values] : [...new Set(values)];
}
