// The plan of a switch on a swarm: what is deployed, what stops, everything checked before.
import { askHealth } from '../docker/health.ts';
import { ENVIRONMENTS, type EnvironmentName, type Project } from '../project.ts';
import { verifySwitch } from './checks.ts';
import { type ActiveEnvironment, environmentsOf, type Scene, survey } from './environments.ts';
import type { SwitchStep } from './plan.ts';
import { STACK_LABEL, type Stack, stackFile } from './stack.ts';
import { inspectServices, type SwarmService, swarmPublish } from './swarm.ts';
import { checkTarget, type TargetCheck } from './target.ts';

export type Services = Record<EnvironmentName, SwarmService | undefined>;

export interface Deployment {
  name: EnvironmentName;
  stack: Stack;
  /** Containers of it run now. */
  replaces: boolean;
  reason: string;
}

export interface SwarmPlan {
  scene: Scene;
  check: TargetCheck;
  services: Services;
  /** Environments that answer now, and have to again if the switch fails. */
  answering: EnvironmentName[];
  deployments: Deployment[];
  /** Environments that run and shall not. */
  stops: EnvironmentName[];
  remember: boolean;
}

/** What has to be done, everything checked. @throws TaskError with every problem */
export async function planSwarm(
  project: Project,
  active: ActiveEnvironment,
  prodTag: string | undefined,
): Promise<SwarmPlan> {
  const [publish, services, scene, check] = await Promise.all([
    swarmPublish(),
    inspectServices(project),
    survey(project, prodTag),
    checkTarget(project, active, prodTag),
  ]);
  const wanted = environmentsOf(active);
  const deployments = wanted.flatMap((name): Deployment[] => {
    const { service } = project.environments[name];
    const options = { project: project.project.name, replicas: { [service]: 1 }, publish };
    const stack = stackFile(scene.model, options);
    const reason = reasonToDeploy(services[name], stack, service);
    const present = services[name];
    const replaces = (present?.replicas ?? 0) > 0;
    return reason ? [{ name, stack, replaces, reason }] : [];
  });
  const starts = deployments.map(
    ({ name, reason }): SwitchStep => ({ kind: 'start', environment: name, how: 'create', reason }),
  );
  await verifySwitch(project, scene, check, starts);
  const running = ENVIRONMENTS.filter((name) => (services[name]?.replicas ?? 0) > 0);
  const answers = await Promise.all(running.map((name) => askHealth(scene.addresses[name])));
  const answering = running.filter((_, index) => answers[index]?.status === 200);
  const stops = running.filter((name) => !wanted.includes(name));
  const remember = scene.observed.active !== active || scene.observed.prodTag !== prodTag;
  return { scene, check, services, answering, deployments, stops, remember };
}

function reasonToDeploy(
  present: SwarmService | undefined,
  stack: Stack,
  service: string,
): string | undefined {
  if (!present) return 'the swarm has no such service';
  const labels = JSON.parse(stack.text).services[service].deploy.labels as Record<string, string>;
  if (present.deployed !== labels[STACK_LABEL]) return 'its image or configuration is another one';
  return present.replicas === 0 ? 'it is stopped' : undefined;
}

/** One line a step, for the plan that is shown. */
export function describeSwarmPlan({ check, deployments, stops, remember }: SwarmPlan): string[] {
  const { active, prodTag, fetch } = check.target;
  return [
    ...(fetch ? [`${fetch} the image of ${prodTag}, which is not here`] : []),
    ...deployments.map(({ name, reason }) => `deploy ${name} to the swarm: ${reason}`),
    ...stops.map((name) => `stop ${name}`),
    ...(remember
      ? [`write .env: active environment ${active}${prodTag ? `, prod runs ${prodTag}` : ''}`]
      : []),
  ];
}

/** What the swarm runs, as lines and as data. */
export async function observeSwarm(
  project: Project,
): Promise<{ text: string; data: Record<string, unknown> }> {
  const services = await inspectServices(project);
  const entries = ENVIRONMENTS.map((name) => [name, services[name]] as const);
  const text = entries
    .map(
      ([name, service]) =>
        `${name.padEnd(5)} ${service ? `${service.image} × ${service.replicas}` : 'not there'}`,
    )
    .join('\n');
  return {
    text,
    data: {
      engine: 'swarm',
      environments: Object.fromEntries(entries.map(([name, service]) => [name, service ?? null])),
    },
  };
}
