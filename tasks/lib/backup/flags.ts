// Which flag belongs to which command of the backup task: a flag that would be ignored is a mistake.
import { usageError } from '../errors.ts';
import type { Project } from '../project.ts';
import { isEmptyPolicy } from './retention.ts';

const OWN_FLAGS: Record<string, readonly string[]> = {
  create: ['pause', 'rehearse'],
  list: [],
  verify: ['all'],
  restore: ['to'],
  prune: [],
  schedule: ['every', 'kind', 'install', 'uninstall'],
};
const TAKES_ARCHIVE = ['verify', 'restore'];

/** @throws TaskError (exit 2) for a flag or an argument that the command does not know */
export function verifyBackupFlags(
  command: string,
  flags: Record<string, boolean | string | undefined>,
  archive: string | undefined,
): void {
  const own = OWN_FLAGS[command] ?? [];
  for (const [owner, names] of Object.entries(OWN_FLAGS)) {
    const wrong = names.find((name) => flags[name] && !own.includes(name));
    if (wrong) throw usageError(`backup: --${wrong} is for ${owner}, not for ${command}`);
  }
  if (archive !== undefined && !TAKES_ARCHIVE.includes(command))
    throw usageError(`backup: ${command} takes no archive, got "${archive}"`);
  if (archive !== undefined && flags.all) throw usageError('backup: name an archive, or --all, not both');
  if (flags.wait !== undefined && !/^\d+$/.test(String(flags.wait)))
    throw usageError(`backup: --wait is "${flags.wait}", expected a number of seconds`);
}

/** @throws TaskError (exit 2) for a policy that would keep nothing */
export function verifyPolicy(project: Project): void {
  if (!isEmptyPolicy(project.backup.keep)) return;
  throw usageError('[backup.keep] keeps nothing: every rule is 0', {
    code: 'empty-policy',
    hint: 'set at least one of last, hourly, daily, weekly, monthly, yearly; or do not prune',
  });
}
