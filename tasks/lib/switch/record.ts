// What a switch writes down before it touches anything, so that whoever comes next can bring back what ran:
// containers by their ids, since names move. Kept by the journal of this engine.

import type { Phases } from '../history.ts';
import { type Journal, type JournalEntry, openJournal, readJournal } from '../old-journal.ts';
import { ENVIRONMENTS, type EnvironmentName, type Project } from '../project.ts';
import { session } from '../session.ts';
import type { ActiveEnvironment, Scene } from './observe.ts';
import type { SwitchStep, SwitchTarget } from './plan.ts';
import type { TargetImages } from './target.ts';
export interface ContainerBefore {
  id: string;
  name: string;
  running: boolean;
  /** It answered well: worth waiting for when it is brought back. */
  healthy: boolean;
  restartPolicy: string;
}

export interface SwitchRecord {
  /** ISO 8601, UTC. */
  startedAt: string;
  from: { active: ActiveEnvironment; prodTag: string | null };
  to: { active: ActiveEnvironment; prodTag: string | null };
  /** The environments that the plan starts or stops. */
  touched: EnvironmentName[];
  /** Every container that the project had; any other was made by this switch. */
  containers: string[];
  before: Record<EnvironmentName, ContainerBefore | null>;
  /** Whose container from before may have been told to stop. */
  stopping: EnvironmentName[];
  /** Ids of containers that are removed once the switch has succeeded. */
  replaced: string[];
}

export type SwitchJournal = Journal<SwitchRecord>;

/** From this step on an unfinished switch is finished, not undone. */
export const COMMIT = 'commit';

function journalName(): string {
  return session.context ? `switch@${session.context}` : 'switch';
}

export function openSwitchJournal(root: string): SwitchJournal {
  return openJournal<SwitchRecord>(root, journalName());
}

/** The switch that died before its end, if there is one. */
export function unfinishedSwitch(root: string): Promise<JournalEntry<SwitchRecord> | undefined> {
  return readJournal<SwitchRecord>(root, journalName());
}

export function recordOf(
  scene: Scene,
  steps: readonly SwitchStep[],
  to: { active: ActiveEnvironment; prodTag: string | undefined },
): SwitchRecord {
  const { observed, containers } = scene;
  const before = (name: EnvironmentName): ContainerBefore | null => {
    const { container, health } = observed.environments[name];
    if (!container) return null;
    const { id, name: called, state, restartPolicy } = container;
    const running = state === 'running' || state === 'restarting' || state === 'paused';
    return { id, name: called, running, healthy: health?.status === 200, restartPolicy };
  };
  return {
    startedAt: new Date().toISOString(),
    from: { active: observed.active, prodTag: observed.prodTag ?? null },
    to: { active: to.active, prodTag: to.prodTag ?? null },
    touched: ENVIRONMENTS.filter((name) =>
      steps.some((step) => 'environment' in step && step.environment === name),
    ),
    containers: containers.map(({ id }) => id),
    before: { dev: before('dev'), prod: before('prod') },
    stopping: [],
    replaced: [],
  };
}

// One switch on its way: what was decided, and what its steps share.

export interface SwitchOptions {
  scene: Scene;
  target: SwitchTarget;
  images: TargetImages;
  steps: readonly SwitchStep[];
  /** Seconds an environment may take to become healthy; undefined: as release.toml says. */
  waitSeconds: number | undefined;
}

export interface SwitchReport {
  phases: Phases;
  /** Milliseconds in which nobody answered. */
  gaps: Record<string, number>;
}

export interface Switching extends SwitchOptions, SwitchReport {
  project: Project;
  journal: SwitchJournal;
  record: SwitchRecord;
}

/** A switch that was planned and checked on whatever runs the services: what the task shows, asks and does. */
export interface PlannedSwitch {
  /** One line each; none if there is nothing to do. */
  steps: string[];
  warnings: string[];
  run: (waitSeconds: number | undefined) => Promise<SwitchReport>;
  /** What runs, in words and as data; after `run`: what runs then. */
  observe: () => Promise<{ text: string; data: Record<string, unknown> }>;
}
