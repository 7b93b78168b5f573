// What a status page tells, as data: filled by the reports, printed as text, as JSON and as a page.
import type { EnvironmentName } from '../project.ts';
import type { Uptime } from './budget.ts';

export interface Problem {
  /** Stable, machine-readable. */
  code: string;
  message: string;
  hint: string;
}

export type Mood = 'healthy' | 'starting' | 'unhealthy' | 'crash-looping' | 'stopped' | 'absent' | 'unknown';

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

export interface LastSwitch {
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

export interface BackupReport {
  /** ISO 8601 of the last good one. */
  at: string | null;
  name: string | null;
  ageSeconds: number | null;
  overdue: boolean;
  /** Why the last attempt failed, when it was later than the last good one. */
  failure: string | null;
}
