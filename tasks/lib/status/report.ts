// The whole status, made of its parts: what runs, what was measured, and what is not well.
import { type Project, variable } from '../project.ts';
import { activeEnvironment } from '../switch/environments.ts';
import { uptimeOf } from './budget.ts';
import { reportEnvironment } from './environment-report.ts';
import type { StatusFacts } from './facts.ts';
import { lastSwitch, measuresOf } from './measures.ts';
import type { EnvironmentReport, Problem, StatusReport } from './reported.ts';

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
