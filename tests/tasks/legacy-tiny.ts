// The tiny project with an older setup to come from: an image that builds in a second, the real backup program in
// an image of its own, and the release made beforehand, so that a migration takes seconds and can be killed often.
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type LegacyOptions, type LegacySetup, legacySetup } from './legacy.ts';
import { docker, REPOSITORY, runProcess, type TestProject, tinyProject } from './project.ts';

export const MIGRATE = `
[migrate]
service = "rag-mcp"
image = "rag-mcp"
port = 8002
compose_files = ["docker-compose.mcp.yml"]
places = [".", ".."]
data_targets = ["/app/data"]
models_targets = ["/app/models"]
models_volume_suffix = "rag-mcp-models"
models_volume = "tiny-models"
models_variable = "MODELS_VOLUME"
config_files = ["configs/rag_config.json"]
variable_prefix = "RAG_"
grace_days = 14

[migrate.settings]
api_token = { variable = "TOKEN" }
log_level = { variable = "LOG_LEVEL" }
`;

/** What both services get, beside what the compose file has. */
const MOUNTS = `
    user: "\${TINY_UID:-1000}:\${TINY_GID:-1000}"
    volumes:
      - { type: bind, source: "\${TINY_DATA_DIR:-/nowhere}", target: /app/data }
      - { type: volume, source: tiny-models, target: /app/models }
`;

async function backupImage(t: TestContext, project: TestProject): Promise<void> {
  const folder = join(project.directory, 'backup-image');
  const image = `${project.name}-backup:1`;
  t.after(() => docker('image', 'rm', '--force', image).catch(() => ''));
  await mkdir(folder);
  const bundled = await runProcess('node', [
    join(REPOSITORY, 'service/bundle.mjs'),
    join(folder, 'synapse.mjs'),
  ]);
  if (bundled.code !== 0) throw new Error(bundled.stderr);
  const base = process.env.TEST_BASE_IMAGE ?? 'synapse-node:24';
  await writeFile(join(folder, 'Dockerfile'), `FROM ${base}\nCOPY backup.mjs /app/\n`);
  await docker('build', '--quiet', '--tag', image, folder);
  await rm(folder, { recursive: true });
  await project.edit('configs/release.toml', (text) =>
    text.replace(/^\[backup\]\n/m, `[backup]\nimage = "${image}"\nkeep = { last = 2 }\n`),
  );
}

/** `options.released: false` leaves the release to the migration. */
export async function tinyLegacy(
  t: TestContext,
  options: LegacyOptions & { released?: boolean } = {},
): Promise<LegacySetup> {
  const project = await tinyProject(t);
  await project.edit('.env', (text) =>
    [
      text.trimEnd(),
      `TINY_DATA_DIR=${join(project.directory, 'data')}`,
      `TINY_BACKUP_DIR=${join(project.directory, 'backups')}`,
      '# a line of the user\n',
    ].join('\n'),
  );
  await project.edit('compose/docker-compose.yml', (text) =>
    text
      .replace(/^ {4}restart: .*$/gm, (line) => `${line}${MOUNTS.trimEnd()}`)
      .concat(`\nvolumes:\n  tiny-models: { name: "\${TINY_MODELS_VOLUME:-${project.name}-models}" }\n`),
  );
  await project.edit('configs/release.toml', (text) => text + MIGRATE);
  await backupImage(t, project);
  const setup = await legacySetup(t, project, options);
  if (options.released !== false) {
    const released = await project.task('release', ['patch', '--yes']);
    if (released.code !== 0) throw new Error(released.stderr);
  }
  return setup;
}
