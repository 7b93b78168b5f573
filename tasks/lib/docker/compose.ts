// Calling `docker compose` for this project. What runs is decided by release.toml, .env and the caller,
// never by variables that happen to be exported in somebody's shell (those would beat --env-file).
import { join } from 'node:path';
import { type Command, probe } from '../command.ts';
import { dotenvFiles } from '../dotenv.ts';
import { TaskError } from '../errors.ts';
import {
  dataDirectory,
  ENVIRONMENTS,
  type EnvironmentName,
  imageName,
  type Project,
  portOf,
  variableName,
} from '../project.ts';
import { docker } from './client.ts';

/** What compose interpolates beyond .env; `tag` is the release that prod runs. */
export function composeEnvironment(
  project: Project,
  tag: string | undefined,
): Record<string, string | undefined> {
  const foreign = Object.keys(process.env).filter((name) => name.startsWith(variableName(project, '')));
  return {
    ...Object.fromEntries(foreign.map((name) => [name, undefined])),
    COMPOSE_FILE: undefined,
    COMPOSE_PROFILES: undefined,
    [variableName(project, 'IMAGE')]: imageName(project),
    [variableName(project, 'DATA_DIR')]: dataDirectory(project),
    [variableName(project, 'DEV_PORT')]: String(portOf(project, 'dev')),
    [variableName(project, 'PROD_PORT')]: String(portOf(project, 'prod')),
    // Empty and not unset: what .env says of another engine must not show through.
    [variableName(project, 'PROD_TAG')]: tag ?? '',
  };
}

export function composeCommand(project: Project, ...argv: string[]): Command {
  return docker(
    'compose',
    '--project-name',
    project.project.name,
    ...dotenvFiles(project.root).flatMap((file) => ['--env-file', file]),
    ...project.project.compose.flatMap((file) => ['--file', join(project.root, file)]),
    ...argv,
  );
}

/** Compose on a model that is given on stdin (compose-model.ts): it needs no file and no variable of ours. */
export function modelCommand(project: Project, ...argv: string[]): Command {
  return docker('compose', '--project-name', project.project.name, '--file', '-', ...argv);
}

export function environmentOfService(project: Project, service: string): EnvironmentName | undefined {
  return ENVIRONMENTS.find((name) => project.environments[name].service === service);
}

/** @throws TaskError when a Compose v2 is missing */
export async function verifyCompose(): Promise<void> {
  const answer = await probe(docker('compose', 'version', '--short'));
  if (answer.ok && /^v?[2-9]/.test(answer.stdout)) return;
  throw new TaskError('Docker Compose v2 is missing', {
    code: 'compose-missing',
    hint: 'npm run setup installs it on Debian and Raspberry Pi OS; elsewhere see https://docs.docker.com/compose/install/',
  });
}
