// The status report in words: rows that the terminal and the page share, and the screen of text.
import { ago, duration, formatBytes, percent } from '../format.ts';
import { paint } from '../log.ts';
import { ENVIRONMENTS, type Project } from '../project.ts';
import { type EnvironmentReport, type Measure, type StatusReport, shortDigest } from './report.ts';

type Style = Parameters<typeof paint>[0];

const colour = (style: Style, text: string) => paint(style, text, process.stdout);

/** What is shown under a title; several lines where it is long. */
export type Row = [title: string, ...lines: string[]];

/** Problems first; a missed target is no problem of the moment, and not well either. */
export function headline({ problems, measures }: StatusReport): string {
  const missed = measures.filter(({ reached }) => reached === false).length;
  const count = problems.length;
  if (count > 0) return count === 1 ? 'One thing needs attention' : `${count} things need attention`;
  if (missed > 0) return missed === 1 ? 'One target is missed' : `${missed} targets are missed`;
  return 'All is well';
}

/** What an environment's container is, and how it runs; nothing without one. */
export function environmentRows(report: EnvironmentReport): Row[] {
  const { image, digest, releasedAs, config, outdated } = report;
  if (image === null) return [];
  const released = releasedAs ? `released as ${releasedAs}` : 'not a released image';
  const values = Object.entries(config).map(([path, value]) => `${path} ${String(value)}`);
  const rows: Row[] = [
    ['image', `${image}  ${shortDigest(digest)}  ${released}`],
    ['config', values.length > 0 ? values.join(' · ') + (outdated ? ' (changed since)' : '') : ''],
    ['runs', describeRunning(report)],
  ];
  return rows.filter(([, text]) => text !== '');
}

function describeRunning({ uptimeSeconds, restarts, memory, cpuPercent }: EnvironmentReport): string {
  if (uptimeSeconds === null) return '';
  const limit = memory?.limit ? ` of ${formatBytes(memory.limit)}` : ', no limit';
  const peak = memory?.peak ? ` (peak ${formatBytes(memory.peak)})` : '';
  return [
    `for ${duration(uptimeSeconds)}, ${restarts} restarts`,
    ...(memory ? [`memory ${formatBytes(memory.bytes)}${limit}${peak}`] : []),
    ...(cpuPercent === null ? [] : [`CPU ${cpuPercent} %`]),
  ].join(' · ');
}

/** `1.0.1  commit 27ff423, dirty`; empty where /health does not say. */
export function describeVersion({ version, revision, dirty }: EnvironmentReport): string {
  const commit = revision ? `commit ${revision.slice(0, 7)}${dirty ? ', dirty' : ''}` : '';
  return [version, commit].filter(Boolean).join('  ');
}

/** What belongs to no environment: the last switch with its steps and its downtime, the data, the last backup. */
export function projectRows({ lastSwitch: last, data, backup, at }: StatusReport): Row[] {
  const since = (time: string) => ago(time, new Date(at));
  const failure = backup.failure ? `; the last attempt failed: ${backup.failure}` : '';
  const made = backup.at ? `${since(backup.at)}, ${backup.name}` : 'none yet';
  const size = data.bytes === null ? 'size unknown' : formatBytes(data.bytes);
  return [
    ['last switch', ...(last ? describeSwitch(last, since(last.at)) : ['none yet'])],
    ['data', `${data.directory}, ${size}`],
    ['last backup', `${made}${backup.overdue ? ', overdue' : ''}${failure}`],
  ];
}

function describeSwitch(last: NonNullable<StatusReport['lastSwitch']>, when: string): string[] {
  const what = `${last.from ?? 'none'} → ${last.to}${last.prod ? `, prod ${last.prod}` : ''}`;
  const outcome = last.outcome === 'done' ? '' : `, ${last.outcome}`;
  const phases = Object.entries(last.phases).map(([name, seconds]) => `${name} ${seconds.toFixed(1)} s`);
  const gaps = Object.entries(last.downtimeSeconds).filter(([, seconds]) => seconds > 0);
  const downtime = gaps.map(([name, seconds]) => `${name} ${duration(seconds)}`).join(', ');
  const lines = [`${what}, ${when}, took ${duration(last.seconds)}${outcome}`, phases.join(', ')];
  return [...lines, downtime && `downtime: ${downtime}`].filter(Boolean);
}

/** `3.6 s`, `55 MB`, `99.98 %`. */
export function describeValue(value: number | null, unit: Measure['unit']): string {
  if (value === null) return '–';
  if (unit === 'bytes') return formatBytes(value);
  return unit === 'ratio' ? percent(value) : duration(value);
}

export function describeAim({ aim, unit }: Measure): string {
  return `${unit === 'ratio' ? '≥' : '<'} ${describeValue(aim, unit)}`;
}

// One screen of text.

export function describeStatus(project: Project, report: StatusReport): string {
  const { active, prodTag, engine, environments, measures, problems, notes } = report;
  return [
    colour('bold', `${project.project.name}: active ${active}${prodTag ? `, prod runs ${prodTag}` : ''}`),
    ...(engine.running ? ENVIRONMENTS.flatMap((name) => describeEnvironment(environments[name])) : []),
    '',
    ...projectRows(report).map(([title, ...lines]) => title.padEnd(13) + lines.join(`\n${' '.repeat(13)}`)),
    '',
    `  ${'measure'.padEnd(18)}${'now'.padEnd(10)}aim`,
    ...measures.map(describeMeasure),
    ...(problems.length + notes.length > 0 ? [''] : []),
    ...problems.map(({ message, hint }) => {
      const lines = hint ? `\n  hint: ${hint.replaceAll('\n', '\n        ')}` : '';
      return `${colour('red', '✗')} ${message}${lines}`;
    }),
    ...notes.map((note) => `${colour('yellow', '!')} ${note}`),
  ].join('\n');
}

const STYLES: Partial<Record<EnvironmentReport['health'], Style>> = {
  healthy: 'green',
  starting: 'yellow',
  unhealthy: 'red',
  'crash-looping': 'red',
};

function describeEnvironment(report: EnvironmentReport): string[] {
  const { name, active, health, image, url } = report;
  const state = colour(STYLES[health] ?? 'dim', health.padEnd(13));
  const facts = [describeVersion(report), image === null ? '' : url].filter(Boolean).join('  ');
  return [
    `  ${active ? '*' : ' '} ${colour('bold', name.padEnd(5))} ${state} ${facts}`.trimEnd(),
    ...environmentRows(report).map(([title, text]) => `      ${title.padEnd(8)}${text}`),
  ];
}

function describeMeasure(measure: Measure): string {
  const { title, value, unit, reached, note } = measure;
  const mark = reached === null ? ' ' : reached ? colour('green', '✓') : colour('red', '✗');
  const columns = [title.padEnd(18), describeValue(value, unit).padEnd(10), describeAim(measure).padEnd(10)];
  return `  ${columns.join('')} ${mark}  ${note}`.trimEnd();
}
