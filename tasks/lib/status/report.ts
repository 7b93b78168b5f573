// The whole status, made of its parts: what runs, what was measured, and what is not well.

import type { BackupReport, Problem } from '../backup/report.ts';
import type { Container } from '../docker/objects.ts';
import { ago, amount, duration, percent } from '../format.ts';
import type { HistoryEntry } from '../history.ts';
import { paint } from '../log.ts';
import {
  ENVIRONMENTS,
  type EnvironmentName,
  imageReference,
  type Project,
  portOf,
  variable,
} from '../project.ts';
import { type ReleaseTag, releasedDigests } from '../release/record.ts';
import { activeEnvironment, type EnvironmentState, isHealthy, type Observation } from '../switch/observe.ts';
import { byHour, DAY, HOUR, hourStart, type SampleLog, withoutFuture } from '../uptime.ts';
import type { StatusFacts } from './facts.ts';

type Environments = StatusReport['environments'];

function problemsOf({ engineError, backup }: StatusFacts, { dev, prod }: Environments): Problem[] {
  const down = engineError
    ? [{ code: engineError.code, message: engineError.message, hint: engineError.hint ?? '' }]
    : [];
  return [...down, ...dev.problems, ...prod.problems, ...(backup.problem ? [backup.problem] : [])];
}

function notesOf({ backup }: StatusFacts, { dev, prod }: Environments): string[] {
  const none = !backup.report.at && !backup.problem;
  return [...notesOn(dev), ...notesOn(prod), ...(none ? ['there is no backup yet: npm run backup'] : [])];
}

/** Pure: the same facts always give the same report. */
export function reportStatus(project: Project, facts: StatusFacts): StatusReport {
  const { at, observation, engineError, history, samples, data, backup } = facts;
  const environments = {
    dev: reportEnvironment(project, facts, 'dev'),
    prod: reportEnvironment(project, facts, 'prod'),
  };
  const uptime = uptimeOf(samples, at.getTime());
  const { message = null, hint = null } = engineError ?? {};
  return {
    at: at.toISOString(),
    engine: { running: engineError === undefined, message, hint },
    active: observation?.active ?? activeEnvironment(project),
    prodTag: variable(project, 'PROD_TAG') ?? null,
    environments,
    lastSwitch: lastSwitch(history),
    data: { directory: data.directory, bytes: data.bytes ?? null },
    backup: backup.report,
    measures: measuresOf(facts, uptime, project.release.tag_prefix),
    uptime,
    problems: problemsOf(facts, environments),
    notes: notesOf(facts, environments),
  };
}

function notesOn({ name, active, mood, dirty, outdated, memory }: EnvironmentReport): string[] {
  const running = mood === 'healthy' || mood === 'starting';
  return [
    ...(mood === 'starting' ? [`${name} is still starting`] : []),
    ...(running && !active ? [`${name} runs although .env does not name it as active`] : []),
    ...(dirty && name === 'dev' ? ['dev runs a build with uncommitted changes'] : []),
    ...(outdated
      ? [`the compose configuration changed since ${name} was made: npm run switch applies it`]
      : []),
    ...(running && !memory ? [`the engine does not count ${name}'s memory: see npm run doctor`] : []),
  ];
}

// What a status page tells, as data: filled by the reports, printed as text, as JSON and as a page.

type Mood = 'healthy' | 'starting' | 'unhealthy' | 'crash-looping' | 'stopped' | 'absent' | 'unknown';

export interface EnvironmentReport {
  name: EnvironmentName;
  /** Meant to run, as .env says. */
  active: boolean;
  mood: Mood;
  /** Docker's word for the container's state. */
  state: string | null;
  container: string | null;
  url: string;
  port: number;
  version: string | null;
  image: string | null;
  /** `sha256:…` of what really runs. */
  digest: string | null;
  /** The release whose image that is. */
  releasedAs: string | null;
  revision: string | null;
  /** Built from a working tree with uncommitted changes. */
  dirty: boolean;
  /** Key path → value of the configuration in force, as /health tells it. */
  config: Record<string, unknown>;
  /** Made before the compose configuration was changed. */
  outdated: boolean;
  uptimeSeconds: number | null;
  restarts: number | null;
  /** Bytes; a limit of null: none was set. */
  memory: { bytes: number; limit: number | null; peak: number | null } | null;
  /** Of one CPU. */
  cpuPercent: number | null;
  problems: Problem[];
}

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

interface LastSwitch {
  at: string;
  from: string | null;
  to: string | null;
  prod: string | null;
  seconds: number;
  outcome: string;
  phases: Record<string, number>;
  /** Seconds in which an environment did not answer, where that was measured. */
  silences: Record<string, number>;
}

export interface StatusReport {
  at: string;
  engine: { running: boolean; message: string | null; hint: string | null };
  active: string;
  prodTag: string | null;
  environments: Record<EnvironmentName, EnvironmentReport>;
  lastSwitch: LastSwitch | null;
  data: { directory: string; bytes: number | null };
  backup: BackupReport;
  measures: Measure[];
  uptime: Uptime;
  problems: Problem[];
  /** Worth knowing, nothing wrong. */
  notes: string[];
}

// What is not well, in words, each with what to do about it. Pure; the list decides status's exit code.

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

// One environment as a status page tells it: pure, from what was looked up, so that every situation can be tested
// without producing it.

/** So many restarts, the last one so recently: it does not stay up. */
const LOOP = { restarts: 3, seconds: 60 };

export function moodOf(state: EnvironmentState, at: Date): Mood {
  const { container } = state;
  if (!container) return 'absent';
  const age = (at.getTime() - Date.parse(container.startedAt)) / 1000;
  const loops = container.restarts >= LOOP.restarts && age < LOOP.seconds;
  if (container.state === 'restarting' || (container.state === 'running' && loops)) return 'crash-looping';
  if (container.state !== 'running') return 'stopped';
  if (isHealthy(state)) return 'healthy';
  return container.health === 'starting' ? 'starting' : 'unhealthy';
}

function text(value: unknown): string | null {
  return typeof value === 'string' ? value : null;
}

/** The release that an image is, preferring the one that its name says. */
function releaseOf(releases: readonly ReleaseTag[], digest: string, tag: string): ReleaseTag | undefined {
  const matching = releases.filter(({ record }) => record && releasedDigests(record).includes(digest));
  return matching.find(({ name }) => name === tag) ?? matching.at(-1);
}

/** What the container itself tells. */
function containerPart(facts: StatusFacts, name: EnvironmentName, container: Container) {
  const { image, imageId, state, startedAt, restarts, memoryLimit } = container;
  const usage = facts.usages[name];
  const age = Math.max(0, Math.round((facts.at.getTime() - Date.parse(startedAt)) / 1000));
  const limit = usage && memoryLimit ? usage.limit : null;
  return {
    state,
    image,
    digest: imageId,
    releasedAs: releaseOf(facts.releases, imageId, tagOf(image))?.name ?? null,
    uptimeSeconds: state === 'running' ? age : null,
    restarts,
    memory: usage ? { bytes: usage.memory, limit, peak: usage.peak ?? null } : null,
    cpuPercent: facts.cpu[name] ?? null,
  };
}

/** What its answer to /health tells. */
function healthPart(project: Project, body: Record<string, unknown>) {
  const revision = text(body[project.health.revision ?? '']);
  return {
    version: text(body[project.health.version ?? '']),
    revision,
    dirty: revision?.endsWith('-dirty') ?? false,
    config: configInForce(project, body),
  };
}

function reportEnvironment(project: Project, facts: StatusFacts, name: EnvironmentName): EnvironmentReport {
  const { observation } = facts;
  if (!observation) return unknownEnvironment(project, name);
  const state = observation.environments[name];
  const { container, containerName, url, port, outdated } = state;
  const report: EnvironmentReport = {
    ...unknownEnvironment(project, name),
    ...(container ? containerPart(facts, name, container) : {}),
    ...healthPart(project, state.health?.body ?? {}),
    active: isActive(observation, name),
    mood: moodOf(state, facts.at),
    container: containerName,
    url,
    port,
    outdated,
  };
  const { prodTag } = observation;
  const wanted = name === 'prod' && prodTag ? imageReference(project, prodTag) : undefined;
  return { ...report, problems: environmentProblems(report, state, wanted) };
}

export function isActive({ active }: Pick<Observation, 'active'>, name: EnvironmentName): boolean {
  return active === 'both' || active === name;
}

function tagOf(reference: string): string {
  return reference.slice(reference.lastIndexOf(':') + 1);
}

function configInForce(project: Project, body: Record<string, unknown>): Record<string, unknown> {
  const told = Object.entries(project.health.config).filter(([key]) => body[key] !== undefined);
  return Object.fromEntries(told.map(([key, path]) => [path, body[key]]));
}

/** What is known of an environment without an engine. */
function unknownEnvironment(project: Project, name: EnvironmentName): EnvironmentReport {
  return {
    name,
    active: isActive({ active: activeEnvironment(project) }, name),
    mood: 'unknown',
    state: null,
    container: null,
    url: `http://127.0.0.1:${portOf(project, name)}`,
    port: portOf(project, name),
    version: null,
    image: null,
    digest: null,
    releasedAs: null,
    revision: null,
    dirty: false,
    config: {},
    outdated: false,
    uptimeSeconds: null,
    restarts: null,
    memory: null,
    cpuPercent: null,
    problems: [],
  };
}

// The success measures with their present values: pure, from history, samples and what runs now.

/** What the project promises: seconds, seconds, bytes. */
export const AIMS = { switch: 30, deploy: 300, memory: 3 * 1024 ** 3 } as const;

const isSwitch = ({ task }: HistoryEntry) => task === 'switch';

export function lastSwitch(history: readonly HistoryEntry[]): LastSwitch | null {
  const entry = history.findLast(isSwitch);
  if (!entry) return null;
  const { at, from, to, prod = null, seconds, outcome, phases = {}, gaps = {} } = entry;
  const silences = Object.entries(gaps).filter(([name]) => name === 'dev' || name === 'prod');
  return {
    at,
    from,
    to,
    prod,
    seconds,
    outcome,
    phases,
    silences: Object.fromEntries(silences.map(([name, milliseconds]) => [name, milliseconds / 1000])),
  };
}

/** Seconds of the switches that succeeded, oldest first, at most the last `count`. */
export function switchTimes(history: readonly HistoryEntry[], count = 30): { at: string; seconds: number }[] {
  return history.filter((entry) => isSwitch(entry) && entry.outcome === 'done').slice(-count);
}

/**
 * From commit to running: the last release plus the switch that first brought it to prod, or what the last
 * release took if none did yet.
 */
export function deployTime(
  history: readonly HistoryEntry[],
  prefix: string,
): { seconds: number; note: string } | null {
  const done = history.filter(({ outcome }) => outcome === 'done');
  const index = done.findLastIndex(({ task }) => task === 'release');
  const release = done[index];
  if (!release) return null;
  const tag = `${prefix}${release.to}`;
  const brought = done.slice(index + 1).find((entry) => isSwitch(entry) && entry.prod === tag);
  const seconds = release.seconds + (brought?.seconds ?? 0);
  return {
    seconds,
    note: brought ? `release and switch of ${tag}` : `release of ${tag}, not switched to yet`,
  };
}

/** The highest memory of any environment: the kernel's mark where it is told, else the highest sample. */
function peakMemory(facts: StatusFacts): { bytes: number | null; note: string } {
  const marks = Object.values(facts.usages).map(({ peak, memory }) => ({
    bytes: peak ?? memory,
    kernel: peak !== undefined,
  }));
  const sampled = byHour(facts.samples, +facts.at).flatMap(({ memory }) => Object.values(memory ?? {}));
  const all = [...marks, ...sampled.map((bytes) => ({ bytes, kernel: false }))];
  const top = all.sort((a, b) => b.bytes - a.bytes)[0];
  if (!top) return { bytes: null, note: 'nothing runs, nothing was sampled' };
  return {
    bytes: top.bytes,
    note: top.kernel ? 'highest since the container started, page cache included' : 'highest sample',
  };
}

/** Aims that a value has to stay below. */
function below(id: 'switch' | 'deploy' | 'memory', value: number | null, note: string): Measure {
  const aim = AIMS[id];
  const title = id === 'memory' ? 'peak memory' : id;
  const unit = id === 'memory' ? 'bytes' : 'seconds';
  return { id, title, value, aim, unit, reached: value === null ? null : value < aim, note };
}

function measuresOf(facts: StatusFacts, uptime: Uptime, prefix: string): Measure[] {
  const last = switchTimes(facts.history, 1)[0];
  const deploy = deployTime(facts.history, prefix);
  const peak = peakMemory(facts);
  const { ratio, aim, days } = uptime;
  const reached = ratio === null ? null : ratio >= aim;
  return [
    below('switch', last?.seconds ?? null, last ? '' : 'no switch yet'),
    below('deploy', deploy?.seconds ?? null, deploy?.note ?? 'no release yet'),
    below('memory', peak.bytes, peak.note),
    {
      id: 'uptime',
      title: `prod uptime, ${days} d`,
      value: ratio,
      aim,
      unit: 'ratio',
      reached,
      note: describeBudget(uptime),
    },
  ];
}

/** How much of the error budget is left, and how much of the window was measured at all. */
function describeBudget({ ratio, budget, up, down, off, unknown }: Uptime): string {
  if (ratio === null) return 'not measured yet: schedule `npm run status -- --record` (see --help)';
  const left =
    budget.left >= 0
      ? `error budget left: ${duration(budget.left)} of ${duration(budget.allowed)}`
      : `error budget overspent by ${duration(-budget.left)}`;
  return `${left}; measured ${percent((up + down + off) / (up + down + off + unknown))} of the time`;
}

/** `3.6 s`, `55 MB`, `99.98 %`. */
export function describeMeasure(value: number | null, unit: Measure['unit']): string {
  if (value === null) return '–';
  if (unit === 'bytes') return amount(value);
  return unit === 'ratio' ? percent(value) : duration(value);
}

// The error budget: how much downtime the aim allows in a window, and what is left of it. Pure.

const WINDOW_DAYS = 30;
/** Of the time that prod is meant to run. */
const UPTIME_AIM = 0.999;

interface Uptime {
  days: number;
  aim: number;
  /** Seconds within the window. */
  up: number;
  down: number;
  /** Not meant to run. */
  off: number;
  /** Not measured. */
  unknown: number;
  /** up / (up + down), or null when nothing was measured. */
  ratio: number | null;
  /** Seconds of downtime that the aim allows in the whole window, and what is left; negative: overspent. */
  budget: { allowed: number; left: number };
}

const tenth = (seconds: number) => Math.round(seconds * 10) / 10;

/**
 * The last `days` days up to `now`. The budget is that of the whole window, however little of it was measured;
 * an hour on the window's border counts by its part inside.
 */
export function uptimeOf(log: SampleLog, now: number, days = WINDOW_DAYS, aim = UPTIME_AIM): Uptime {
  const start = now - days * DAY;
  const total = { up: 0, down: 0, off: 0 };
  for (const row of byHour(withoutFuture(log, now), now)) {
    const from = hourStart(row);
    const share = Math.min(1, Math.max(0, (from + HOUR - start) / HOUR));
    for (const state of ['up', 'down', 'off'] as const) total[state] += row[state] * share;
  }
  const { up, down, off } = total;
  const window = (days * DAY) / 1000;
  const allowed = (1 - aim) * (window - off);
  return {
    days,
    aim,
    up: tenth(up),
    down: tenth(down),
    off: tenth(off),
    unknown: tenth(Math.max(0, window - up - down - off)),
    ratio: up + down > 0 ? up / (up + down) : null,
    budget: { allowed: tenth(allowed), left: tenth(allowed - down) },
  };
}

// The status as one screen of text.

const MOOD_COLOUR = {
  healthy: 'green',
  starting: 'yellow',
  stopped: 'dim',
  absent: 'dim',
  unknown: 'dim',
} as const;
const colour = (style: Parameters<typeof paint>[0], text: string) => paint(style, text, process.stdout);
const label = (text: string) => `      ${text.padEnd(8)}`;

function describeEnvironment(report: EnvironmentReport): string[] {
  const { name, active, mood, version, revision, dirty, url } = report;
  const style = MOOD_COLOUR[mood as keyof typeof MOOD_COLOUR] ?? 'red';
  const commit = revision ? `commit ${revision.slice(0, 7)}${dirty ? ', dirty' : ''}` : '';
  const facts = [version ?? '', commit, mood === 'absent' ? '' : url].filter(Boolean);
  const title = `  ${active ? '*' : ' '} ${colour('bold', name.padEnd(5))} ${colour(style, mood.padEnd(13))} ${facts.join('  ')}`;
  if (report.image === null) return [title.trimEnd()];
  const released = report.releasedAs ? `released as ${report.releasedAs}` : 'not a released image';
  return [
    title,
    `${label('image')}${report.image}  ${short(report.digest)}  ${released}`,
    ...configLine(report),
    ...runningLine(report),
  ];
}

function configLine({ config, outdated }: EnvironmentReport): string[] {
  const values = Object.entries(config).map(([path, value]) => `${path} ${String(value)}`);
  if (values.length === 0) return [];
  return [`${label('config')}${values.join(' · ')}${outdated ? ' (changed since)' : ''}`];
}

function runningLine({ uptimeSeconds, restarts, memory, cpuPercent }: EnvironmentReport): string[] {
  if (uptimeSeconds === null) return [];
  const parts = [`for ${duration(uptimeSeconds)}, ${restarts} restarts`];
  if (memory) {
    const peak = memory.peak === null ? '' : ` (peak ${amount(memory.peak)})`;
    parts.push(
      `memory ${amount(memory.bytes)}${memory.limit === null ? ', no limit' : ` of ${amount(memory.limit)}`}${peak}`,
    );
  }
  if (cpuPercent !== null) parts.push(`CPU ${cpuPercent} %`);
  return [`${label('runs')}${parts.join(' · ')}`];
}

function describeLastSwitch({ lastSwitch: last, at }: StatusReport): string[] {
  if (!last) return ['none yet'];
  const phases = Object.entries(last.phases).map(([name, seconds]) => `${name} ${seconds.toFixed(1)}`);
  const what = `${last.from} → ${last.to}${last.prod ? `, prod ${last.prod}` : ''}`;
  const outcome = last.outcome === 'done' ? '' : `, ${last.outcome}`;
  return [
    `${what}, ${ago(last.at, new Date(at))}, took ${duration(last.seconds)}${outcome}`,
    ...(phases.length > 0 ? [phases.join(', ')] : []),
    ...describeSilences(last),
  ];
}

/** In words; nothing where nobody was silent. */
export function describeSilences({ silences }: Pick<LastSwitch, 'silences'>): string[] {
  const parts = Object.entries(silences).filter(([, seconds]) => seconds > 0);
  if (parts.length === 0) return [];
  return [parts.map(([name, seconds]) => `${name} did not answer for ${seconds.toFixed(2)} s`).join(', ')];
}

function describeBackup({ backup, at }: StatusReport): string {
  const last = backup.at
    ? `${ago(backup.at, new Date(at))}${backup.name ? `, ${backup.name}` : ''}`
    : 'none yet';
  return `${last}${backup.overdue ? ', overdue' : ''}${backup.failure ? `; the last attempt failed: ${backup.failure}` : ''}`;
}

function describeAim({ aim, unit }: Measure): string {
  return `${unit === 'ratio' ? '≥' : '<'} ${describeMeasure(aim, unit)}`;
}

function describeMeasureRow(measure: Measure): string {
  const { title, value, unit, reached, note } = measure;
  const mark = reached === null ? ' ' : reached ? colour('green', '✓') : colour('red', '✗');
  const columns = `  ${title.padEnd(18)}${describeMeasure(value, unit).padEnd(10)}${describeAim(measure).padEnd(10)}`;
  return `${columns} ${mark}  ${note}`.trimEnd();
}

export function describeStatus(project: Project, report: StatusReport): string {
  const { active, prodTag, engine, data, problems, notes } = report;
  const title = `${project.project.name}: active ${active}${prodTag ? `, prod runs ${prodTag}` : ''}`;
  return [
    colour('bold', title),
    ...(engine.running ? ENVIRONMENTS.flatMap((name) => describeEnvironment(report.environments[name])) : []),
    '',
    ...describeLastSwitch(report).map(
      (line, index) => `${index === 0 ? 'last switch  ' : ' '.repeat(13)}${line}`,
    ),
    `data         ${data.directory}, ${data.bytes === null ? 'size unknown' : amount(data.bytes)}`,
    `last backup  ${describeBackup(report)}`,
    '',
    `  ${'measure'.padEnd(18)}${'now'.padEnd(10)}aim`,
    ...report.measures.map(describeMeasureRow),
    ...(problems.length + notes.length > 0 ? [''] : []),
    ...problems.map(
      ({ message, hint }) =>
        `${colour('red', '✗')} ${message}${hint ? `\n  hint: ${hint.replaceAll('\n', '\n        ')}` : ''}`,
    ),
    ...notes.map((note) => `${colour('yellow', '!')} ${note}`),
  ].join('\n');
}
