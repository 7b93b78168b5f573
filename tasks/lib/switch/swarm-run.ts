// A switch on a swarm: the same story as on one engine (what is wanted proves healthy, then the other one
// stops, .env changes last), told in the swarm's acts.
import { waitForHealth } from '../docker/health.ts';
import { updateDotenv } from '../dotenv.ts';
import { errorSummary } from '../errors.ts';
import { uninterrupted } from '../interrupt.ts';
import { withHistory } from '../journal.ts';
import { log } from '../log.ts';
import { timed } from '../phases.ts';
import { type Project, variableName } from '../project.ts';
import { session } from '../session.ts';
import type { ActiveEnvironment, Scene } from './environments.ts';
import { whileProbing } from './prober.ts';
import { afterFailure, verifyRestored, waitForAnswer } from './restore.ts';
import { expectedHealth, startFailure } from './start.ts';
import { deployStack } from './swarm.ts';
import { scaleService } from './swarm-containers.ts';
import { failedContainers, rollBackService, waitForConvergence } from './swarm-convergence.ts';
import { type Deployment, describeSwarmPlan, observeSwarm, planSwarm, type SwarmPlan } from './swarm-plan.ts';
import type { PlannedSwitch, SwitchReport } from './switching.ts';
import { fetchRelease, type TargetCheck } from './target.ts';

/** A switch on a swarm, planned and checked. @throws TaskError with every problem */
export async function swarmSwitch(
  project: Project,
  active: ActiveEnvironment,
  prodTag: string | undefined,
): Promise<PlannedSwitch> {
  const plan = await planSwarm(project, active, prodTag);
  return {
    steps: describeSwarmPlan(plan),
    warnings: [],
    run: (waitSeconds) => runSwarm(project, plan, waitSeconds),
    observe: () => observeSwarm(project),
  };
}

/** @throws TaskError after the swarm was told to go back; .env is then as it was */
async function runSwarm(
  project: Project,
  plan: SwarmPlan,
  waitSeconds: number | undefined,
): Promise<SwitchReport> {
  const report: SwitchReport = { phases: {}, gaps: {} };
  const { active, prodTag } = plan.check.target;
  const details = {
    from: plan.scene.observed.active,
    to: active,
    ...report,
    ...(prodTag ? { prod: prodTag } : {}),
  };
  await withHistory(project.root, 'switch', details, () =>
    whileProbing(session.dryRun ? {} : plan.scene.addresses, report.gaps, () =>
      carryOut(project, plan, report, waitSeconds),
    ),
  );
  return report;
}

async function carryOut(
  project: Project,
  plan: SwarmPlan,
  { phases }: SwitchReport,
  waitSeconds: number | undefined,
): Promise<void> {
  const { check, scene, deployments, stops } = plan;
  const { target, images } = check;
  const begun: Deployment[] = [];
  try {
    if (target.fetch && target.prodTag) {
      const step = { kind: 'fetch' as const, tag: target.prodTag, by: target.fetch };
      await timed(phases, 'fetch', () => fetchRelease(project, step, target, images));
    }
    for (const deployment of deployments) {
      begun.push(deployment);
      await timed(phases, `deploy ${deployment.name}`, () =>
        deploy(project, scene, check, deployment, waitSeconds),
      );
    }
    for (const name of stops) {
      log.step(`stop ${name}`);
      await timed(phases, `stop ${name}`, () => scaleService(project, name, 0));
    }
    await uninterrupted(() => remember(project, check));
  } catch (error) {
    await uninterrupted(() => afterFailure(error, () => goBack(project, plan, begun)));
    throw error;
  }
}

async function deploy(
  project: Project,
  scene: Scene,
  { images }: TargetCheck,
  { name, stack, reason, replaces }: Deployment,
  waitSeconds: number | undefined,
): Promise<void> {
  log.step(`deploy ${name}: ${reason}`);
  const seconds = waitSeconds ?? project.environments[name].start_timeout;
  try {
    const failedBefore = await failedContainers(project, name);
    await deployStack(project, stack);
    if (session.dryRun) return;
    await waitForConvergence(project, name, { seconds, failedBefore, replaces });
    const expected = expectedHealth(name, images[name]);
    const wait = { keys: project.health, expected, timeoutSeconds: seconds, givenUp: async () => undefined };
    await waitForHealth({ ...scene.addresses[name], ...wait });
    log.done(`${name} is healthy`);
  } catch (error) {
    throw await startFailure(name, '', error);
  }
}

async function remember(project: Project, { target }: TargetCheck): Promise<void> {
  await updateDotenv(project.root, {
    [variableName(project, 'ACTIVE_ENV')]: target.active,
    ...(target.prodTag ? { [variableName(project, 'PROD_TAG')]: target.prodTag } : {}),
  });
}

/** @throws TaskError, after everything was tried, where something does not answer as it did before */
async function goBack(
  project: Project,
  { scene, services, answering, stops }: SwarmPlan,
  begun: readonly Deployment[],
): Promise<void> {
  const acts = [
    ...begun.map(({ name }) => [name, () => rollBackService(project, name, services[name])] as const),
    ...stops.map((name) => [name, () => scaleService(project, name, services[name]?.replicas ?? 1)] as const),
  ];
  const failures: string[] = [];
  for (const [name, act] of acts) {
    log.step(`bring ${name} back`);
    try {
      await act();
      if (answering.includes(name)) await waitForAnswer(name, scene.addresses[name]);
    } catch (error) {
      failures.push(`${name}: ${errorSummary(error)}`);
    }
  }
  verifyRestored(failures, 'see: docker service ls; then switch again');
}
