// README's outputs are what the tasks write: the same session is played again, on the real engine. What would be lost: a
// README that shows what no longer happens. `npm run pictures` writes them anew.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { blocksOf, outputOf, README, recordAll } from '../../docs/record.ts';

/** Without what differs from run to run: hashes, dates, durations, sizes, shares, and the width of columns. */
function masked(text: string): string[] {
  return text
    .replace(/\b\d{4}-\d{2}-\d{2}\b|\b\d{8}T\d{6}Z\b/g, 'DATE')
    .replace(/\b[0-9a-f]{7,}\b/g, 'HASH')
    .replace(/\b\d+(?:\.\d+)? (?:ms|s|min|h)\b/g, 'TIME')
    .replace(/\b\d+(?:\.\d+)? (?:B|kB|MB|GB)\b/g, 'SIZE')
    .replace(/\b\d+(?:\.\d+)?(?: %|×)/g, 'SHARE')
    .replace(/just now|TIME ago/g, 'AGO')
    .split('\n')
    .map((line) => line.replace(/ +/g, ' ').trimEnd());
}

test('README shows what the tasks write', async (t) => {
  const shown = blocksOf(readFileSync(README, 'utf8'));
  const { recorded } = await recordAll(t);
  assert.deepEqual([...shown.keys()].sort(), recorded.map(({ id }) => id).sort());
  for (const one of recorded) {
    await t.test(one.command, () => {
      assert.deepEqual(masked(shown.get(one.id)!), masked(outputOf(one)));
    });
  }
});
