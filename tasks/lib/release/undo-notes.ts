// Taking exactly that text out of the notes which a release put in, even when others wrote above and below it
// since. Pure.

/**
 * `present` without what `after` has more than `before`; undefined if that text is not in it exactly once.
 */
export function withoutInsertion(present: string, before: string, after: string): string | undefined {
  if (after === before) return present;
  let start = 0;
  while (start < before.length && before[start] === after[start]) start += 1;
  let end = 0;
  while (end < before.length - start && before.at(-1 - end) === after.at(-1 - end)) end += 1;
  if (start + end !== before.length) return undefined;
  const inserted = wholeLines(before, after.slice(start, after.length - end), start);
  const place = present.indexOf(inserted);
  if (place === -1 || present.indexOf(inserted, place + 1) !== -1) {
    return present.includes(inserted) ? undefined : alreadyGone(present, inserted);
  }
  return present.slice(0, place) + present.slice(place + inserted.length);
}

/**
 * What two texts have in common may reach into the first line of the insertion (`## [v1.`): seen from the start
 * of that line, it is the same insertion.
 */
function wholeLines(before: string, inserted: string, start: number): string {
  const line = before.lastIndexOf('\n', start - 1) + 1;
  const common = before.slice(line, start);
  return inserted.endsWith(common) ? common + inserted.slice(0, inserted.length - common.length) : inserted;
}

/** A person took the entry out already: no line of it that names the version is left. */
function alreadyGone(present: string, inserted: string): string | undefined {
  const heading = /^#+ .*$/m.exec(inserted)?.[0];
  return heading && !present.includes(heading) ? present : undefined;
}
