// [backup] of configs/release.toml: where archives go, how long they stay, who is told. Its own file because it
// is the largest table, and the backup room's alone.
import { z } from '#zod';

const command = z.array(z.string().min(1)).min(1);
const count = z.int().min(0);

const keep = {
  last: count.default(3).describe('The newest n archives'),
  hourly: count.default(0).describe('The newest archive of each of the last n hours that have one'),
  daily: count.default(7).describe('The same for days'),
  weekly: count.default(4).describe('The same for weeks (ISO, from Monday)'),
  monthly: count.default(6).describe('The same for months'),
  yearly: count.default(0).describe('The same for years'),
};

const offsite = z
  .strictObject({
    repository: z.string().min(1).describe('restic repository, e.g. "sftp:nas:/backups" or "s3:…"'),
    password_file: z.string().min(1).describe('File that holds its password; encryption at rest is by it'),
    environment: z
      .array(z.string())
      .default([])
      .describe(
        'Names of variables that restic needs, from .env or the environment, e.g. AWS_SECRET_ACCESS_KEY',
      ),
    check: z
      .string()
      .regex(
        /^(metadata|none|\d+%|\d+\/\d+)$/,
        '"metadata", "none", a part of the data such as "5%", or "1/30"',
      )
      .default('metadata')
      .describe('What `restic check` looks at after each backup'),
    keep: z
      .strictObject({ ...keep, daily: count.default(30), monthly: count.default(12) })
      .prefault({})
      .describe('Retention in the repository, by `restic forget --prune`'),
  })
  .describe('A second place for proven archives');

export const backup = z
  .strictObject({
    directory: z.string().min(1).describe('Where archives are written; PREFIX_BACKUP_DIR in .env beats it'),
    image: z
      .string()
      .min(1)
      .optional()
      .describe('Image that has the backup program; default: the release that prod runs'),
    program: command.default(['node', '/app/backup.mjs']).describe('The backup program inside the image'),
    rehearse: z
      .boolean()
      .default(false)
      .describe('Start the released image on each new archive before it counts, as --rehearse does'),
    lock_timeout: z
      .int()
      .positive()
      .default(30)
      .describe('Seconds for which another program may keep a database locked'),
    max_block: z
      .int()
      .positive()
      .default(5)
      .describe('Seconds for which writers of a database that is not in WAL mode may have to wait'),
    max_age: z.int().positive().default(26).describe('Hours after which a missing backup is overdue'),
    keep: z.strictObject(keep).prefault({}).describe('Retention: how many archives to keep by each rule'),
    ping: z
      .strictObject({
        success: z
          .url()
          .optional()
          .describe('Asked after a good backup; PREFIX_BACKUP_PING_URL in .env beats it'),
        failure: z.url().optional().describe('Asked after a failed one; default: the other one with /fail'),
      })
      .prefault({})
      .describe("A dead-man's switch, e.g. of healthchecks.io"),
    hooks: z
      .strictObject({
        before: z.array(command).default([]).describe('Commands before a backup; a failure stops it'),
        after: z
          .array(command)
          .default([])
          .describe('Commands after it, good or bad: BACKUP_OUTCOME and BACKUP_ARCHIVE say which'),
      })
      .prefault({}),
    offsite: offsite.optional(),
  })
  .describe('Backups of the data directory');
