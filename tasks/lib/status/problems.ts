// What is not well, in words, each with what to do about it. Pure; the list decides status's exit code.
import type { EnvironmentState } from '../switch/environments.ts';
import type { EnvironmentReport, Problem } from './reported.ts';

/** From here on a container is about to be killed by its limit. */
const MEMORY_ALARM = 0.9;

type Report = Omit<EnvironmentReport, 'problems'>;
type Rule = (report: Report, state: EnvironmentState, wantedImage: string | undefined) => Problem | undefined;

const SWITCH = 'npm run switch -- ';

const RULES: Rule[] = [
  ({ active, mood, name }) =>
    active && (mood === 'stopped' || mood === 'absent')
      ? {
          code: 'not-running',
          message: `${name} is meant to run, but ${mood === 'absent' ? 'has no container' : 'is stopped'}`,
          hint: `start it: ${SWITCH}${name} (or both); if it shall not run: ${SWITCH}none`,
        }
      : undefined,
  ({ mood, name, restarts, container }) =>
    mood === 'crash-looping'
      ? {
          code: 'crash-looping',
          message: `${name} does not stay up: restarted ${restarts} times`,
          hint: `see why: docker logs --tail 50 ${container}`,
        }
      : undefined,
  ({ mood, name, container }, { health, container: found }) =>
    mood === 'unhealthy'
      ? {
          code: 'unhealthy',
          message: `${name} is not healthy: ${unhealthyBecause(health, found?.health)}`,
          hint: `see why: docker logs --tail 50 ${container}; restart it: docker restart ${container}`,
        }
      : undefined,
  ({ name, image, digest, releasedAs }, { container }, wanted) =>
    name === 'prod' && container && image !== `${imageNameOf(image)}:${releasedAs}`
      ? {
          code: 'not-released',
          message: `prod runs ${image} (${short(digest)}), which is not an image that was released under that name`,
          hint: `run a release: ${SWITCH}prod --version ${wanted ? wanted.slice(wanted.lastIndexOf(':') + 1) : 'latest-release'}; what was changed: npm run doctor`,
        }
      : undefined,
  ({ name, image, active }, { container }, wanted) =>
    container && active && wanted !== undefined && image !== wanted
      ? {
          code: 'other-release',
          message: `${name} runs ${image}, but .env names ${wanted}`,
          hint: `make it so: ${SWITCH}${name}`,
        }
      : undefined,
  ({ name, dirty, revision }) =>
    name === 'prod' && dirty
      ? {
          code: 'dirty',
          message: `prod runs a build with uncommitted changes (${revision})`,
          hint: `run a release: ${SWITCH}prod --version latest-release`,
        }
      : undefined,
  ({ name, memory }) =>
    memory?.limit && memory.bytes > MEMORY_ALARM * memory.limit
      ? {
          code: 'memory',
          message: `${name} uses ${Math.round((100 * memory.bytes) / memory.limit)} % of its memory limit`,
          hint: 'restart it, or raise the limit in .env and switch again',
        }
      : undefined,
];

function unhealthyBecause(health: EnvironmentState['health'], container: string | undefined): string {
  if (!health || health.status === 0) return `no answer (${health?.error ?? 'not asked'})`;
  if (health.status !== 200) return `it answers ${health.status}, expected 200`;
  return `it answers, but its container is ${container}`;
}

const imageNameOf = (image: string | null) => (image ?? '').slice(0, (image ?? '').lastIndexOf(':'));
export const short = (digest: string | null) => digest?.slice(0, 'sha256:'.length + 12) ?? 'no digest';

export function environmentProblems(
  report: Report,
  state: EnvironmentState,
  wantedImage: string | undefined,
): Problem[] {
  return RULES.flatMap((rule) => rule(report, state, wantedImage) ?? []);
}
