// The samples on disk: one line each under .synapse/, appended by cron each minute, and now and then rewritten
// with whole past hours as one line, so that the file stays below a few hundred kilobytes for ever.
import { appendFile } from 'node:fs/promises';
import { readIfPresent, replaceFile } from '../files.ts';
import { log } from '../log.ts';
import { session } from '../session.ts';
import { ensureStateDirectory, statePath } from '../state.ts';
import { compact, isCompactable } from './compaction.ts';
import type { HourRow, Sample, SampleLog } from './uptime.ts';

/** Another engine's samples are another machine's. */
function samplesPath(root: string): string {
  const { context } = session;
  return statePath(root, context && context !== 'default' ? `samples@${context}.jsonl` : 'samples.jsonl');
}

/** Text → log; a line torn by a power cut, or from a hand, is skipped. */
export function parseSamples(text: string): SampleLog {
  const result: SampleLog = { hours: [], samples: [] };
  for (const line of text.split('\n')) {
    const value = line ? parseLine(line) : undefined;
    if (value && 'hour' in value) result.hours.push(value);
    else if (value) result.samples.push(value);
  }
  return result;
}

function parseLine(line: string): HourRow | Sample | undefined {
  try {
    const value = JSON.parse(line) as Partial<HourRow & Sample> | null;
    const isHour = typeof value?.hour === 'string' && !Number.isNaN(Date.parse(`${value.hour}:00:00Z`));
    const isSample =
      !Number.isNaN(Date.parse(value?.at ?? '')) && ['up', 'down', 'off'].includes(value?.prod ?? '');
    return isHour || isSample ? (value as HourRow | Sample) : undefined;
  } catch {
    return undefined;
  }
}

export async function readSamples(root: string): Promise<SampleLog> {
  return parseSamples((await readIfPresent(samplesPath(root))) ?? '');
}

/**
 * Adds a sample. Two writers at once are rare and need no lock: lines are appended whole, and a line that is lost
 * to a rewrite is a minute that the neighbouring samples speak for.
 */
export async function appendSample(root: string, sample: Sample): Promise<void> {
  const path = samplesPath(root);
  if (session.dryRun) return log.would(`append to ${path}: ${JSON.stringify(sample)}`);
  await ensureStateDirectory(root);
  // A power cut may have torn the last line: the new one must not become part of it.
  const before = (await readIfPresent(path)) ?? '';
  const torn = before !== '' && !before.endsWith('\n');
  await appendFile(path, `${torn ? '\n' : ''}${JSON.stringify(sample)}\n`, { mode: 0o600 });
  const now = Date.parse(sample.at);
  const all = parseSamples(`${before}\n${JSON.stringify(sample)}`);
  if (!isCompactable(all, now)) return;
  const { hours, samples } = compact(all, now);
  const lines = [...hours, ...samples].map((line) => `${JSON.stringify(line)}\n`);
  await replaceFile(path, lines.join(''), { mode: 0o600 });
}
