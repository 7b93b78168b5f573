// The status report as one screen of text.
import { ago, duration, formatBytes, percent } from '../format.ts';
import { paint } from '../log.ts';
import { ENVIRONMENTS, type Project } from '../project.ts';
import { type EnvironmentReport, type Measure, type StatusReport, shortDigest } from './report.ts';

type Style = Parameters<typeof paint>[0];

const colour = (style: Style, text: string) => paint(style, text, process.stdout);
const label = (text: string) => `      ${text.padEnd(8)}`;

export function describeStatus(project: Project, report: StatusReport): string {
  const { active, prodTag, engine, data, problems, notes } = report;
  const environments = ENVIRONMENTS.flatMap((name) => describeEnvironment(report.environments[name]));
  return [
    colour('bold', `${project.project.name}: active ${active}${prodTag ? `, prod runs ${prodTag}` : ''}`),
    ...(engine.running ? environments : []),
    '',
    ...describeLastSwitch(report).map((line, index) => (index === 0 ? 'last switch' : '').padEnd(13) + line),
    `data         ${data.directory}, ${data.bytes === null ? 'size unknown' : formatBytes(data.bytes)}`,
    `last backup  ${describeBackup(report)}`,
    '',
    `  ${'measure'.padEnd(18)}${'now'.padEnd(10)}aim`,
    ...report.measures.map(describeMeasureRow),
    ...(problems.length + notes.length > 0 ? [''] : []),
    ...problems.map(({ message, hint }) => {
      const lines = hint ? `\n  hint: ${hint.replaceAll('\n', '\n        ')}` : '';
      return `${colour('red', '✗')} ${message}${lines}`;
    }),
    ...notes.map((note) => `${colour('yellow', '!')} ${note}`),
  ].join('\n');
}

/** Problems first; a missed target is no problem of the moment, and not well either. */
export function headline({ problems, measures }: StatusReport): string {
  const missed = measures.filter(({ reached }) => reached === false).length;
  const count = problems.length;
  if (count > 0) return count === 1 ? 'One thing needs attention' : `${count} things need attention`;
  if (missed > 0) return missed === 1 ? 'One target is missed' : `${missed} targets are missed`;
  return 'All is well';
}

const STYLES: Record<EnvironmentReport['health'], Style> = {
  healthy: 'green',
  starting: 'yellow',
  stopped: 'dim',
  absent: 'dim',
  unknown: 'dim',
  unhealthy: 'red',
  'crash-looping': 'red',
};

function describeEnvironment(report: EnvironmentReport): string[] {
  const { name, active, health, version, revision, dirty, url, config, outdated } = report;
  const commit = revision ? `commit ${revision.slice(0, 7)}${dirty ? ', dirty' : ''}` : '';
  const facts = [version ?? '', commit, health === 'absent' ? '' : url].filter(Boolean).join('  ');
  const state = colour(STYLES[health], health.padEnd(13));
  const title = `  ${active ? '*' : ' '} ${colour('bold', name.padEnd(5))} ${state} ${facts}`.trimEnd();
  if (report.image === null) return [title];
  const released = report.releasedAs ? `released as ${report.releasedAs}` : 'not a released image';
  const values = Object.entries(config).map(([path, value]) => `${path} ${String(value)}`);
  const changed = outdated ? ' (changed since)' : '';
  return [
    title,
    `${label('image')}${report.image}  ${shortDigest(report.digest)}  ${released}`,
    ...(values.length > 0 ? [`${label('config')}${values.join(' · ')}${changed}`] : []),
    ...(report.uptimeSeconds === null ? [] : [`${label('runs')}${describeRunning(report)}`]),
  ];
}

export function describeRunning({ uptimeSeconds, restarts, memory, cpuPercent }: EnvironmentReport): string {
  const limit = memory?.limit ? ` of ${formatBytes(memory.limit)}` : ', no limit';
  const peak = memory?.peak ? ` (peak ${formatBytes(memory.peak)})` : '';
  return [
    `for ${duration(uptimeSeconds ?? 0)}, ${restarts} restarts`,
    ...(memory ? [`memory ${formatBytes(memory.bytes)}${limit}${peak}`] : []),
    ...(cpuPercent === null ? [] : [`CPU ${cpuPercent} %`]),
  ].join(' · ');
}

/** What it was, how long each step took, and its downtime where there was any. */
export function describeLastSwitch({ lastSwitch: last, at }: StatusReport): string[] {
  if (!last) return ['none yet'];
  const what = `${last.from ?? 'none'} → ${last.to}${last.prod ? `, prod ${last.prod}` : ''}`;
  const outcome = last.outcome === 'done' ? '' : `, ${last.outcome}`;
  const phases = Object.entries(last.phases).map(([name, seconds]) => `${name} ${seconds.toFixed(1)} s`);
  const downtimes = Object.entries(last.downtimeSeconds)
    .filter(([, seconds]) => seconds > 0)
    .map(([name, seconds]) => `${name} ${duration(seconds)}`);
  return [
    `${what}, ${ago(last.at, new Date(at))}, took ${duration(last.seconds)}${outcome}`,
    ...(phases.length > 0 ? [phases.join(', ')] : []),
    ...(downtimes.length > 0 ? [`downtime: ${downtimes.join(', ')}`] : []),
  ];
}

export function describeBackup({ backup, at }: StatusReport): string {
  const name = backup.name ? `, ${backup.name}` : '';
  const last = backup.at ? `${ago(backup.at, new Date(at))}${name}` : 'none yet';
  const failure = backup.failure ? `; the last attempt failed: ${backup.failure}` : '';
  return `${last}${backup.overdue ? ', overdue' : ''}${failure}`;
}

function describeMeasureRow(measure: Measure): string {
  const { title, value, unit, reached, note } = measure;
  const mark = reached === null ? ' ' : reached ? colour('green', '✓') : colour('red', '✗');
  const columns = [title.padEnd(18), describeValue(value, unit).padEnd(10), describeAim(measure).padEnd(10)];
  return `  ${columns.join('')} ${mark}  ${note}`.trimEnd();
}

export function describeAim({ aim, unit }: Measure): string {
  return `${unit === 'ratio' ? '≥' : '<'} ${describeValue(aim, unit)}`;
}

/** `3.6 s`, `55 MB`, `99.98 %`. */
export function describeValue(value: number | null, unit: Measure['unit']): string {
  if (value === null) return '–';
  if (unit === 'bytes') return formatBytes(value);
  return unit === 'ratio' ? percent(value) : duration(value);
}
