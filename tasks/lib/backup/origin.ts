// What an archive says about where it comes from: release, image, commit and configuration.
import { createHash } from 'node:crypto';
import { resolve } from 'node:path';
import { readIfPresent } from '../files.ts';
import { ENVIRONMENTS, PROJECT_FILE, type Project } from '../project.ts';
import type { BackupImage } from './places.ts';

const REVISION_LABEL = 'org.opencontainers.image.revision';

/** SHA-256 over everything that configures the service; the secrets in .env are no part of it. */
async function configHash(project: Project): Promise<string> {
  const services = ENVIRONMENTS.flatMap((name) => project.environments[name].config ?? []);
  const hash = createHash('sha256');
  for (const file of [PROJECT_FILE, ...project.project.compose, ...services]) {
    const text = await readIfPresent(resolve(project.root, file));
    hash.update(`${file}\0${text ?? ''}\0`);
  }
  return hash.digest('hex');
}

export async function backupOrigin(project: Project, { version, app, appReference }: BackupImage) {
  return {
    project: project.project.name,
    version,
    image: appReference,
    imageDigest: app?.id ?? '',
    revision: app?.labels[REVISION_LABEL] ?? '',
    configHash: await configHash(project),
  };
}
