// Is what the project says about itself valid, and does it keep its secrets to itself?
import { constants } from 'node:fs';
import { access, readdir, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { probe } from '../command.ts';
import { verifyServices } from '../docker/compose-config.ts';
import { readIfPresent } from '../files.ts';
import { ENVIRONMENTS, PROJECT_FILE, type Project } from '../project.ts';
import { verifyServiceConfig } from '../switch/service-config.ts';
import { type Check, type Finding, failed, gather, ok, unchecked, warning } from './check.ts';
import type { Facts } from './facts.ts';
import { findSecrets } from './secrets.ts';

async function composeConfig({ project, services }: Facts): Promise<Finding> {
  const found = await services();
  verifyServices(project, found);
  return ok(`${project.project.compose.join(', ')}: ${Object.keys(found).join(', ')}`);
}

async function serviceConfig({ project, services }: Facts): Promise<Finding> {
  const named = ENVIRONMENTS.filter((name) => project.environments[name].config);
  if (named.length === 0) {
    return unchecked(`${PROJECT_FILE} names no configuration of the service (environments.*.config)`);
  }
  await verifyServiceConfig(project, await services(), named);
  return ok(named.map((name) => project.environments[name].config).join(', '));
}

/** The files that are committed and configure something. */
async function configFiles(project: Project): Promise<string[]> {
  const folders = [...new Set(['configs', ...project.project.compose.map((file) => join(file, '..'))])];
  const listed = await Promise.all(
    folders.map(async (folder) => {
      const entries = await readdir(join(project.root, folder), { withFileTypes: true }).catch(() => []);
      return entries.filter((entry) => entry.isFile()).map(({ name }) => join(folder, name));
    }),
  );
  const single = [...project.project.compose, project.image.dockerfile, '.env.example'];
  return [...new Set([...listed.flat(), ...single])].filter(
    (file) => !/(^|\/)\.env(\.|$)(?!example)/.test(file),
  );
}

async function secrets({ project }: Facts): Promise<Finding> {
  const files = await configFiles(project);
  const found = await Promise.all(
    files.map(async (file) => {
      const text = (await readIfPresent(join(project.root, file)).catch(() => undefined)) ?? '';
      return findSecrets(text).map(({ line, why }) => `${file}:${line} ${why}`);
    }),
  );
  const remedy =
    'move it to .env (never committed, 0600) and refer to it as a variable; a secret that was ever committed must be replaced';
  return gather(
    found.flat().map((detail) => failed(detail, remedy)),
    `${files.length} files, nothing that looks like one`,
  );
}

const PRIVATE = 0o600;

async function dotenvProblems(root: string, path: string): Promise<Finding[]> {
  const file = relative(root, path);
  const found = await stat(path);
  const [ignored, tracked] = await Promise.all([
    probe(['git', '-C', root, 'check-ignore', '--quiet', path]),
    probe(['git', '-C', root, 'ls-files', '--error-unmatch', path]),
  ]);
  const mode = found.mode & 0o777;
  const unreadable = await access(path, constants.R_OK).catch((error: Error) => error);
  return [
    ...(unreadable
      ? [
          failed(
            `this user cannot read ${file}: ${unreadable.message}`,
            `sudo chown "$(id -u):$(id -g)" ${file} && chmod 0600 ${file}`,
          ),
        ]
      : []),
    ...(found.isFile() ? [] : [failed(`${file} is not a file`, `remove it, then: npm run setup`)]),
    ...(found.isFile() && mode !== PRIVATE
      ? [failed(`${file} has mode ${mode.toString(8).padStart(4, '0')}, expected 0600`, `chmod 0600 ${file}`)]
      : []),
    ...(tracked.ok
      ? [failed(`${file} is committed`, `git rm --cached ${file}, and replace every secret in it`)]
      : ignored.exitCode === 1
        ? [failed(`git does not ignore ${file}`, `add a line "${file}" to .gitignore`)]
        : []),
  ];
}

async function dotenv({ project: { root } }: Facts): Promise<Finding> {
  const names = (await readdir(root)).filter((name) => /^\.env(\.|$)/.test(name) && name !== '.env.example');
  if (!names.includes('.env')) return warning('there is none yet', 'npm run setup');
  const problems = await Promise.all(names.map((name) => dotenvProblems(root, join(root, name))));
  return gather(problems.flat(), `${names.join(', ')}: 0600, ignored by git`);
}

export const CONFIG_CHECKS: readonly Check[] = [
  { id: 'compose-config', title: 'compose files', run: composeConfig },
  { id: 'service-config', title: 'service configuration', run: serviceConfig },
  { id: 'secrets', withoutDotenv: true, title: 'secrets in configs', run: secrets },
  { id: 'dotenv', withoutDotenv: true, title: '.env', run: dotenv },
];
