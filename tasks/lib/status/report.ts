// What runs, how healthy it is, and how that compares with the success measures: the report as data, with each problem
// and what to do about it. Pure.

import { activeEnvironment, isActive, stopCommand, switchCommand } from '../active.ts';
import type { Problem } from '../backup/report.ts';
import type { Container } from '../docker/objects.ts';
import { ago, duration, percent } from '../format.ts';
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
import { type ReleaseTag, releasedDigests } from '../release/record.ts';
import type { InterruptedRun } from '../steps.ts';
import { type EnvironmentState, isHealthy, unhealthyReason } from '../switch/observe.ts';
import { byHour, byPeriod, DAY, HOUR, type Uptime, uptimeOf } from '../uptime.ts';
import type { StatusFacts } from './facts.ts';

export type StatusReport = ReturnType<typeof reportStatus>;
export type EnvironmentReport = ReturnType<typeof reportEnvironment>;

/** Pure: the same facts always give the same report. */
export function reportStatus(project: Project, facts: StatusFacts) {
  const { at, engineError, history, samples, backup } = facts;
  const environments = {
    dev: reportEnvironment(project, facts, 'dev'),
    prod: reportEnvironment(project, facts, 'prod'),
  };
  const { dev, prod } = environments;
  const uptime = uptimeOf(samples, at.getTime());
  const { code = '', message = null, hint = null } = engineError ?? {};
  const down: Problem[] = message === null ? [] : [{ code, message, hint: hint ?? '' }];
  const noBackup = !backup.report.at && !backup.problem;
  const interrupted = facts.interrupted.map((run) => interruptedProblem(run, at));
  return {
    at: at.toISOString(),
    engine: { running: !engineError, message, hint },
    active: activeEnvironment(project),
    prodTag: variable(project, 'PROD_TAG') ?? null,
    environments,
    lastSwitch: lastSwitch(history),
    data: { directory: dataDirectory(project), bytes: facts.dataBytes ?? null },
    backup: backup.report,
    measures: measuresOf(facts, uptime, project.release.tag_prefix),
    uptime,
    problems: [
      ...down,
      ...interrupted,
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

/** The release that an image is, preferring the one that its name says. */
function releaseOf(releases: readonly ReleaseTag[], { imageId, image }: Container): string | null {
  const matching = releases.filter(({ record }) => record && releasedDigests(record).includes(imageId));
  return (matching.find(({ name }) => name === tagOf(image)) ?? matching.at(-1))?.name ?? null;
}

function reportEnvironment(project: Project, facts: StatusFacts, name: EnvironmentName) {
  const seen = describeFacts(project, facts, name);
  return { ...seen, problems: environmentProblems(project, facts, seen) };
}

function describeFacts(project: Project, facts: StatusFacts, name: EnvironmentName) {
  const { at, releases } = facts;
  const state = facts.observation?.environments[name];
  const { container, outdated = false } = state ?? {};
  const usage = facts.usages[name];
  const body = state?.health?.body ?? {};
  const keys = project.health;
  const revision = text(body[keys.revision ?? '']);
  const inForce = Object.entries(keys.config).filter(([key]) => body[key] !== undefined);
  const age = container && Math.round((at.getTime() - Date.parse(container.startedAt)) / 1000);
  const url = state?.url ?? `http://127.0.0.1:${portOf(project, name)}`;
  return {
    name,
    /** By .env. */
    active: isActive(project, name),
    health: environmentHealth(state, at),
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
    /** The release whose image that is. */
    releasedAs: container ? releaseOf(releases, container) : null,
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

/** From here on a container is about to be killed by its limit. */
const MEMORY_ALARM = 0.9;

export const shortDigest = (digest: string | null) => digest?.slice(0, 'sha256:'.length + 12) ?? 'no digest';

/** The running containers of an environment, whatever their names. */
function runningContainers({ containers }: StatusFacts, project: Project, name: EnvironmentName) {
  const { service } = project.environments[name];
  return containers.filter((one) => one.service === service && one.state === 'running');
}

type Add = (code: string, message: string, hint: string) => void;
type Seen = ReturnType<typeof describeFacts>;

function environmentProblems(project: Project, facts: StatusFacts, seen: Seen): Problem[] {
  const { name } = seen;
  const problems: Problem[] = [];
  const add: Add = (code, message, hint) => problems.push({ code, message, hint });
  const running = ENVIRONMENTS.filter((one) => runningContainers(facts, project, one).length > 0);
  const start = (version?: string) =>
    switchCommand(project, name, { running, ...(version ? { version } : {}) });
  checkRunning(project, facts, seen, { add, start, stop: stopCommand(project, name, running) });
  if (name === 'prod' && seen.image) checkImage(project, seen, seen.image, { add, start });
  return problems;
}

interface Hints {
  add: Add;
  start: (version?: string) => string;
  stop: string;
}

function checkRunning(project: Project, facts: StatusFacts, seen: Seen, { add, start, stop }: Hints): void {
  const { name, active, health, container, restarts, memory } = seen;
  const state = facts.observation?.environments[name];
  const logs = `see why: docker logs --tail 50 ${container}`;
  const isStopped = health === 'stopped' || health === 'absent';
  const serving = runningContainers(facts, project, name)[0];
  const other = state && serving && serving.name !== state.containerName && !facts.task ? serving.name : '';
  if (other) {
    const what = `${name} runs as container ${other} instead of ${state?.containerName}: a switch was interrupted`;
    add('other-container', what, `resume it: ${facts.interrupted[0]?.command ?? start()}`);
  } else if (active && isStopped && !serving) {
    const what = `${name} is active, but ${health === 'absent' ? 'has no container' : 'is stopped'}`;
    add('not-running', what, `start it: ${start()}; if it should not run: ${stop}`);
  } else if (!active && serving && !facts.task) {
    const what = `${name} runs but should not: .env names ${activeEnvironment(project)} as active`;
    add('should-not-run', what, `stop ${name}: ${stop}; keep it: ${start()}`);
  }
  if (health === 'crash-looping')
    add('crash-looping', `${name} keeps restarting: ${restarts} restarts`, logs);
  if (state && health === 'unhealthy') {
    const hint = `${logs}; restart it: docker restart ${container}`;
    add('unhealthy', `${name} is unhealthy: ${unhealthyReason(state)}`, hint);
  }
  if (memory?.limit && memory.bytes > MEMORY_ALARM * memory.limit) {
    const share = Math.round((100 * memory.bytes) / memory.limit);
    const hint = 'restart it, or raise the limit in .env and switch again';
    add('memory', `${name} uses ${share} % of its memory limit`, hint);
  }
}

/** Does prod run what was released, and the release that .env names? */
function checkImage(project: Project, seen: Seen, image: string, { add, start }: Omit<Hints, 'stop'>): void {
  const { active, digest, releasedAs, dirty, revision } = seen;
  const tag = variable(project, 'PROD_TAG');
  if (tagOf(image) !== releasedAs) {
    const what = `prod runs ${image} (${shortDigest(digest)}), which was not released under that name`;
    const hint = `run a release: ${start(tag ?? 'latest-release')}; what was changed: npm run doctor`;
    add('not-released', what, hint);
  }
  if (active && tag && image !== imageReference(project, tag)) {
    const what = `prod runs ${image}, but .env names ${imageReference(project, tag)}`;
    add('other-release', what, `switch to it: ${start()}`);
  }
  if (dirty) {
    const what = `prod runs a build with uncommitted changes (${revision})`;
    add('dirty', what, `run a release: ${start('latest-release')}`);
  }
}

export function interruptedProblem({ task, command, at, step, error }: InterruptedRun, now: Date): Problem {
  const code = 'interrupted';
  if (error) return { code, message: error.message, hint: error.hint ?? '' };
  const when = at ? ` ${ago(at, now)}` : '';
  const message = `${task} was interrupted${when}${step ? ` at "${step}"` : ''}`;
  return { code, message, hint: `resume it: ${command}` };
}

function notesOn(project: Project, report: EnvironmentReport, latest?: string): string[] {
  const { name, health, dirty, outdated, memory, digest } = report;
  const runs = health === 'healthy' || health === 'starting';
  const apply = switchCommand(project, name);
  return [
    ...(health === 'starting' ? [`${name} is still starting`] : []),
    ...(dirty && name === 'dev' ? ['dev runs a build with uncommitted changes'] : []),
    ...(outdated ? [`the compose configuration changed since ${name} was made; apply it: ${apply}`] : []),
    ...(runs && latest && digest !== latest
      ? [`dev does not run the current latest image; update it: ${apply}`]
      : []),
    ...(runs && !memory ? [`the engine does not report ${name}'s memory: see npm run doctor`] : []),
  ];
}

// The success measures with their present values.

/** A success measure with its present value. */
export interface Measure {
  id: 'switch' | 'deploy' | 'memory' | 'uptime';
  title: string;
  /** Seconds, bytes, or a ratio; null before the first measurement. */
  value: number | null;
  aim: number;
  unit: 'seconds' | 'bytes' | 'ratio';
  /** Null before the first measurement. */
  reached: boolean | null;
  note: string;
}

/** Seconds, seconds, bytes. */
export const AIMS = { switch: 30, deploy: 300, memory: 3e9 } as const;

function measuresOf(facts: StatusFacts, uptime: Uptime, prefix: string): Measure[] {
  const switched = facts.history.findLast((entry) => isSwitch(entry) && entry.outcome === 'done');
  const deploy = deployTime(facts.history, prefix);
  const peak = peakMemory(facts);
  const { ratio, aim, days } = uptime;
  const below = (id: keyof typeof AIMS, title: string, value: number | null, note: string): Measure => ({
    ...{ id, title, value, aim: AIMS[id], note, unit: id === 'memory' ? 'bytes' : 'seconds' },
    reached: value === null ? null : value < AIMS[id],
  });
  return [
    below('switch', 'switch', switched?.seconds ?? null, switched ? '' : 'no switch yet'),
    below('deploy', 'deploy', deploy.seconds, deploy.note),
    below('memory', 'peak memory', peak.bytes, peak.note),
    {
      ...{ id: 'uptime', title: `prod uptime, ${days} d`, value: ratio, aim, unit: 'ratio' },
      reached: ratio === null ? null : ratio >= aim,
      note: describeBudget(uptime),
    },
  ];
}

const isSwitch = ({ task }: HistoryEntry) => task === 'switch';

export function lastSwitch(history: readonly HistoryEntry[]) {
  const entry = history.findLast(isSwitch);
  if (!entry) return null;
  const { at, from, to, prod = null, seconds, outcome, phases = {}, gaps = {} } = entry;
  const isMeasured = ([name]: [string, number]) => name === 'dev' || name === 'prod';
  const downtimes = Object.entries(gaps).filter(isMeasured);
  const downtimeSeconds = Object.fromEntries(downtimes.map(([name, ms]) => [name, ms / 1000]));
  return { at, from, to, prod, seconds, outcome, phases, downtimeSeconds };
}

/**
 * From commit to running: the last release plus the switch that first brought it to prod, or what the last
 * release took if none did yet.
 */
export function deployTime(history: readonly HistoryEntry[], prefix: string) {
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
function peakMemory({ usages, samples, at }: StatusFacts) {
  const sampled = byHour(samples, +at).flatMap(({ memory }) => [memory?.dev ?? 0, memory?.prod ?? 0]);
  const marks = Object.values(usages);
  const kernel = Math.max(0, ...marks.flatMap(({ peak }) => peak ?? []));
  const seen = Math.max(0, ...sampled, ...marks.map(({ memory }) => memory));
  const bytes = Math.max(kernel, seen);
  if (bytes === 0) return { bytes: null, note: 'nothing runs, no samples' };
  const isKernel = kernel === bytes;
  return {
    bytes,
    note: isKernel ? 'highest since the container started, page cache included' : 'highest sample',
  };
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

const MEMORY_HOURS = 7 * 24;

/** Prod's last 24 hours and 30 days, the memory of a week hour by hour, and the last switches, failed ones too. */
export function seriesOf({ samples, history, at }: Pick<StatusFacts, 'samples' | 'history' | 'at'>) {
  const now = at.getTime();
  const used = new Map(byHour(samples, now).map(({ hour, memory }) => [hour, memory ?? {}]));
  const memory = Array.from({ length: MEMORY_HOURS }, (_, index) => {
    const hour = new Date(now - (MEMORY_HOURS - 1 - index) * HOUR).toISOString().slice(0, 13);
    return { at: `${hour}:00:00.000Z`, prod: used.get(hour)?.prod ?? null, dev: used.get(hour)?.dev ?? null };
  });
  return {
    hours: byPeriod(samples, now, HOUR, 24),
    days: byPeriod(samples, now, DAY, 30),
    memory: memory.slice(memory.findIndex(({ prod, dev }) => prod !== null || dev !== null)),
    switches: history.filter(isSwitch).slice(-30),
  };
}
