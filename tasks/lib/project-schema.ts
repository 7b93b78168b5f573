// The second half of configs/release.toml: what runs on this host, which data it keeps, how that is backed up.
import { type output, z } from 'zod';

/** A command as an array, never a shell string: `["npm", "run", "check"]`. */
const command = z
  .array(z.string().min(1))
  .min(1)
  .describe('A command and its arguments; no shell is involved');

const environment = z.strictObject({
  service: z.string().min(1).describe('Service in the compose file'),
  port: z
    .int()
    .min(1)
    .max(65535)
    .describe('Port on the host; PREFIX_DEV_PORT / PREFIX_PROD_PORT in .env beat it'),
  health: z
    .string()
    .startsWith('/')
    .default('/health')
    .describe('Path that answers 200 when the service is well'),
  config: z
    .string()
    .min(1)
    .optional()
    .describe(
      "Service configuration that is checked before the environment starts; only for Synapse's own form",
    ),
  start_timeout: z.int().positive().default(60).describe('Seconds until the service must be healthy'),
});

const data = z
  .strictObject({
    directory: z
      .string()
      .min(1)
      .describe('Data directory shared by both environments; PREFIX_DATA_DIR in .env beats it'),
    format_label: z
      .string()
      .min(1)
      .optional()
      .describe('Image label that holds the number of the data format'),
    format_file: z
      .string()
      .min(1)
      .default('format.json')
      .describe(
        'JSON file in the data directory that holds the number of its format; none there: not compared',
      ),
    format_key: z.string().min(1).default('dataFormat').describe('Its key in that file'),
  })
  .describe('Where the service keeps what must not be lost');

const liveRequest = z.strictObject({
  method: z.enum(['GET', 'POST', 'PUT']).default('POST'),
  path: z.string().startsWith('/').describe('Path on the environment; %nonce% stands for the random word'),
  headers: z.record(z.string(), z.string()).default({}),
  body: z.string().default('').describe('Sent as it is; %nonce% stands for the random word'),
});

const live = z
  .strictObject({
    token: z
      .string()
      .min(1)
      .optional()
      .describe('Variable in .env, without prefix, whose value is sent as bearer token'),
    write: liveRequest.describe('Sent to dev: stores the random word'),
    read: liveRequest.describe('Sent to prod: its answer must contain that word'),
  })
  .describe(
    'What `doctor --live` does with the running environments: written through dev, read through prod',
  );

// The [migrate] part of configs/release.toml: how the older setup looks that `migrate` comes from. Everything
// that is known about it is here as data, so that the task itself knows nothing of any particular service.

const names = z.array(z.string().min(1));

const setting = z
  .strictObject({
    to: z.string().min(1).optional().describe('Key path of the new service configuration'),
    in: z.enum(['base', 'dev', 'prod']).default('base').describe('Configuration file that it goes to'),
    variable: z
      .string()
      .regex(/^[A-Z][A-Z0-9_]*$/)
      .optional()
      .describe(
        'Variable of .env, without prefix, that it goes to instead; secrets go there and nowhere else',
      ),
    values: z.record(z.string(), z.string()).default({}).describe('Old value → new value'),
    scale: z.number().optional().describe('Factor from the old unit to the new one'),
    drop: z.string().min(1).optional().describe('Why it is not carried over'),
  })
  .refine(({ to, variable, drop }) => (to !== undefined || variable !== undefined) !== (drop !== undefined), {
    message: 'give either `to` or `variable`, or else `drop`',
  });

const readable = z
  .strictObject({
    database: z.string().min(1).describe('Database below the data directory that the sample is taken from'),
    query: z.string().min(1).describe('SELECT of a few rows; each is asked for through both environments'),
    path: z.string().startsWith('/').describe('Path on the environment'),
    headers: z.record(z.string(), z.string()).default({}),
    body: z
      .string()
      .min(1)
      .describe('Sent by POST; %column% stands for a column of the row, as in a JSON string'),
    expect: z.string().min(1).describe('Column whose value the answer must contain'),
    token: z
      .string()
      .min(1)
      .optional()
      .describe('Variable in .env, without prefix, that holds a bearer token'),
  })
  .describe('How to see that old data is readable through a running environment');

export const migrate = z
  .strictObject({
    service: z.string().min(1).describe('Service in the old compose file'),
    image: z.string().min(1).describe('Its image, without tag'),
    compose_files: names.min(1).describe('What the old compose file is called'),
    places: names.default(['.', '..']).describe('Folders to look for it in, relative to the project'),
    health: z
      .string()
      .startsWith('/')
      .default('/health')
      .describe('Path that the old service answers 200 on'),
    data_targets: names.min(1).describe('Where its data directory is mounted in the container'),
    models_targets: names.default([]).describe('Where its model files are mounted in the container'),
    models_volume_suffix: z.string().min(1).describe('What the name of its models volume ends with'),
    models_volume: z.string().min(1).describe('Key of the models volume in the new compose file'),
    models_variable: z
      .string()
      .min(1)
      .optional()
      .describe('Variable of .env, without prefix, that names the new volume; none: the files are copied'),
    config_files: names.default([]).describe('Its settings (JSON), relative to its compose file'),
    variable_prefix: z.string().min(1).describe('Prefix of its environment variables'),
    settings: z
      .record(z.string(), setting)
      .default({})
      .describe(
        'Old key (or old variable in lower case, without prefix; * at its end: all that begin so) → what becomes of it',
      ),
    pruned: names
      .default([])
      .describe('Databases below the data directory of which the new service removes what is old'),
    readable: readable.optional(),
  })
  .describe('The older, single-service setup that `migrate` comes from');

export type LegacyDescription = output<typeof migrate>;
export type SettingRule = output<typeof setting>;

// [backup] of configs/release.toml: where archives go, how long they stay, who is told. Its own file because it
// is the largest table, and the backup room's alone.

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
  .describe('A second place for verified archives');

const backup = z
  .strictObject({
    directory: z.string().min(1).describe('Where archives are written; PREFIX_BACKUP_DIR in .env beats it'),
    image: z
      .string()
      .min(1)
      .optional()
      .describe('Image with Node 24 in which the backup program runs; default: the base image'),
    exclude: z
      .array(z.string().min(1))
      .default(['lost+found'])
      .describe('What is left out: names, or paths such as "data/cache/**"; `*` stops at a slash'),
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
        before: z.array(command).default([]).describe('Commands before a backup; a failure stops it'),
        after: z
          .array(command)
          .default([])
          .describe(
            'Commands after it, good or bad: BACKUP_OUTCOME is done, incomplete or failed; BACKUP_ARCHIVE is the path',
          ),
      })
      .prefault({}),
    offsite: offsite.optional(),
  })
  .describe('Backups of everything that prod writes to');

// The shape of configs/release.toml: everything that the tasks know about the project they release.
// Apart from project.ts so that `--help` need not load zod, and the source of configs/schema/release.json.

const project = z
  .strictObject({
    name: z
      .string()
      .regex(/^[a-z0-9][a-z0-9_-]*$/, 'lower-case letters, digits, - and _ (it names the compose project)')
      .describe('Name of the project; the compose project and temporary containers carry it'),
    variable_prefix: z
      .string()
      .regex(/^[A-Z][A-Z0-9_]*$/, 'upper-case letters, digits and _')
      .describe('Prefix of the variables in .env: PREFIX_ACTIVE_ENV, PREFIX_PROD_TAG, PREFIX_DATA_DIR, …'),
    compose: z
      .array(z.string().min(1))
      .min(1)
      .default(['compose/docker-compose.yml'])
      .describe('Compose files, relative to the project, in the order docker compose reads them'),
  })
  .describe('The project itself');

const image = z
  .strictObject({
    name: z
      .string()
      .regex(/^[a-z0-9]+([._/-]+[a-z0-9]+)*$/, 'a name in lower case, without registry and tag')
      .describe('Image name without registry and tag, e.g. "synapse"'),
    registry: z
      .string()
      .regex(
        /^[a-z0-9.-]+(:\d+)?(\/[a-z0-9._-]+)*\/?$/,
        'host[:port][/path] in lower case, without http:// or https://',
      )
      .optional()
      .describe('Registry and path to push to, e.g. "ghcr.io/me"; none: images stay local'),
    context: z
      .string()
      .default('.')
      .describe('Build context inside the release commit, relative to the project'),
    dockerfile: z.string().default('Dockerfile').describe('Dockerfile, relative to the project'),
    target: z.string().min(1).optional().describe('Build stage; default: the last one'),
    build_args: z
      .record(z.string(), z.string())
      .default({})
      .describe('Build arguments beside VERSION, REVISION, CREATED, SOURCE'),
    secret_files: z
      .record(z.string(), z.string())
      .default({})
      .describe('BuildKit secret id → environment variable that holds a file path; left out when unset'),
    base_image_arg: z
      .string()
      .min(1)
      .optional()
      .describe('Build argument that names the base image, e.g. "NODE_IMAGE"'),
    base_image: z
      .string()
      .min(1)
      .optional()
      .describe('Base image that setup makes sure of, e.g. "node:24-bookworm-slim"'),
    platforms: z
      .array(z.string().regex(/^\w+\/\w+(\/\w+)?$/, 'os/arch, e.g. linux/arm64'))
      .default([])
      .describe("Platforms to build and push; empty: this machine's own"),
  })
  .describe('The image that is built once and promoted');

const candidate = z
  .strictObject({
    timeout: z.int().positive().default(30).describe('Seconds until a freshly started image must be healthy'),
  })
  .describe("How a freshly built image is tried once, as prod's service but alone, before it is released");

const health = z
  .strictObject({
    env: z.string().optional().describe('JSON key that names the environment; none: not compared'),
    version: z
      .string()
      .optional()
      .describe('JSON key that holds the version, without the tag prefix; none: not compared'),
    revision: z.string().optional().describe('JSON key that holds the git commit; none: not compared'),
    config: z
      .record(z.string(), z.string())
      .default({})
      .describe(
        'JSON keys that tell the configuration in force → key path of that configuration, e.g. logLevel = "log.level"',
      ),
  })
  .describe('What the health answer tells about the one who gives it');

const release = z
  .strictObject({
    branch: z.string().min(1).default('main').describe('The branch that is released'),
    remote: z.string().min(1).default('origin').describe('The git remote that --push pushes to'),
    tag_prefix: z
      .string()
      .regex(
        /^(?:[A-Za-z0-9_](?:[.-]?[A-Za-z0-9_])*[.-]?)?$/,
        'expected letters, digits, "_", and single "." or "-" between them: it is a part of image tags, too',
      )
      .default('v')
      .describe('Prefix of version tags, in git and of images'),
    notes: z.string().min(1).default('release-notes.md').describe('The release notes file'),
    sections: z
      .record(z.string().min(1), z.array(z.string().regex(/^\w+$/, 'a commit type, e.g. feat')))
      .default({
        Added: ['feat', 'feature'],
        Changed: ['perf', 'refactor'],
        Deprecated: ['deprecate'],
        Removed: ['remove'],
        Fixed: ['fix', 'bugfix', 'hotfix'],
        Security: ['security'],
      })
      .describe(
        'Sections of the notes → the commit types that they list; breaking changes come before them, all else after',
      ),
    maintenance: z
      .array(z.string().min(1))
      .default(['release/*', 'v*.x'])
      .describe('Branches that older versions are released from (* stands for any characters)'),
    checks: z.array(command).default([]).describe('Commands that must pass first, e.g. the tests'),
    hooks: z
      .strictObject({
        before: z.array(command).default([]).describe('Before anything is written'),
        after: z.array(command).default([]).describe('Once the release is complete, pushes included'),
      })
      .prefault({})
      .describe('Commands around a release; they get PREFIX_RELEASE_TAG, _VERSION, _COMMIT, … as variables'),
  })
  .describe('How a version is made');

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
                'A release that moves `latest` also replaces a running dev; false: it is shown as outdated',
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
