// Is the Docker engine, with its plugins and its kernel, fit to run the project?

import { probe } from '../command.ts';
import { docker } from '../docker/client.ts';
import { OLDEST_ENGINE } from '../engine/plan.ts';
import { semver } from '../libraries.ts';
import { amount } from '../status/format.ts';
import { parseUsage } from '../status/resources.ts';
import { type Check, type Finding, failed, gather, ok, warning } from './check.ts';
import type { Facts } from './facts.ts';

/** `env_file` with `required: false` came with it. */
const OLDEST_COMPOSE = '2.24.0';
const INSTALL =
  'npm run setup installs it on Debian and Raspberry Pi OS; elsewhere see https://docs.docker.com';
/** Raspberry Pi OS leaves the memory cgroup off. */
const ENABLE_MEMORY_CGROUP =
  'Raspberry Pi: add  cgroup_enable=memory cgroup_memory=1  to the end of the one line in /boot/firmware/cmdline.txt ' +
  '(before Debian 12: /boot/cmdline.txt) and reboot; elsewhere enable the memory controller of the kernel';

async function engine({ info }: Facts): Promise<Finding> {
  const { version, cpus, memory } = await info();
  if (Number.parseInt(version, 10) < OLDEST_ENGINE) {
    return failed(
      `engine ${version}, needed is ${OLDEST_ENGINE} or newer`,
      'upgrade it: https://docs.docker.com/engine/install/',
    );
  }
  return ok(`engine ${version}, ${cpus} CPUs, ${amount(memory)}`);
}

async function plugin(argv: string[], oldest: string): Promise<Finding> {
  const answer = await probe(docker(...argv), { timeoutMs: 15_000 });
  const version = semver.coerce(answer.stdout)?.version;
  if (!answer.ok || !version) return failed('it is missing', INSTALL);
  if (semver.lt(version, oldest)) return failed(`version ${version}, needed is ${oldest} or newer`, INSTALL);
  return ok(`version ${version}`);
}

async function memoryLimits({ info, containers, ask }: Facts): Promise<Finding> {
  const { limits, cgroup } = await info();
  if (!limits.memory) return failed('the kernel does not enforce memory limits', ENABLE_MEMORY_CGROUP);
  const running = (await containers()).filter(({ state }) => state === 'running');
  const problems = await Promise.all(
    running.map(async ({ id, name, memoryLimit }) => {
      if (memoryLimit === 0) {
        return warning(
          `${name} has no memory limit`,
          'set deploy.resources.limits.memory in the compose file',
        );
      }
      const usage = await parseUsage(await ask(`/containers/${id}/stats?stream=false&one-shot=true`));
      return usage?.limit === memoryLimit
        ? undefined
        : failed(
            `${name} was promised at most ${amount(memoryLimit)}, the kernel enforces ${usage ? amount(usage.limit) : 'nothing'}`,
            ENABLE_MEMORY_CGROUP,
          );
    }),
  );
  const list = running.map(({ name, memoryLimit }) => `${name} ${amount(memoryLimit)}`).join(', ');
  return gather(
    problems.filter((one) => one !== undefined),
    `enforced by cgroup version ${cgroup}${list ? `: ${list}` : ''}`,
  );
}

async function cgroup({ info }: Facts): Promise<Finding> {
  const { limits, cgroup: version, warnings } = await info();
  const missing = [...(limits.cpu ? [] : ['CPU quota']), ...(limits.pids ? [] : ['process count'])];
  if (missing.length > 0) {
    return failed(
      `the kernel does not enforce: ${missing.join(', ')}`,
      'enable these cgroup controllers in the kernel',
    );
  }
  const notes = warnings.filter((text) => /no .*(memory|cpu|pids) .*support/i.test(text));
  const swap = limits.swap ? [] : ['swap is not limited'];
  return ok([`version ${version}`, ...notes, ...swap].join('; '));
}

export const ENGINE_CHECKS: readonly Check[] = [
  { id: 'engine', withoutDotenv: true, title: 'Docker engine', run: engine },
  {
    id: 'compose',
    withoutDotenv: true,
    title: 'Docker Compose',
    run: () => plugin(['compose', 'version', '--short'], OLDEST_COMPOSE),
  },
  {
    id: 'buildx',
    withoutDotenv: true,
    title: 'Docker Buildx',
    run: () => plugin(['buildx', 'version'], '0.12.0'),
  },
  { id: 'cgroup', withoutDotenv: true, title: 'control groups', run: cgroup },
  { id: 'memory-limits', title: 'memory limits', run: memoryLimits },
];
