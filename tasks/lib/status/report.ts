// What runs, how healthy it is, and how that compares with the success measures: the report as data, with each problem
// and what to do about it. Pure.
import { activeEnvironment, isActive, stopCommand, switchCommand } from '../active.ts';
import type { Problem } from '../backup/report.ts';
import { duration, percent } from '../format.ts';
import type { HistoryEntry } from '../history.ts';
import {
  dataDirectory,
  ENVIRONMENTS,
  type EnvironmentName,
  imageReference,
  type Project,
  portOf,
  variable,
} from '../project.ts';
import { interruptedProblem } from '../steps.ts';
import { type EnvironmentState, isHealthy, unhealthyReason } from '../switch/observe.ts';
import { byHour, byPeriod, DAY, HOUR, type Uptime, uptimeOf } from '../uptime.ts';
import type { StatusFacts } from './facts.ts';

export type StatusReport = ReturnType<typeof reportStatus>;
export type EnvironmentReport = ReturnType<typeof reportEnvironment>;

/** The same facts always give the same report. */
export function reportStatus(project: Project, facts: StatusFacts) {
  const { at, engineError, history, samples, backup } = facts;
  const [dev, prod] = [reportEnvironment(project, facts, 'dev'), reportEnvironment(project, facts, 'prod')];
  const uptime = uptimeOf(samples, at.getTime());
  const { code = '', message = null, hint = null } = engineError ?? {};
  const noBackup = !backup.report.at && !backup.problem;
  return {
    at: at.toISOString(),
    engine: { running: !engineError, message, hint },
    active: activeEnvironment(project),
    prodTag: variable(project, 'PROD_TAG') ?? null,
    environments: { dev, prod },
    lastSwitch: lastSwitch(history),
    data: { directory: dataDirectory(project), bytes: facts.dataBytes ?? null },
    backup: backup.report,
    measures: measuresOf(facts, uptime, project.release.tag_prefix),
    uptime,
    problems: [
      ...(message === null ? [] : [{ code, message, hint: hint ?? '' }]),
      ...facts.interrupted.map((run) => interruptedProblem(run, at)),
      ...dev.problems,
      ...prod.problems,
      ...(backup.problem ? [backup.problem] : []),
    ],
    /** Worth knowing, nothing wrong. */
    notes: [
      ...notesOn(project, dev, facts.latest),
      ...notesOn(project, prod),
      ...(noBackup ? ['there is no backup yet: npm run backup'] : []),
    ],
  };
}

// One environment.

/** So many restarts, the last one so recently: a crash loop. */
const LOOP = { restarts: 3, seconds: 60 };

type Health = 'healthy' | 'starting' | 'unhealthy' | 'crash-looping' | 'stopped' | 'absent' | 'unknown';

function environmentHealth(state: EnvironmentState | undefined, at: Date): Health {
  const container = state?.container;
  if (!state) return 'unknown';
  if (!container) return 'absent';
  const age = (at.getTime() - Date.parse(container.startedAt)) / 1000;
  const loops = container.restarts >= LOOP.restarts && age < LOOP.seconds;
  if (container.state === 'restarting' || (container.state === 'running' && loops)) return 'crash-looping';
  if (container.state !== 'running') return 'stopped';
  if (isHealthy(state)) return 'healthy';
  return container.health === 'starting' ? 'starting' : 'unhealthy';
}

const text = (value: unknown) => (typeof value === 'string' ? value : null);
const tagOf = (reference: string) => reference.slice(reference.lastIndexOf(':') + 1);

function reportEnvironment(project: Project, facts: StatusFacts, name: EnvironmentName) {
  const seen = describeFacts(project, facts, name);
  const problems = [
    ...runningProblems(project, facts, seen),
    ...(name === 'prod' ? imageProblems(project, facts, seen) : []),
  ];
  return { ...seen, problems };
}

function describeFacts(project: Project, facts: StatusFacts, name: EnvironmentName) {
  const state = facts.observation?.environments[name];
  const { container, outdated = false } = state ?? {};
  const usage = facts.usages[name];
  const body = state?.health?.body ?? {};
  const keys = project.health;
  const revision = text(body[keys.revision ?? '']);
  const inForce = Object.entries(keys.config).filter(([key]) => body[key] !== undefined);
  const age = container && Math.round((facts.at.getTime() - Date.parse(container.startedAt)) / 1000);
  const url = state?.url ?? `http://127.0.0.1:${portOf(project, name)}`;
  // The release whose image it is, preferring the one that its name says.
  const releases = facts.releases.filter(({ digests }) => container && digests.includes(container.imageId));
  const release = releases.find((one) => container && one.name === tagOf(container.image));
  return {
    name,
    /** By .env. */
    active: isActive(project, name),
    health: environmentHealth(state, facts.at),
    /** Docker's word for the container's state. */
    state: container?.state ?? null,
    container: container?.name ?? state?.containerName ?? null,
    url,
    healthUrl: url + project.environments[name].health,
    port: portOf(project, name),
    version: text(body[keys.version ?? '']),
    image: container?.image ?? null,
    /** `sha256:…` of what really runs. */
    digest: container?.imageId ?? null,
    releasedAs: (release ?? releases.at(-1))?.name ?? null,
    revision,
    /** Built from a working tree with uncommitted changes. */
    dirty: revision?.endsWith('-dirty') ?? false,
    /** Key path → value of the configuration in force, as /health reports it. */
    config: Object.fromEntries(inForce.map(([key, path]) => [path, body[key]])),
    /** Made before the compose configuration was changed. */
    outdated,
    uptimeSeconds: container?.state === 'running' ? Math.max(0, age ?? 0) : null,
    restarts: container?.restarts ?? null,
    /** Bytes; a limit of null: none was set. */
    memory: usage
      ? { bytes: usage.memory, limit: container?.memoryLimit ? usage.limit : null, peak: usage.peak ?? null }
      : null,
    /** Of one CPU. */
    cpuPercent: facts.cpu[name] ?? null,
  };
}

// The problems, each with what to do about it; they decide status's exit code.

type Seen = ReturnType<typeof describeFacts>;
type Row = [isSo: boolean, code: string, message: string, hint: string];

const problemsOf = (rows: Row[]): Problem[] =>
  rows.flatMap(([isSo, code, message, hint]) => (isSo ? [{ code, message, hint }] : []));

/** From here on a container is about to be killed by its limit. */
const MEMORY_ALARM = 0.9;

export const shortDigest = (digest: string | null) => digest?.slice(0, 'sha256:'.length + 12) ?? 'no digest';

/** The running container of an environment, whatever its name. */
function servingContainer({ containers }: StatusFacts, project: Project, name: EnvironmentName) {
  const { service } = project.environments[name];
  return containers.find((one) => one.service === service && one.state === 'running');
}

/** The command that starts `name` and stops nothing that runs. */
function startCommand(project: Project, facts: StatusFacts, name: EnvironmentName, version?: string) {
  const running = ENVIRONMENTS.filter((one) => servingContainer(facts, project, one));
  return switchCommand(project, name, { running, ...(version ? { version } : {}) });
}

function runningProblems(project: Project, facts: StatusFacts, seen: Seen): Problem[] {
  const { name, active, health, container, restarts, memory } = seen;
  const { observation, interrupted } = facts;
  const state = observation?.environments[name];
  const isIdle = !facts.task;
  const running = ENVIRONMENTS.filter((one) => servingContainer(facts, project, one));
  const [start, stop] = [startCommand(project, facts, name), stopCommand(project, name, running)];
  const serving = servingContainer(facts, project, name);
  const other = isIdle && state && serving && serving.name !== state.containerName ? serving.name : undefined;
  const isStopped = health === 'stopped' || health === 'absent';
  const logs = `see why: docker logs --tail 50 ${container}`;
  const share = memory?.limit ? memory.bytes / memory.limit : 0;
  return problemsOf([
    [
      other !== undefined,
      'other-container',
      `${name} runs as container ${other} instead of ${state?.containerName}: a switch was interrupted`,
      `resume it: ${interrupted[0]?.command ?? start}`,
    ],
    [
      !other && active && isStopped && !serving,
      'not-running',
      `${name} is active, but ${health === 'absent' ? 'has no container' : 'is stopped'}`,
      `start it: ${start}; if it should not run: ${stop}`,
    ],
    [
      !other && !active && serving !== undefined && isIdle,
      'should-not-run',
      `${name} runs but should not: .env names ${activeEnvironment(project)} as active`,
      `stop ${name}: ${stop}; keep it: ${start}`,
    ],
    [health === 'crash-looping', 'crash-looping', `${name} keeps restarting: ${restarts} restarts`, logs],
    [
      health === 'unhealthy',
      'unhealthy',
      `${name} is unhealthy: ${state && unhealthyReason(state)}`,
      `${logs}; restart it: docker restart ${container}`,
    ],
    [
      share > MEMORY_ALARM,
      'memory',
      `${name} uses ${Math.round(100 * share)} % of its memory limit`,
      'restart it, or raise the limit in .env and switch again',
    ],
  ]);
}

/** Does prod run what was released, and the release that .env names? */
function imageProblems(project: Project, facts: StatusFacts, seen: Seen): Problem[] {
  const { name, active, image, digest, releasedAs, dirty, revision } = seen;
  if (!image) return [];
  const tag = variable(project, 'PROD_TAG');
  const named = imageReference(project, tag ?? '');
  const start = (version?: string) => startCommand(project, facts, name, version);
  return problemsOf([
    [
      tagOf(image) !== releasedAs,
      'not-released',
      `prod runs ${image} (${shortDigest(digest)}), which was not released under that name`,
      `run a release: ${start(tag ?? 'latest-release')}; what was changed: npm run doctor`,
    ],
    [
      active && tag !== undefined && image !== named,
      'other-release',
      `prod runs ${image}, but .env names ${named}`,
      `switch to it: ${start()}`,
    ],
    [
      dirty,
      'dirty',
      `prod runs a build with uncommitted changes (${revision})`,
      `run a release: ${start('latest-release')}`,
    ],
  ]);
}

function notesOn(project: Project, report: EnvironmentReport, latest?: string): string[] {
  const { name, health, dirty, outdated, memory, digest } = report;
  const runs = health === 'healthy' || health === 'starting';
  const apply = switchCommand(project, name);
  const rows: [isSo: boolean, note: string][] = [
    [health === 'starting', `${name} is still starting`],
    [dirty && name === 'dev', 'dev runs a build with uncommitted changes'],
    [outdated, `the compose configuration changed since ${name} was made; apply it: ${apply}`],
    [
      runs && latest !== undefined && digest !== latest,
      `dev does not run the current latest image; update it: ${apply}`,
    ],
    [runs && !memory, `the engine does not report ${name}'s memory: see npm run doctor`],
  ];
  return rows.flatMap(([isSo, note]) => (isSo ? [note] : []));
}

// The success measures with their present values.

/** Seconds, bytes, or a ratio; `value` and `reached` are null before the first measurement. */
export interface Measure {
  id: 'switch' | 'deploy' | 'memory' | 'uptime';
  title: string;
  value: number | null;
  aim: number;
  unit: 'seconds' | 'bytes' | 'ratio';
  reached: boolean | null;
  note: string;
}

function measuresOf(facts: StatusFacts, uptime: Uptime, prefix: string): Measure[] {
  const switched = facts.history.findLast((entry) => isSwitch(entry) && entry.outcome === 'done');
  const deploy = deployTime(facts.history, prefix);
  const { ratio, aim, days } = uptime;
  const measures: Omit<Measure, 'reached'>[] = [
    {
      ...{ id: 'switch', title: 'switch', value: switched?.seconds ?? null, aim: 30, unit: 'seconds' },
      note: switched ? '' : 'no switch yet',
    },
    { id: 'deploy', title: 'deploy', value: deploy.seconds, aim: 300, unit: 'seconds', note: deploy.note },
    { id: 'memory', title: 'peak memory', value: peakMemory(facts), aim: 3e9, unit: 'bytes', note: '' },
    {
      ...{ id: 'uptime', title: `prod uptime, ${days} d`, value: ratio, aim, unit: 'ratio' },
      note: describeBudget(uptime),
    },
  ];
  return measures.map((measure) => {
    const { value, aim, unit } = measure;
    return { ...measure, reached: value === null ? null : unit === 'ratio' ? value >= aim : value < aim };
  });
}

const isSwitch = ({ task }: HistoryEntry) => task === 'switch';

function lastSwitch(history: readonly HistoryEntry[]) {
  const entry = history.findLast(isSwitch);
  if (!entry) return null;
  const { at, from, to, prod = null, seconds, outcome, phases = {}, gaps = {} } = entry;
  const downtimes = ENVIRONMENTS.flatMap((name) =>
    gaps[name] === undefined ? [] : [[name, gaps[name] / 1000] as const],
  );
  return { at, from, to, prod, seconds, outcome, phases, downtimeSeconds: Object.fromEntries(downtimes) };
}

/**
 * From commit to running: the last release plus the switch that first brought it to prod, or what the last
 * release took if none did yet.
 */
function deployTime(history: readonly HistoryEntry[], prefix: string) {
  const done = history.filter(({ outcome }) => outcome === 'done');
  const index = done.findLastIndex(({ task }) => task === 'release');
  const release = done[index];
  if (!release) return { seconds: null, note: 'no release yet' };
  const tag = `${prefix}${release.to}`;
  const brought = done.slice(index + 1).find((entry) => isSwitch(entry) && entry.prod === tag);
  const note = brought ? `release and switch of ${tag}` : `release of ${tag}, not switched to yet`;
  return { seconds: release.seconds + (brought?.seconds ?? 0), note };
}

/** The highest memory of any environment: the kernel's mark where there is one, else the highest sample. */
function peakMemory({ usages, samples, at }: StatusFacts): number | null {
  const sampled = byHour(samples, +at).flatMap(({ memory }) => [memory?.dev ?? 0, memory?.prod ?? 0]);
  const marks = Object.values(usages).flatMap(({ peak, memory }) => [peak ?? 0, memory]);
  return Math.max(0, ...sampled, ...marks) || null;
}

/** How much of the error budget is left, and how much of the window was measured at all. */
function describeBudget({ ratio, budget, up, down, off, unknown }: Uptime): string {
  if (ratio === null) return 'not measured yet: schedule `npm run status -- --record` (see --help)';
  const left =
    budget.left >= 0
      ? `error budget left: ${duration(budget.left)} of ${duration(budget.allowed)}`
      : `error budget exceeded by ${duration(-budget.left)}`;
  return `${left}; measured ${percent((up + down + off) / (up + down + off + unknown))} of the time`;
}

// What the page draws beyond the report.

export type Series = ReturnType<typeof seriesOf>;

/** Prod's last 24 hours and 30 days, the memory of a week hour by hour, and the last switches, failed ones too. */
export function seriesOf({ samples, history, at }: Pick<StatusFacts, 'samples' | 'history' | 'at'>) {
  const week = byPeriod(samples, at.getTime(), HOUR, 7 * 24);
  const first = week.findIndex(({ memory }) => memory.dev !== undefined || memory.prod !== undefined);
  return {
    hours: week.slice(-24),
    days: byPeriod(samples, at.getTime(), DAY, 30),
    memory: first < 0 ? [] : week.slice(first),
    switches: history.filter(isSwitch).slice(-30),
  };
}
