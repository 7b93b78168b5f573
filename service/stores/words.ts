// What counts as a word, in a stored text as in a query. SQLite's tokenizer (unicode61 and porter) does the rest:
// case, accents, English stems. Here is what it cannot do: scripts without spaces, camelCase, emoji, stop words.
import { createHash } from 'node:crypto';

/** At most this many words of a query count. */
const MAX_WORDS = 32;

/** Letters of scripts that put no spaces between words. */
const UNSPACED =
  /(?:(?=[\p{L}\p{M}\p{N}])[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{scx=Hang}\p{scx=Thai}\p{scx=Laoo}\p{scx=Khmr}\p{scx=Mymr}])+/gu;
const UNSPACED_LETTER = new RegExp(`^${UNSPACED.source}$`, 'u');
const EMOJI = /\p{Extended_Pictographic}|\p{RI}\p{RI}/gu;
const INNER_CAPITAL = /(?<=[\p{Ll}\p{N}])(?=\p{Lu})|(?<=\p{Lu})(?=\p{Lu}\p{Ll})/u;

const STOP_WORDS = new Set(
  (
    'a about after again all also am an and any are as at be because been before being between both but by can cannot ' +
    'could did do does doing don done down during each either few for from further get gets got had has have having he ' +
    'her here hers him his how i if in into is it its itself just ll may me might more most much must my no nor not now ' +
    'of off on once only or other our ours out over own please re s same shall she should so some such t than that the ' +
    'their them then there these they this those through to too under until up us ve very was we were what when where ' +
    'which while who whom whose why will with would you your yours'
  ).split(' '),
);

/** The text as it is indexed: words with their camelCase parts, pairs of letters where there are no spaces. */
export function searchableText(text: string): string {
  const plain = text.normalize('NFKC');
  const spaced = /^[\0-\x7f]*$/.test(plain)
    ? plain
    : plain
        .replace(UNSPACED, (run) => ` ${letterPairs(run)} `)
        .replace(
          EMOJI,
          (emoji) => ` u${[...emoji].map((part) => part.codePointAt(0)!.toString(16)).join('u')} `,
        );
  return spaced.replace(/[\p{L}\p{N}]+/gu, (word) => {
    const parts = word.split(INNER_CAPITAL);
    return parts.length > 1 ? `${word} ${parts.join(' ')}` : word;
  });
}

/** `数据库` → `数据 据库 库`: pairs, and the last letter alone, so that each letter begins a word. */
function letterPairs(run: string): string {
  const letters = [...run];
  return letters.map((letter, index) => letter + (letters[index + 1] ?? '')).join(' ');
}

/** The words of a query, without stop words unless it has no others. */
export function wordsOf(query: string): string[] {
  const found =
    searchableText(query)
      .toLowerCase()
      .match(/[\p{L}\p{N}\p{M}]+/gu) ?? [];
  const words = [...new Set(found)];
  const others = words.filter((word) => !STOP_WORDS.has(word));
  return (others.length > 0 ? others : words).slice(0, MAX_WORDS);
}

/** An FTS5 expression for a word. */
export function exactly(word: string): string {
  // A single letter of a script without spaces is found at the beginning of any pair.
  return [...word].length === 1 && UNSPACED_LETTER.test(word) ? `"${word}"*` : `"${word}"`;
}

/** The same for similar words: `deployment` finds `deploy`, `linter` finds `linted`, `email` finds `mail`. */
export function loosely(word: string): string {
  if (!/^\p{L}{5,40}$/u.test(word)) return exactly(word);
  const beginning = word.slice(0, Math.max(4, word.length / 2));
  const ends = [...word.slice(4)].map((_, cut) => exactly(word.slice(cut + 1)));
  return [`"${beginning}"*`, ...ends].join(' OR ');
}

/** One word for a project, whatever its id is made of; rows without a project belong to every project. */
export function projectWord(project: unknown): string {
  if (!project) return 'everyproject';
  return `p${createHash('sha256').update(String(project)).digest('hex').slice(0, 16)}`;
}
