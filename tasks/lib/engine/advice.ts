// What a person has to do about the Docker engine where this program may not, or cannot: one error for
// each case, with the very command for that kind of machine. Pure.

import { TaskError } from '../errors.ts';
import type { EngineObserved, EnginePart } from './observed.ts';

const DOCS = 'https://docs.docker.com/engine/install/';
const AS_ROOT = 'sudo env "PATH=$PATH" npx tsx tasks/setup.ts --yes';
const JOIN_GROUP = 'sudo usermod -aG docker "$USER", then log in again';

function machine({ platform, distribution, root, arch }: EngineObserved): string {
  const system = platform === 'darwin' ? 'macOS' : distribution.name || platform;
  return `${system}, ${arch}, ${root ? 'root' : 'not root'}`;
}

function withDetail(message: string, detail: string): string {
  return detail ? `${message}\n${detail}` : message;
}

function howToInstall(observed: EngineObserved, supported: boolean, oldest: number): string {
  const { platform, distribution, root } = observed;
  if (platform === 'darwin') {
    return [
      'Install and start Docker Desktop (https://docs.docker.com/desktop/) or OrbStack (https://orbstack.dev),',
      'or: brew install colima docker docker-compose docker-buildx && colima start',
    ].join('\n');
  }
  if (supported) return `Run it as root once: ${AS_ROOT}\nand let yourself use the engine: ${JOIN_GROUP}`;
  if (distribution.id === 'ubuntu') {
    return `${root ? '' : 'sudo '}apt-get install docker.io docker-compose-v2 docker-buildx`;
  }
  const page = distribution.id && distribution.id !== 'debian' ? DOCS + distribution.id : DOCS;
  return `Install Docker Engine ${oldest} or newer with its Compose and Buildx plugins: ${page}`;
}

/** Parts are missing, and this is no machine (or no user) to install them with. */
export function engineMissing(
  observed: EngineObserved,
  missing: readonly EnginePart[],
  supported: boolean,
  oldest: number,
): TaskError {
  const what = `No usable Docker engine: ${missing.join(', ')} missing (${machine(observed)})`;
  return new TaskError(what, { code: 'engine-missing', hint: howToInstall(observed, supported, oldest) });
}

/** It is there, but does not answer; `local` is an engine on this machine in its standard place. */
export function engineUnreachable(observed: EngineObserved, detail: string, local: boolean): TaskError {
  if (!local) {
    const what = `No Docker engine answers at ${observed.endpoint}, which DOCKER_HOST or the context names`;
    return new TaskError(withDetail(what, detail), {
      code: 'engine-unreachable',
      hint: 'Start that engine, or choose this machine’s: unset DOCKER_HOST; docker context use default',
    });
  }
  const start = observed.systemd ? 'sudo systemctl start docker' : AS_ROOT;
  const what = `The Docker engine is installed but does not run (${machine(observed)})`;
  return new TaskError(withDetail(what, detail), {
    code: 'engine-down',
    hint: `Start it: ${observed.platform === 'darwin' ? 'open -a Docker, or OrbStack, or: colima start' : start}`,
  });
}

export function engineDenied({ endpoint, root }: EngineObserved, detail: string): TaskError {
  return new TaskError(withDetail(`This user may not use the Docker engine at ${endpoint}`, detail), {
    code: 'engine-denied',
    hint: root ? 'Look at the owner and the mode of the socket.' : JOIN_GROUP,
  });
}

export function engineTooOld({ endpoint }: EngineObserved, version: string, oldest: number): TaskError {
  return new TaskError(`Docker engine ${version} at ${endpoint} is too old: ${oldest} or newer is needed`, {
    code: 'engine-too-old',
    hint: `A running engine is never replaced by this task. Upgrade it: ${DOCS}`,
  });
}
