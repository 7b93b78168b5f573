// What a migration writes down: everything that is needed to continue it, to undo it, and to say where it
// stands. It outlives the migration, until --finish: a rollback may come days later.
import { readIfPresent, replaceFile } from '../files.ts';
import { type Journal, openJournal, readJournal } from '../journal.ts';
import { session } from '../session.ts';
import { statePath } from '../state.ts';
import type { Legacy } from './legacy.ts';
import type { MigrationPlan } from './plan.ts';
import type { StepName } from './step-names.ts';

export type StepEvidence = Record<string, unknown>;

export interface StepRecord {
  state: 'started' | 'done' | 'undoing';
  /** ISO 8601, UTC. */
  startedAt: string;
  doneAt?: string;
  evidence: StepEvidence;
}

export type MigrationState =
  | 'migrating'
  | 'migrated'
  | 'rolling-back'
  | 'rolled-back'
  | 'finishing'
  | 'finished';

export interface MigrationRecord {
  /** Distinguishes what this migration sets aside from what another one did: its time, `20260131-235959`. */
  id: string;
  state: MigrationState;
  startedAt: string;
  endedAt?: string;
  keepNewData: boolean;
  /** The new service may have written to its data. */
  hasStarted: boolean;
  legacy: Legacy;
  plan: MigrationPlan;
  steps: Partial<Record<StepName, StepRecord>>;
}

/** Where the record lies between migration and rollback: a journal there would say that something is unfinished. */
const settledPath = (root: string) => statePath(root, 'migration.json');

export interface StoredRecord {
  record: MigrationRecord;
  /** The last thing that was noted, of a run that did not come to its end. */
  interruptedAt: { step: string; at: string } | undefined;
}

export async function readRecord(root: string): Promise<StoredRecord | undefined> {
  const journal = await readJournal<MigrationRecord>(root, 'migrate');
  if (journal) return { record: journal.data, interruptedAt: { step: journal.step, at: journal.at } };
  const text = await readIfPresent(settledPath(root));
  return text === undefined
    ? undefined
    : { record: JSON.parse(text) as MigrationRecord, interruptedAt: undefined };
}

/** Makes every change of the record durable before the caller goes on. */
export class Recorder {
  readonly record: MigrationRecord;
  readonly #root: string;
  readonly #journal: Journal<MigrationRecord>;

  constructor(root: string, record: MigrationRecord) {
    this.record = record;
    this.#root = root;
    this.#journal = openJournal<MigrationRecord>(root, 'migrate');
  }

  async note(point: string, change: (record: MigrationRecord) => void): Promise<void> {
    const draft = structuredClone(this.record);
    change(draft);
    await this.#journal.record(point, draft);
    Object.assign(this.record, draft);
  }

  /** The run comes to its end: the record stays, for a rollback in days to come. */
  async settle(state: MigrationState): Promise<void> {
    await this.note(state, (record) => {
      record.state = state;
      record.endedAt = new Date().toISOString();
    });
    if (!session.dryRun)
      await replaceFile(settledPath(this.#root), `${JSON.stringify(this.record, null, 2)}\n`, {
        mode: 0o600,
      });
    await this.#journal.close();
  }

  /** What a step found out on its way. */
  evidence(step: StepName, point: string, evidence: StepEvidence): Promise<void> {
    return this.note(`${step}-${point}`, ({ steps }) => {
      Object.assign(steps[step]!.evidence, evidence);
    });
  }
}

export function newRecord(legacy: Legacy, plan: MigrationPlan, now: Date): MigrationRecord {
  return {
    id: plan.id,
    state: 'migrating',
    startedAt: now.toISOString(),
    keepNewData: false,
    hasStarted: false,
    legacy,
    plan,
    steps: {},
  };
}
