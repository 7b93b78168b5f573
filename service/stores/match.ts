// How a text is compared with a query: words, without case, in any script. One definition for the
// full-text index and for the stores that are searched row by row.
import type { DatabaseSync } from 'node:sqlite';

/** At most this many words of a query count. */
const MAX_WORDS = 32;

/** The distinct words of a text, in lower case: `Hello, WORLD` → `hello`, `world`. */
export function words(text: string): string[] {
  return [...new Set(text.toLowerCase().match(/[\p{L}\p{N}\p{M}]+/gu) ?? [])].slice(0, MAX_WORDS);
}

/** Without case and accents. */
function fold(text: string): string {
  return text.toLowerCase().normalize('NFD').replace(/\p{M}/gu, '').normalize('NFC');
}

/** An FTS5 query that finds rows with any of the words, words as prefixes; undefined without words. */
export function fullTextQuery(query: string): string | undefined {
  const terms = words(query).map((word) => `"${word}"*`);
  return terms.length === 0 ? undefined : terms.join(' OR ');
}

/** Adds the SQL function `hits(text, query)`: how many of the query's words the text contains. */
export function addMatchFunction(sql: DatabaseSync): void {
  let last = { query: '', terms: [] as string[] };
  sql.function('hits', { deterministic: true }, (text, query) => {
    if (query !== last.query) last = { query: String(query), terms: words(String(query)).map(fold) };
    const folded = fold(String(text));
    return last.terms.filter((term) => folded.includes(term)).length;
  });
}
