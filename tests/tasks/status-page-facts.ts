// Two reports to draw pages from: all is well for a month, and much is wrong on the first day.

import type { Project } from '../../tasks/lib/project.ts';
import type { Series } from '../../tasks/lib/status/page.ts';
import {
  type EnvironmentReport,
  type Measure,
  type StatusReport,
  uptimeOf,
} from '../../tasks/lib/status/report.ts';
import { byDay, byHour, type HourRow, type SampleLog } from '../../tasks/lib/uptime.ts';

const HOUR = 3_600_000;
const MEGABYTE = 2 ** 20;
const NOW = Date.parse('2026-11-24T21:30:00Z');
const at = new Date(NOW).toISOString();

/** The page reads the project's name alone. */
export const pageProject = { project: { name: 'synapse' } } as Project;

/** Twenty-two days, measured but for a night; ten bad minutes on the twentieth of November. */
function hours(): HourRow[] {
  return Array.from({ length: 22 * 24 }, (_, index) => {
    const time = Math.floor(NOW / HOUR) * HOUR - (index + 1) * HOUR;
    const hour = new Date(time).toISOString().slice(0, 13);
    const down = hour === '2026-11-20T14' ? 600 : 0;
    const wave = Math.round((70 + 25 * Math.sin(index / 11) + (index % 5)) * MEGABYTE);
    return {
      hour,
      up: 3600 - down,
      down,
      off: 0,
      memory: { prod: wave, dev: 45 * MEGABYTE + (index % 7) * MEGABYTE },
    };
  }).filter(({ hour }) => !/2026-11-12T0[0-6]/.test(hour));
}

const log: SampleLog = { hours: hours(), samples: [] };

export const wellSeries: Series = {
  days: byDay(log, NOW),
  hours: byHour(log, NOW),
  switches: [4.1, 3.6, 17.2, 3.8].map((seconds, index) => ({
    at: new Date(NOW - (9 - 2 * index) * 24 * HOUR).toISOString(),
    seconds,
    prod: `v1.${index}.0`,
  })),
};
export const EMPTY_SERIES: Series = { days: byDay({ hours: [], samples: [] }, NOW), hours: [], switches: [] };

/** What an attacker would write into a container's name or a log line. */
export const HOSTILE = `</li></ul><script>window.hacked = 1</script><img src="https://example.org/x.png" onerror=alert(1)>'&"`;

function environment(name: 'dev' | 'prod', change: Partial<EnvironmentReport> = {}): EnvironmentReport {
  const port = name === 'dev' ? 8003 : 8002;
  return {
    name,
    active: true,
    mood: 'healthy',
    state: 'running',
    container: `synapse-${name}`,
    url: `http://127.0.0.1:${port}`,
    port,
    version: '1.3.0',
    image: `synapse:${name === 'dev' ? 'latest' : 'v1.3.0'}`,
    digest: `sha256:${'1573d20e8b81cdec'.repeat(4)}`,
    releasedAs: 'v1.3.0',
    revision: 'a5198f20a413e214e862a99d36efd8d2a9c13d5d',
    dirty: false,
    config: { 'log.level': name === 'dev' ? 'DEBUG' : 'INFO', 'automatic_learning.mode': 'moderate' },
    outdated: false,
    uptimeSeconds: 273_600,
    restarts: 0,
    memory: { bytes: 71 * MEGABYTE, limit: 3072 * MEGABYTE, peak: 128 * MEGABYTE },
    cpuPercent: 1.4,
    problems: [],
    ...change,
  };
}

const MEASURES: Measure[] = [
  { id: 'switch', title: 'switch', unit: 'seconds', aim: 30, value: 3.8, reached: true, note: '' },
  {
    id: 'deploy',
    title: 'deploy',
    unit: 'seconds',
    aim: 300,
    value: 41,
    reached: true,
    note: 'release and switch of v1.3.0',
  },
  {
    id: 'memory',
    title: 'peak memory',
    unit: 'bytes',
    aim: 3 * 2 ** 30,
    value: 128 * MEGABYTE,
    reached: true,
    note: 'highest sample',
  },
  {
    id: 'uptime',
    title: 'prod uptime, 30 d',
    unit: 'ratio',
    aim: 0.999,
    value: 0.99946,
    reached: true,
    note: 'error budget left: 33 min of 43 min; measured 72.3 % of the time',
  },
];

export const wellReport: StatusReport = {
  at,
  engine: { running: true, message: null, hint: null },
  active: 'both',
  prodTag: 'v1.3.0',
  environments: { dev: environment('dev'), prod: environment('prod') },
  lastSwitch: {
    at: new Date(NOW - 3 * 24 * HOUR).toISOString(),
    from: 'both',
    to: 'both',
    prod: 'v1.3.0',
    seconds: 3.8,
    outcome: 'done',
    phases: { 'start prod': 1.7, 'stop prod': 0.4 },
    silences: { prod: 0.21 },
  },
  data: { directory: '/opt/synapse/data', bytes: 48 * MEGABYTE },
  backup: {
    at: new Date(NOW - 7 * HOUR).toISOString(),
    name: 'synapse-20261124-1430.tar.zst',
    ageSeconds: 25_200,
    overdue: false,
    failure: null,
  },
  measures: MEASURES,
  uptime: uptimeOf(log, NOW),
  problems: [],
  notes: ['dev runs a build with uncommitted changes'],
};

const absent = {
  version: null,
  image: null,
  digest: null,
  releasedAs: null,
  revision: null,
  config: {},
  uptimeSeconds: null,
  restarts: null,
  memory: null,
  cpuPercent: null,
};

export const illReport: StatusReport = {
  ...wellReport,
  environments: {
    dev: environment('dev', { ...absent, mood: 'absent', state: null }),
    prod: environment('prod', {
      mood: 'unhealthy',
      releasedAs: null,
      dirty: true,
      memory: { bytes: 2950 * MEGABYTE, limit: 3072 * MEGABYTE, peak: null },
    }),
  },
  lastSwitch: null,
  backup: { at: null, name: null, ageSeconds: null, overdue: true, failure: 'no space left on device' },
  measures: MEASURES.map((measure) => ({
    ...measure,
    value: null,
    reached: measure.id === 'memory' ? false : null,
  })),
  uptime: uptimeOf({ hours: [], samples: [] }, NOW),
  problems: [
    {
      code: 'not-running',
      message: 'dev is meant to run, but has no container',
      hint: 'start it: npm run switch -- dev (or both)',
    },
    {
      code: 'unhealthy',
      message: 'prod is not healthy: it answers 503, expected 200',
      hint: 'see why: docker logs --tail 50 a-container-with-a-very-long-name-that-nobody-would-ever-type-by-hand-but-somebody-did',
    },
  ],
  notes: [],
};
