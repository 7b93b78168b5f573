import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type LegacyOptions, type LegacySetup, legacySetup } from './legacy.ts';
import { tinyProject } from './project.ts';
import { tinyBase } from './tiny-base.ts';

export const MIGRATE = `
[migrate]
service = "rag-mcp"
image = "rag-mcp"
compose_files = ["docker-compose.mcp.yml"]
places = [".", ".."]
data_targets = ["/app/data"]
models_targets = ["/app/models"]
models_volume_suffix = "rag-mcp-models"
models_volume = "tiny-models"
models_variable = "MODELS_VOLUME"
config_files = ["configs/rag_config.json"]
variable_prefix = "RAG_"

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

/** `options.released: false` leaves the release to the migration. */
export async function tinyLegacy(
  t: TestContext,
  options: LegacyOptions & { released?: boolean } = {},
): Promise<LegacySetup> {
  const project = await tinyProject(t);
  // The program that copies runs in the base image, by its node.
  const [base, node] = [await tinyBase(), process.env.TEST_BASE_IMAGE ?? 'synapse-node:24'];
  await project.edit('Dockerfile', (text) => text.replace(/^FROM .*$/m, `FROM ${base}`));
  // With this file in its data the new service does not start.
  await project.edit('serve', (text) =>
    text.replace(/^read -r/m, '[ ! -e /app/data/poison ] || exit 3\nread -r'),
  );
  await project.edit('.env', (text) =>
    [
      text.trimEnd().replace(`TINY_BASE_IMAGE=${base}`, `TINY_BASE_IMAGE=${node}`),
      `TINY_DATA_DIR=${join(project.directory, 'data')}`,
      `TINY_BACKUP_DIR=${join(project.directory, 'backups')}`,
      '# a line of the user\n',
    ].join('\n'),
  );
  await project.edit('compose/docker-compose.yml', (text) =>
    text
      .replaceAll('"127.0.0.1:', `"\${TINY_BIND_ADDRESS:-127.0.0.1}:`)
      .replace(/^ {4}restart: .*$/gm, (line) => `${line}${MOUNTS.trimEnd()}`)
      .concat(`\nvolumes:\n  tiny-models: { name: "\${TINY_MODELS_VOLUME:-${project.name}-models}" }\n`),
  );
  await project.edit('configs/release.toml', (text) => text + MIGRATE);
  await project.edit('configs/release.toml', (text) =>
    text.replace(/^\[backup\]\n/m, '[backup]\nkeep = { last = 2 }\n'),
  );
  const setup = await legacySetup(t, project, options);
  if (options.released !== false) {
    const released = await project.task('release', ['patch', '--yes']);
    if (released.code !== 0) throw new Error(released.stderr);
  }
  return setup;
}
