// One step of the plan in words: what it does, what it touches, how long, how it is undone. Pure.
import { size } from './plan-problems.ts';
import type { MigrationRecord } from './record.ts';
import type { StepName } from './step-names.ts';

type Subject = Pick<MigrationRecord, 'legacy' | 'plan'>;

interface Line {
  title: string;
  touches: string;
  /** Seconds, roughly. */
  takes: string;
  undo: string;
}

/** Bytes in a second that a disk which is not fast copies and compares. */
const SPEED = 100e6;
const about = (bytes: number, least = 1) => `about ${Math.max(least, Math.ceil(bytes / SPEED))} s`;

function modelsLine({ plan: { models } }: Subject): Line {
  const { by, from, to, reason, users } = models;
  const also = users.length > 0 ? `; ${users.join(', ')} goes on using it` : '';
  if (by === 'none')
    return { title: 'models: none', touches: reason, takes: 'no time', undo: 'nothing to undo' };
  if (by === 'reuse')
    return {
      title: `use the models volume ${to} as it is`,
      touches: `.env names it: ${reason}${also}`,
      takes: 'no time',
      undo: 'the volume is the same all the time',
    };
  return {
    title: `copy the models volume ${from} to ${to}, compare by size and hash`,
    touches: `${reason}; the old one stays${also}`,
    takes:
      models.bytes === null ? 'as long as copying takes' : `${about(models.bytes)} for ${size(models.bytes)}`,
    undo: 'the copy is removed',
  };
}

export function lineOf(subject: Subject, name: StepName): Line {
  const { legacy, plan } = subject;
  const { data } = plan;
  const lines: Record<StepName, () => Line> = {
    prepare: () => ({
      title: 'make this machine ready: base image, .env',
      touches: '.env',
      takes: 'a few seconds',
      undo: '.env as it was',
    }),
    images: () => ({
      title: 'have the images: release if there is none, pull or build',
      touches: 'images, a release; the old service still answers',
      takes: 'seconds if they are here, else minutes',
      undo: 'they stay',
    }),
    stop: () => ({
      title: `stop ${legacy.service}${legacy.state === 'running' ? '' : ` (it is ${legacy.state})`}`,
      touches: `its container${legacy.network ? ` and network ${legacy.network.name}` : ''}; volumes stay`,
      takes: 'up to 10 s',
      undo: `docker compose up with its own file${legacy.isRebuilt ? ', rebuilt from the container' : ''}`,
    }),
    data: () => ({
      title: `copy the data to ${data.to} and compare`,
      touches: data.aside ? `${data.from} waits untouched as ${data.aside}` : `${data.from} stays untouched`,
      takes: about(data.bytes * 2),
      undo: 'the untouched directory is put back, owner and mode included',
    }),
    backup: () => ({
      title: 'back the data up, proven',
      touches: plan.backups,
      takes: about(data.bytes * 2, 2),
      undo: 'the archive stays',
    }),
    compose: () => ({
      title: 'set the old compose file aside',
      touches:
        plan.compose.map(({ path, deprecated }) => `${path} → ${deprecated}`).join(', ') || 'there is none',
      takes: 'no time',
      undo: 'renamed back',
    }),
    models: () => modelsLine(subject),
    settings: () => ({
      title: 'translate the settings',
      touches: 'configs/ and .env (secrets go there alone)',
      takes: 'no time',
      undo: 'files as they were',
    }),
    start: () => ({
      title: `start dev on ${plan.ports.dev} and prod on ${plan.ports.prod}`,
      touches: 'containers and network of the new project',
      takes: 'a few seconds',
      undo: 'they are removed, volumes stay',
    }),
    verify: () => ({
      title: 'verify: every database, old facts through both environments, /health',
      touches: 'nothing',
      takes: about(data.bytes),
      undo: 'nothing to undo',
    }),
    notes: () => ({
      title: 'write it into the release notes and commit what changed',
      touches: 'the notes, configs/; one commit',
      takes: 'no time',
      undo: 'files as they were, in a commit of their own',
    }),
  };
  return lines[name]();
}

export function stepTitle(record: Subject, name: StepName): string {
  return lineOf(record, name).title;
}
