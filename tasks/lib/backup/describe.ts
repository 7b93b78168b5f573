// Backups as a person reads them: one line an archive, one line a decision.
import type { Listed, Verdict } from './archives.ts';
import { isProven } from './archives.ts';
import type { CreatedArchive } from './program-schema.ts';
import { megabytes } from './progress.ts';
import type { Decision } from './retention.ts';

/** `3 min`, `5 h`, `12 d` */
export function age(from: string, now: Date): string {
  const minutes = Math.max(0, Math.round((now.getTime() - new Date(from).getTime()) / 60_000));
  if (minutes < 120) return `${minutes} min`;
  return minutes < 48 * 60 ? `${Math.round(minutes / 60)} h` : `${Math.round(minutes / 1440)} d`;
}

function ratio({ bytes, record }: Listed): string {
  return record && bytes > 0 ? `${(record.dataBytes / bytes).toFixed(1)}×` : '';
}

function mood(one: Listed): string {
  if (!one.record) return 'not from here';
  if (!isProven(one)) return one.record.problems.length > 0 ? 'DAMAGED' : 'not proven';
  return one.record.proof?.rehearsed ? 'proven, rehearsed' : 'proven';
}

/** A table, newest first. */
export function describeArchives(archives: readonly Listed[], now: Date): string {
  if (archives.length === 0) return 'No backups yet. Make one: npm run backup';
  const rows = [...archives]
    .reverse()
    .map((one) => [
      one.archive,
      one.version,
      megabytes(one.bytes),
      ratio(one),
      age(one.time, now),
      mood(one),
    ]);
  const table = [['archive', 'version', 'size', 'ratio', 'age', ''], ...rows];
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
  return table
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** The same for --json. */
export function archiveData(one: Listed, now: Date): Record<string, unknown> {
  const { archive, time, version, bytes, record } = one;
  return {
    archive,
    time,
    version,
    bytes,
    dataBytes: record?.dataBytes ?? null,
    proven: isProven(one),
    rehearsed: record?.proof?.rehearsed ?? null,
    problems: record?.problems ?? [],
    dataFormat: record?.dataFormat ?? null,
    ageSeconds: Math.max(0, Math.round((now.getTime() - new Date(time).getTime()) / 1000)),
  };
}

export function describeDecisions(decisions: readonly Decision[]): string {
  if (decisions.length === 0) return 'No archives.';
  return decisions
    .map(({ archive, keep, reason }) => `${keep ? 'keep  ' : 'remove'}  ${archive}  ${reason}`)
    .join('\n');
}

export function describeCreated(created: CreatedArchive, directory: string): string {
  const { archive, bytes, dataBytes, files, databases, cut, seconds, proofSeconds } = created;
  return [
    `Backed up to ${directory}/${archive}`,
    `  ${files} files, ${databases} databases, ${megabytes(dataBytes)} → ${megabytes(bytes)}, in ${seconds.toFixed(1)} s; writers waited ${cut.heldMs} ms for the cut`,
    `  proven in ${proofSeconds.toFixed(1)} s: read back, hashes, integrity and row counts are right`,
  ].join('\n');
}

export function describeVerdict({ archive, ok, problems, seconds, manifest }: Verdict): string {
  if (ok)
    return `good     ${archive}  ${manifest?.files ?? 0} files, ${megabytes(manifest?.bytes ?? 0)}, ${seconds.toFixed(1)} s`;
  return [`DAMAGED  ${archive}`, ...problems.map((problem) => `  - ${problem}`)].join('\n');
}
