// One container of an environment and its successor. Compose replaces a container by removing it first; here
// the next one is made beside it, by compose itself (as if scaling up), and takes over its name. Until it has
// proven healthy the old one lies aside, stopped, and can be started again as it was.
import { dirname } from 'node:path';
import { type Command, run } from '../command.ts';
import { docker } from '../docker/client.ts';
import { modelCommand } from '../docker/compose.ts';
import type { ComposeModel, InjectedFile } from '../docker/compose-model.ts';
import type { Container } from '../docker/containers.ts';
import { throwIfInterrupted, uninterrupted } from '../interrupt.ts';
import type { Project } from '../project.ts';

/** A single act on the engine is never cut in half: a signal takes effect after it. */
export function act(command: Command, options: Parameters<typeof run>[1] = {}): Promise<string> {
  throwIfInterrupted();
  return uninterrupted(() => run(command, options));
}

/** The name of a container that was replaced and is kept for now. */
export function nameAside(containerName: string): string {
  return `${containerName}.before`;
}

/** How compose calls a service's next container: by the number after the highest one in use. */
export function nextName(project: Project, service: string, present: readonly Container[]): string {
  const numbers = present.map(({ labels }) => Number(labels['com.docker.compose.container-number'] ?? 0));
  return `${project.project.name}-${service}-${Math.max(0, ...numbers) + 1}`;
}

/** Makes a service's next container, not started, beside the ones that it has: `count` with the new one. */
export async function createContainer(project: Project, model: ComposeModel, service: string, count: number) {
  const scale = `${service}=${count}`;
  const up = ['up', '--no-start', '--no-deps', '--no-build', '--no-recreate', '--scale', scale, service];
  await act(modelCommand(project, ...up), { input: model.input });
}

/** Puts files into a container that was made and not started yet. */
export async function injectFiles(container: string, files: readonly InjectedFile[]): Promise<void> {
  for (const folder of new Set(files.map(({ target }) => dirname(target)))) {
    const inside = files.filter(({ target }) => dirname(target) === folder);
    await act(docker('cp', '-', `${container}:${folder}`), { input: await tarOf(inside) });
  }
}

/** Owned by root and readable by all: the service must not change what it was configured with. */
async function tarOf(files: readonly InjectedFile[]): Promise<Buffer> {
  const { pack } = await import('tar-stream');
  const archive = pack();
  for (const { target, content, mode } of files) {
    archive.entry({ name: target.slice(dirname(target).length + 1), mode, uid: 0, gid: 0 }, content);
  }
  archive.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of archive) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

export async function renameContainer(id: string, name: string): Promise<void> {
  await act(docker('rename', id, name));
}

/**
 * What the engine does with a container when it or the machine stops. A successor has none until it is
 * proven: after a power cut in between, the old one alone comes up again.
 */
export async function setRestartPolicy(id: string, policy: string): Promise<void> {
  await act(docker('update', '--restart', policy, id));
}

export async function startContainer(id: string): Promise<void> {
  await act(docker('start', id));
}

/** Stops within the grace period that compose gave the container, or `seconds`. */
export async function stopContainer(id: string, seconds?: number): Promise<void> {
  await act(docker('stop', ...(seconds === undefined ? [] : ['--time', String(seconds)]), id));
}

/** Removes a container with the volumes that belong to it alone. */
export async function removeContainer(id: string): Promise<void> {
  await act(docker('rm', '--force', '--volumes', id));
}
