// The status as one screen of text.
import { paint } from '../log.ts';
import { ENVIRONMENTS, type Project } from '../project.ts';
import { ago, amount, duration } from './format.ts';
import { describeMeasure } from './measures.ts';
import { short } from './problems.ts';
import type { EnvironmentReport, LastSwitch, Measure, StatusReport } from './reported.ts';

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
