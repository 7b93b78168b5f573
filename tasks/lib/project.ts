// configs/release.toml and .env, read and checked: the project as every task sees it.
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import toml from '@iarna/toml';
import { type core, z } from 'zod';
import { loadDotenv, type Variables } from './dotenv.ts';
import { combinedError, suggestion, type TaskError, usageError } from './errors.ts';
import { readIfPresent } from './files.ts';
import { registerSecret } from './log.ts';
import { type ProjectConfig, projectSchema } from './project-schema.ts';

export const PROJECT_FILE = 'configs/release.toml';
export const ENVIRONMENTS = ['dev', 'prod'] as const;
export type EnvironmentName = (typeof ENVIRONMENTS)[number];

export interface Project extends ProjectConfig {
  /** Absolute path of the project: the folder that holds configs/release.toml. */
  root: string;
  /** What .env says. Ours are named PREFIX_…; read them by `variable`. */
  dotenv: Variables;
}

/** The folder of the tasks; tasks/start.mjs bundles them elsewhere, so that nothing else may ask for its own place. */
export const TASKS_FOLDER = fileURLToPath(new URL('..', import.meta.url));

/** The project above the current directory, else the one that these tasks belong to. */
function findRoot(from: string): string {
  for (let directory = resolve(from); ; directory = dirname(directory)) {
    if (existsSync(join(directory, PROJECT_FILE))) return directory;
    if (directory === dirname(directory)) return dirname(TASKS_FOLDER);
  }
}

/**
 * Reads and checks the project; `variablesOf` reads its .env.
 * @throws TaskError (exit 2) naming file, key and nearest valid key
 */
export async function loadProject(from = process.cwd(), variablesOf = loadDotenv): Promise<Project> {
  const root = findRoot(from);
  const text = await readIfPresent(join(root, PROJECT_FILE));
  if (text === undefined) {
    throw usageError(`Cannot read ${PROJECT_FILE}: there is none in ${root} or above ${from}`, {
      code: 'no-project',
      hint: 'run the task inside the project',
    });
  }
  const config = checkConfig(parseToml(text));
  const dotenv = await variablesOf(root);
  await registerSecrets(root, dotenv);
  const project = { ...config, root, dotenv };
  verifyVariables(project);
  return project;
}

function parseToml(text: string): unknown {
  try {
    return toml.parse(text);
  } catch (error) {
    const { line, col, message } = error as Error & { line?: number; col?: number };
    const place = line === undefined ? PROJECT_FILE : `${PROJECT_FILE}:${line + 1}:${(col ?? 0) + 1}`;
    throw usageError(`${place}: not valid TOML: ${message.split(' at row ')[0]}`, {
      code: 'config-syntax',
      hint: 'strings need quotes, tables are written [like.this]; see https://toml.io',
      cause: error,
    });
  }
}

function checkConfig(data: unknown): ProjectConfig {
  const parsed = projectSchema.safeParse(data);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.flatMap((issue) => describeIssue(issue, data));
  throw combinedError(`${PROJECT_FILE} has ${problems.length} problems:`, problems, {
    code: 'config-invalid',
  });
}

/** zod's issue in a user's words: key path, what is there, what was expected, or the nearest valid key. */
function describeIssue(issue: core.$ZodIssue, data: unknown): TaskError[] {
  const pathOf = (path: readonly PropertyKey[]) => path.map(String).join('.') || '(the whole file)';
  if (issue.code === 'unrecognized_keys') {
    const valid = keysAt(issue.path);
    return issue.keys.map((key) =>
      usageError(`${PROJECT_FILE}: unknown key ${pathOf([...issue.path, key])}`, {
        code: 'config-unknown-key',
        hint: suggestion(key, valid),
      }),
    );
  }
  const found = issue.path.reduce(
    (value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key],
    data,
  );
  const what = found === undefined ? 'is missing' : `is ${JSON.stringify(found)}`;
  const expected = issue.message.replace(/^Invalid input: /, '').replace(/, received .*$/, '');
  return [
    usageError(`${PROJECT_FILE}: ${pathOf(issue.path)} ${what}; ${expected}`, { code: 'config-invalid' }),
  ];
}

/** The keys that are valid at `path`. */
function keysAt(path: readonly PropertyKey[]): string[] {
  const whole: JsonSchema = z.toJSONSchema(projectSchema, { io: 'input' });
  const inside = ({ properties, additionalProperties }: JsonSchema, key: PropertyKey) =>
    (properties?.[key as string] ?? additionalProperties ?? {}) as JsonSchema;
  return Object.keys(path.reduce(inside, whole).properties ?? {});
}

type JsonSchema = core.JSONSchema.BaseSchema;

/** Names that mark a value as secret, in .env and in the environment. */
const SECRET_NAME =
  /TOKEN(?!S)|SECRET|PASSWORD|PASSWD|PASSPHRASE|_PASS$|_PWD$|_KEY$|API_?KEY|CREDENTIAL|_AUTH$/i;

/** Also passwords inside URLs, and what the containers' own files say. */
async function registerSecrets(root: string, dotenv: Variables): Promise<void> {
  const files = ['.env.dev', '.env.prod'].map((name) =>
    readIfPresent(join(root, name)).catch(() => undefined),
  );
  const lines = (await Promise.all(files)).flatMap((text) => text?.split('\n') ?? []);
  // Line by line, and not as compose would: a file that compose refuses has secrets, too.
  const assigned = lines.flatMap((line) => {
    const [, name, value] = /^\s*(?:export\s+)?([\w.-]+)\s*[=:]\s*(.*?)\s*$/.exec(line) ?? [];
    return name && value ? [[name, value.replace(/^(["'])(.*)\1$/, '$2')] as const] : [];
  });
  for (const [name, value] of [...Object.entries({ ...process.env, ...dotenv }), ...assigned]) {
    if (SECRET_NAME.test(name)) registerSecret(value);
    const [, password] = /^[a-z][\w+.-]*:\/\/[^/?#@]*:([^/?#@]+)@/i.exec(value ?? '') ?? [];
    registerSecret(password);
  }
}

/** The full name of one of our variables: `variableName(project, 'PROD_TAG')` → `SYNAPSE_PROD_TAG`. */
export function variableName(project: Project, suffix: string): string {
  return `${project.project.variable_prefix}_${suffix}`;
}

/** What .env says about one of our variables, or undefined. */
export function variable(project: Project, suffix: string): string | undefined {
  return project.dotenv[variableName(project, suffix)] || undefined;
}

function verifyVariables(project: Project): void {
  for (const name of ENVIRONMENTS) {
    const suffix = `${name.toUpperCase()}_PORT`;
    const value = variable(project, suffix);
    if (value === undefined || /^\d+$/.test(value)) continue;
    throw usageError(`.env: ${variableName(project, suffix)} is "${value}", expected a port number`, {
      code: 'config-invalid',
    });
  }
}

/** The port of an environment on the host: .env beats release.toml. */
export function portOf(project: Project, name: EnvironmentName): number {
  return Number(variable(project, `${name.toUpperCase()}_PORT`) ?? project.environments[name].port);
}

/** The data directory, absolute: .env beats release.toml. */
export function dataDirectory(project: Project): string {
  return resolve(project.root, variable(project, 'DATA_DIR') ?? project.data.directory);
}

/** `synapse:v1.2.0` */
export function imageReference(project: Project, tag: string): string {
  return `${project.image.name}:${tag}`;
}

/** `ghcr.io/me/synapse:v1.2.0`, or undefined when no registry is set. */
export function registryReference(project: Project, tag: string): string | undefined {
  const { registry, name } = project.image;
  return registry ? `${registry.replace(/\/$/, '')}/${name}:${tag}` : undefined;
}
