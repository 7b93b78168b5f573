// The shape of configs/release.toml: everything that the tasks know about the project they release.
// Apart from project.ts so that `--help` need not load zod, and the source of configs/schema/release.json.
import type { output } from 'zod';
import { z } from '#zod';
import { backup, data, environment, live } from './deployment-schema.ts';
import { migrate } from './migrate-schema.ts';

/** A command as an array, never a shell string: `["npm", "run", "check"]`. */
const command = z
  .array(z.string().min(1))
  .min(1)
  .describe('A command and its arguments; no shell is involved');

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
    name: z.string().min(1).describe('Image name without registry and tag, e.g. "synapse"'),
    registry: z
      .string()
      .min(1)
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
    port: z.int().min(1).max(65535).describe('Port inside the container'),
    health: z
      .string()
      .startsWith('/')
      .default('/health')
      .describe('Path that answers 200 when the service is well'),
    timeout: z.int().positive().default(30).describe('Seconds until a freshly started image must be healthy'),
    env: z.record(z.string(), z.string()).default({}).describe('Environment of the trial container'),
    volumes: z
      .array(z.string().startsWith('/'))
      .default([])
      .describe('Data directories: empty in the trial, with the owner and mode that the image gives them'),
    tmpfs: z
      .array(z.string().startsWith('/'))
      .default([])
      .describe('Directories that must be writable, empty in the trial'),
  })
  .describe('How a freshly built image is tried once, alone, before it is released');

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
    tag_prefix: z.string().default('v').describe('Prefix of version tags'),
    notes: z.string().min(1).default('release-notes.md').describe('The release notes file'),
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
    candidate,
    health: health.prefault({}),
    release: release.prefault({}),
    environments: z
      .strictObject({
        dev: environment.describe('Follows the branch'),
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
