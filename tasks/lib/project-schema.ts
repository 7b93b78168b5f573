// The shape of configs/release.toml: everything that the tasks know about the project they release. The source of
// configs/schema/release.json, which editors show while somebody types.
import { type output, z } from 'zod';

const text = z.string().min(1);
const texts = z.array(text);
const record = z.record(z.string(), z.string());
const path = z.string().startsWith('/');
const count = z.int().min(0);
const positive = z.int().positive();
const port = z.int().min(1).max(65535);
const variable = z.string().regex(/^[A-Z][A-Z0-9_]*$/, 'upper-case letters, digits and _');
const pattern = (regex: RegExp, expected: string) => z.string().regex(regex, expected);

/** A command as an array, never a shell string: `["npm", "run", "check"]`. */
const command = texts.min(1).describe('A command and its arguments; no shell is involved');
const commands = z.array(command).default([]);

const project = z
  .strictObject({
    name: pattern(
      /^[a-z0-9][a-z0-9_-]*$/,
      'lower-case letters, digits, - and _ (it names the compose project)',
    ).describe('Name of the project, of its compose project and of temporary containers'),
    variable_prefix: variable.describe(
      'Prefix of the variables in .env: PREFIX_ACTIVE_ENV, PREFIX_PROD_TAG, PREFIX_DATA_DIR, …',
    ),
    compose: texts
      .min(1)
      .default(['compose/docker-compose.yml'])
      .describe('Compose files, relative to the project, in the order that compose reads them'),
  })
  .describe('The project itself');

const image = z
  .strictObject({
    name: pattern(
      /^[a-z0-9]+([._/-]+[a-z0-9]+)*$/,
      'a name in lower case, without registry and tag',
    ).describe('Image name without registry and tag, e.g. "synapse"'),
    registry: pattern(
      /^[a-z0-9.-]+(:\d+)?(\/[a-z0-9._-]+)*\/?$/,
      'host[:port][/path] in lower case, without http:// or https://',
    )
      .optional()
      .describe('Registry and path to push to, e.g. "ghcr.io/me"; none: images stay local'),
    context: z.string().default('.').describe('Build context in the commit, relative to the project'),
    dockerfile: z.string().default('Dockerfile').describe('Dockerfile, relative to the project'),
    target: text.optional().describe('Build stage; default: the last one'),
    build_args: record.default({}).describe('Build arguments beside VERSION, REVISION, CREATED, SOURCE'),
    secret_files: record
      .default({})
      .describe('BuildKit secret id → environment variable with a file path; left out when unset'),
    base_image_arg: text.optional().describe('Build argument that names the base image, e.g. "NODE_IMAGE"'),
    base_image: text.optional().describe('Base image that setup makes sure of, e.g. "node:24-bookworm-slim"'),
    platforms: z
      .array(pattern(/^\w+\/\w+(\/\w+)?$/, 'os/arch, e.g. linux/arm64'))
      .default([])
      .describe("Platforms to build and push; empty: this machine's own"),
  })
  .describe('The image that is built once and promoted');

const candidate = z
  .strictObject({
    timeout: positive.default(30).describe('Seconds until a freshly started image must be healthy'),
  })
  .describe("How a freshly built image is tried once, as prod's service but alone, before it is released");

const health = z
  .strictObject({
    env: z.string().optional().describe('JSON key that names the environment; none: not compared'),
    version: z
      .string()
      .optional()
      .describe('JSON key of the version, without tag prefix; none: not compared'),
    revision: z.string().optional().describe('JSON key of the git commit; none: not compared'),
    config: record
      .default({})
      .describe('JSON keys → key path of the configuration in force, e.g. logLevel = "log.level"'),
  })
  .describe('What the health answer tells about the one who gives it');

const release = z
  .strictObject({
    branch: text.default('main').describe('The branch that is released'),
    remote: text.default('origin').describe('The git remote that --push pushes to'),
    tag_prefix: pattern(
      /^(?:[A-Za-z0-9_](?:[.-]?[A-Za-z0-9_])*[.-]?)?$/,
      'expected letters, digits, "_", and single "." or "-" between them: it is a part of image tags, too',
    )
      .default('v')
      .describe('Prefix of version tags, in git and of images'),
    notes: text.default('release-notes.md').describe('The release notes file'),
    sections: z
      .record(text, z.array(pattern(/^\w+$/, 'a commit type, e.g. feat')))
      .default({
        Added: ['feat', 'feature'],
        Changed: ['perf', 'refactor'],
        Deprecated: ['deprecate'],
        Removed: ['remove'],
        Fixed: ['fix', 'bugfix', 'hotfix'],
        Security: ['security'],
      })
      .describe('Sections of the notes → their commit types; breaking changes come first, all else last'),
    maintenance: texts
      .default(['release/*', 'v*.x'])
      .describe('Branches that older versions are released from (* stands for any characters)'),
    checks: commands.describe('Commands that must pass first, e.g. the tests'),
    hooks: z
      .strictObject({
        before: commands.describe('Before anything is written'),
        after: commands.describe('Once the release is complete, pushes included'),
      })
      .prefault({})
      .describe('Commands around a release; they get PREFIX_RELEASE_TAG, _VERSION, _COMMIT, … as variables'),
  })
  .describe('How a version is made');

const environment = z.strictObject({
  service: text.describe('Service in the compose file'),
  port: port.describe('Port on the host; PREFIX_DEV_PORT / PREFIX_PROD_PORT in .env beat it'),
  health: path.default('/health').describe('Path that answers 200 when the service is well'),
  config: text
    .optional()
    .describe("Service configuration to check before a start; only of Synapse's own form"),
  start_timeout: positive.default(60).describe('Seconds until the service must be healthy'),
});

const data = z
  .strictObject({
    directory: text.describe('Data directory shared by both environments; PREFIX_DATA_DIR in .env beats it'),
    format_label: text.optional().describe('Image label that holds the number of the data format'),
    format_file: text
      .default('format.json')
      .describe('JSON file in the data directory with the number of its format; none there: not compared'),
    format_key: text.default('dataFormat').describe('Its key in that file'),
  })
  .describe('Where the service keeps what must not be lost');

const liveRequest = z.strictObject({
  method: z.enum(['GET', 'POST', 'PUT']).default('POST'),
  path: path.describe('Path on the environment; %nonce% stands for the random word'),
  headers: record.default({}),
  body: z.string().default('').describe('Sent as it is; %nonce% stands for the random word'),
});

const live = z
  .strictObject({
    token: text.optional().describe('Variable in .env, without prefix, whose value is sent as bearer token'),
    write: liveRequest.describe('Sent to dev: stores the random word'),
    read: liveRequest.describe('Sent to prod: its answer must contain that word'),
  })
  .describe('What `doctor --live` writes through dev and reads through prod');

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
    repository: text.describe('restic repository, e.g. "sftp:nas:/backups" or "s3:…"'),
    password_file: text.describe('File that holds its password; encryption at rest is by it'),
    environment: z
      .array(z.string())
      .default([])
      .describe('Variables that restic needs, from .env or the environment, e.g. AWS_SECRET_ACCESS_KEY'),
    check: pattern(
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
  .describe('A second place for verified archives');

const backup = z
  .strictObject({
    directory: text.describe('Where archives are written; PREFIX_BACKUP_DIR in .env beats it'),
    image: text.optional().describe('Image with Node 24 for the backup program; default: the base image'),
    exclude: texts
      .default(['lost+found'])
      .describe('What is left out: names, or paths such as "data/cache/**"; `*` stops at a slash'),
    rehearse: z
      .boolean()
      .default(false)
      .describe('Start the released image on each new archive before it counts, as --rehearse does'),
    lock_timeout: positive.default(30).describe('Seconds that another program may keep a database locked'),
    max_block: positive
      .default(5)
      .describe('Seconds that writers of a database without WAL may have to wait'),
    max_age: positive.default(26).describe('Hours after which a missing backup is overdue'),
    keep: z.strictObject(keep).prefault({}).describe('Retention: how many archives to keep by each rule'),
    ping: z
      .strictObject({
        success: z
          .url()
          .optional()
          .describe('Requested after a complete backup; PREFIX_BACKUP_PING_URL in .env beats it'),
        failure: z
          .url()
          .optional()
          .describe('Requested after a failed or incomplete one; default: the other URL with /fail'),
      })
      .prefault({})
      .describe('Monitoring URLs, e.g. of healthchecks.io'),
    hooks: z
      .strictObject({
        before: commands.describe('Commands before a backup; a failure stops it'),
        after: commands.describe(
          'Commands after it; BACKUP_OUTCOME is done, incomplete or failed, BACKUP_ARCHIVE the path',
        ),
      })
      .prefault({}),
    offsite: offsite.optional(),
  })
  .describe('Backups of everything that prod writes to');

// [migrate]: everything that is known of the older setup is data here, so that the task knows no particular service.

const setting = z
  .strictObject({
    to: text.optional().describe('Key path of the new service configuration'),
    variable: variable
      .optional()
      .describe('Variable of .env, without prefix, that it goes to instead; secrets only go there'),
    values: record.default({}).describe('Old value → new value'),
    scale: z.number().optional().describe('Factor from the old unit to the new one'),
    drop: text.optional().describe('Why it is not carried over'),
  })
  .refine(({ to, variable, drop }) => (to !== undefined || variable !== undefined) !== (drop !== undefined), {
    message: 'give either `to` or `variable`, or else `drop`',
  });

const readable = z
  .strictObject({
    database: text.describe('Database below the data directory that the sample is taken from'),
    query: text.describe('SELECT of a few rows; each is asked for through both environments'),
    path: path.describe('Path on the environment'),
    headers: record.default({}),
    body: text.describe('Sent by POST; %column% stands for a column of the row, as in a JSON string'),
    expect: text.describe('Column whose value the answer must contain'),
    token: text.optional().describe('Variable in .env, without prefix, that holds a bearer token'),
  })
  .describe('How to see that old data is readable through a running environment');

export const migrate = z
  .strictObject({
    service: text.describe('Service in the old compose file'),
    image: text.describe('Its image, without tag'),
    health: path.default('/health').describe('Path that the old service answers 200 on'),
    data_targets: texts.min(1).describe('Where its data directory is mounted in the container'),
    models_targets: texts.default([]).describe('Where its model files are mounted in the container'),
    models_volume: text.describe('Key of the models volume in the new compose file'),
    models_variable: text
      .optional()
      .describe('Variable of .env, without prefix, that names the new volume; none: the files are copied'),
    config_files: texts.default([]).describe('Its settings (JSON), relative to its compose file'),
    variable_prefix: text.describe('Prefix of its environment variables'),
    settings: z
      .record(z.string(), setting)
      .default({})
      .describe(
        'Old key, or variable in lower case without prefix (* at its end: all that begin so) → what becomes of it',
      ),
    pruned: texts.default([]).describe('Databases of which the new service removes what is old'),
    readable: readable.optional(),
  })
  .describe('The older, single-service setup that `migrate` comes from');

export type LegacyDescription = output<typeof migrate>;
export type SettingRule = output<typeof setting>;

export const projectSchema = z
  .strictObject({
    project,
    image,
    candidate: candidate.prefault({}),
    health: health.prefault({}),
    release: release.prefault({}),
    environments: z
      .strictObject({
        dev: environment
          .extend({
            follow: z
              .boolean()
              .default(true)
              .describe(
                'A release that moves `latest` replaces a running dev; false: it is shown as outdated',
              ),
          })
          .describe('Follows the branch'),
        prod: environment.describe('Runs a released version'),
      })
      .describe('The two environments on this host'),
    data,
    backup,
    live: live.optional(),
    migrate: migrate.optional(),
  })
  .describe('configs/release.toml: what the release flow knows about this project');

export type ProjectConfig = output<typeof projectSchema>;
