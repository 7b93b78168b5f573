// The file that stands for a compose file that is gone: made from the container, kept with our bookkeeping.
import { probe } from '../command.ts';
import { docker } from '../docker/client.ts';
import { readIfPresent, replaceFile } from '../files.ts';
import type { Project } from '../project.ts';
import { ensureStateDirectory, statePath } from '../state.ts';
import { type EngineContainer, engineNetworks } from './engine-view.ts';
import { rebuildCompose } from './rebuild-compose.ts';

/** Writes it (0600: it has the container's variables) and returns its path; bookkeeping, so also in a dry run. */
export async function writeRebuilt(project: Project, container: EngineContainer): Promise<string> {
  const path = statePath(project.root, 'rebuilt-compose.json');
  const networks = await engineNetworks();
  const network = networks.find(({ name }) => container.networks.includes(name));
  const answer = await probe(docker('image', 'inspect', '--format', '{{json .Config}}', container.imageId));
  const config = answer.ok ? (JSON.parse(answer.stdout) as Record<string, string[] | null>) : {};
  const text = rebuildCompose(container, network, {
    environment: config.Env ?? [],
    command: config.Cmd ?? null,
    entrypoint: config.Entrypoint ?? null,
  });
  if ((await readIfPresent(path)) !== text) {
    await ensureStateDirectory(project.root);
    await replaceFile(path, text, { mode: 0o600 });
  }
  return path;
}
