// What a switch writes down before it touches anything, so that whoever comes next can bring back what ran:
// containers by their ids, since names move. Kept by the journal of this engine.
import { type Journal, type JournalEntry, openJournal, readJournal } from '../journal.ts';
import { ENVIRONMENTS, type EnvironmentName } from '../project.ts';
import { session } from '../session.ts';
import type { ActiveEnvironment, Scene } from './environments.ts';
import type { SwitchStep } from './plan.ts';

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
