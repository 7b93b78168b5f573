// The migration in the release notes of this machine: under the release that it brought, so that later releases
// still come first. Pure.
import { findEntry } from '../notes/changelog.ts';
import { insertAt } from '../notes/insertion.ts';
import { size } from './plan-problems.ts';
import type { MigrationRecord } from './record.ts';
import type { SettingOutcome } from './settings.ts';

export function migrationEntry(record: MigrationRecord): string {
  const { legacy, plan, steps, startedAt } = record;
  const evidence = (name: keyof typeof steps) => steps[name]?.evidence ?? {};
  const outcomes = (evidence('settings').outcomes ?? []) as SettingOutcome[];
  const counted = (outcome: SettingOutcome['outcome']) => outcomes.filter((one) => one.outcome === outcome);
  const names = (list: readonly SettingOutcome[]) => list.map(({ key }) => `\`${key}\``).join(', ') || 'none';
  const moved =
    plan.models.by === 'none'
      ? []
      : [
          `- Models: volume \`${plan.models.to}\` (${plan.models.by === 'reuse' ? 'the old one, used as it is' : 'a copy, compared file by file'})`,
        ];
  return [
    `### Migrated from ${legacy.service} (${startedAt.slice(0, 10)})`,
    '',
    `- \`${legacy.service}\` on port ${legacy.ports.join(', ')} became dev on ${plan.ports.dev} and prod on ${plan.ports.prod}`,
    `- Data: ${size(plan.data.bytes)} at \`${plan.data.to}\`, a compared copy; the old directory waits untouched: \`${plan.data.aside ?? plan.data.from}\``,
    ...moved,
    `- Settings: carried ${names(counted('carried'))}; renamed ${names(counted('renamed'))}; dropped ${names(counted('dropped'))}`,
    `- Old compose file: ${plan.compose.map(({ deprecated }) => `\`${deprecated}\``).join(', ') || 'there was none'}`,
    `- Backup: \`${evidence('backup').archive ?? 'none'}\``,
    '- Back: `npx tsx tasks/migrate.ts --rollback`; the old pieces go with `npx tsx tasks/migrate.ts --finish`',
  ].join('\n');
}

/** The notes with the entry at the end of what is said of `tag`; a file that has it is left as it is. */
export function withEntry(text: string, tag: string | undefined, entry: string): string {
  const [heading = ''] = entry.split('\n', 1);
  if (text.split(/\r?\n/).includes(heading)) return text;
  const release = tag === undefined ? undefined : findEntry(text, tag);
  if (!release) return insertAt(text, text.length, entry);
  // The end of an entry is the end of its last line; what is inserted begins a line of its own.
  const end = text.indexOf('\n', release.end);
  return insertAt(text, end < 0 ? text.length : end + 1, entry);
}
