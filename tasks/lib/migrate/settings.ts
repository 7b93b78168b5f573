// The older setup's settings as settings of this project: every key is carried, renamed, or dropped for a reason. They are
// read from its JSON files and from the variables of its container, and tried with the loader that runs in the new one.
import { dirname, join } from 'node:path';
import { applyEdits, modify, parse } from 'jsonc-parser';
import { z } from 'zod';
import { ConfigError, effectiveValues, loadConfig, mergeLayers } from '../../../service/config/config.ts';
import { BASE_FILE, variableName as loaderVariable } from '../../../service/config/sources.ts';
import { TaskError, usageError } from '../errors.ts';
import { readIfPresent } from '../files.ts';
import { registerSecret } from '../log.ts';
import { type Project, variableName } from '../project.ts';
import type { LegacyDescription, SettingRule } from '../project-schema.ts';
import { describedLegacy, type Legacy } from './detect.ts';

export interface OldSetting {
  /** Its file, or `environment`. */
  origin: string;
  /** Dotted path in the file, or the variable's name. */
  key: string;
  value: unknown;
}

export const settingSchema = z.strictObject({
  origin: z.string(),
  key: z.string(),
  outcome: z.enum(['carried', 'renamed', 'dropped']),
  /** Why it is dropped. */
  reason: z.string().optional(),
  /** Its value is never shown, and goes to .env alone. */
  isSecret: z.boolean(),
  /** Its key path in the service configuration. */
  path: z.string().optional(),
  /** The variable of .env that it goes to; without one it goes to the base file. */
  variable: z.string().optional(),
  value: z.unknown().optional(),
});

export type Setting = z.output<typeof settingSchema>;

export interface NewSettings {
  settings: Setting[];
  /** The base file, relative to the project; null: it does not change. */
  config: { path: string; before: string; after: string } | null;
  /** Variables of .env. */
  variables: Record<string, string>;
}

/** What goes where; nothing is written yet. `variables`: of the old service's container. @throws TaskError */
export async function planSettings(
  project: Project,
  legacy: Legacy,
  variables: Record<string, string>,
): Promise<NewSettings> {
  const description = describedLegacy(project);
  const old = [
    ...(await readConfigFiles(description, legacy.directory)),
    ...Object.entries(variables)
      .filter(([name]) => name.startsWith(description.variable_prefix))
      .map(([key, value]) => ({ origin: 'environment', key, value })),
  ];
  const translated = translateSettings(project, old);
  for (const { isSecret, value } of translated) if (isSecret) registerSecret(String(value ?? ''));
  if (!LOOPBACK.test(legacy.address)) translated.push(openTo(project, legacy));
  const settings = translated.map((one) => {
    const decided = one.variable && project.dotenv[one.variable];
    return decided && decided !== one.value ? dropped(one, `.env already sets ${one.variable}`) : one;
  });
  const named = settings.flatMap((one) => (one.variable ? [[one.variable, String(one.value)]] : []));
  return {
    settings,
    config: await editConfig(project, settings),
    variables: Object.fromEntries(named),
  };
}

/** The leaves of its JSON files; lists are leaves. */
async function readConfigFiles(
  { config_files }: LegacyDescription,
  directory: string,
): Promise<OldSetting[]> {
  const found: OldSetting[] = [];
  for (const file of config_files) {
    const text = await readIfPresent(join(directory, file));
    try {
      if (text !== undefined) found.push(...settingsOfJson(file, JSON.parse(text)));
    } catch (error) {
      throw new TaskError(`Cannot read ${join(directory, file)}: ${(error as Error).message}`, {
        code: 'unknown-shape',
        hint: 'fix it, or move it away to migrate without it; nothing was changed',
      });
    }
  }
  return found;
}

export function settingsOfJson(origin: string, value: unknown, path: readonly string[] = []): OldSetting[] {
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return Object.entries(value).flatMap(([key, child]) => settingsOfJson(origin, child, [...path, key]));
  return path.length === 0 ? [] : [{ origin, key: path.join('.'), value }];
}

// What becomes of each: the rules of release.toml, then the loader's judgement.

const SECRET_NAME =
  /(^|[._-])(token|secret|pass|passwd|password|passphrase|credentials?|(api|access|private|secret)_?key)$/;

/** By its last word: `hf_token` and `apiKey` are secrets, `max_tokens` is none. */
const namesSecret = (key: string) => SECRET_NAME.test(key.replace(/([a-z])([A-Z])/g, '$1_$2').toLowerCase());

const normal = (key: string) => key.toLowerCase().replaceAll('__', '_').replaceAll('.', '_');

/** `settings` in the order of their weight, those that beat others last. */
export function translateSettings(project: Project, settings: readonly OldSetting[]): Setting[] {
  const config = project.environments.prod.config;
  const known = config ? effectiveValues(mergeLayers([])).map(({ path }) => path) : [];
  const translated = settings.map((setting) => translate(project, known, setting));
  const isSameTarget = (a: Setting, b: Setting) =>
    (a.variable ?? a.path) !== undefined && a.variable === b.variable && a.path === b.path;
  const chosen = translated.map((one, index) => {
    const later = translated.slice(index + 1).find((other) => isSameTarget(other, one));
    return later ? dropped(one, `${later.key} of ${later.origin} overrides it`) : one;
  });
  return config ? checkedByLoader(join(project.root, config), chosen) : chosen;
}

/** The same key, not carried after all. */
function dropped({ origin, key, isSecret }: Setting, reason: string): Setting {
  return { origin, key, isSecret, outcome: 'dropped', reason };
}

function translate(project: Project, known: readonly string[], setting: OldSetting): Setting {
  const description = describedLegacy(project);
  const { origin, key } = setting;
  const bare = origin === 'environment' ? key.slice(description.variable_prefix.length) : key;
  const rule = ruleFor(description.settings, bare) ?? sameKey(known, bare);
  const isSecret = namesSecret(key) || namesSecret(rule?.variable ?? '');
  const plain: Setting = { origin, key, isSecret, outcome: 'dropped' };
  if (!rule) return dropped(plain, `there is no such ${isSecret ? 'secret' : 'setting'} here`);
  const { to, drop } = rule;
  if (drop) return dropped(plain, drop);
  if (isSecret && !rule.variable) return dropped(plain, 'secrets go to .env, which has no variable for it');
  if (!rule.variable && !known.includes(to ?? '')) return dropped(plain, `there is no ${to} here`);
  const value = textOf(setting.value, rule);
  if (value === '') return dropped(plain, 'it is empty');
  const isSame = !rule.variable && normal(to ?? '') === normal(bare);
  return {
    ...{ ...plain, outcome: isSame ? 'carried' : 'renamed', value },
    ...(to && known.includes(to) ? { path: to } : {}),
    ...(rule.variable ? { variable: variableName(project, rule.variable) } : {}),
  };
}

function ruleFor(rules: Record<string, SettingRule>, key: string): SettingRule | undefined {
  const wanted = normal(key);
  const exact = Object.entries(rules).find(([name]) => normal(name) === wanted);
  const begins = ([name]: [string, SettingRule]) =>
    name.endsWith('*') && wanted.startsWith(normal(name.slice(0, -1)));
  return (exact ?? Object.entries(rules).find(begins))?.[1];
}

/** A key that exists here under the same path needs no rule. */
function sameKey(known: readonly string[], key: string): SettingRule | undefined {
  const to = known.find((name) => normal(name) === normal(key));
  return to === undefined ? undefined : { to, values: {} };
}

/** As an environment variable would say it. */
function textOf(value: unknown, { values, scale }: SettingRule): string {
  const text = Array.isArray(value) ? value.join(',') : String(value ?? '');
  const mapped = Object.entries(values).find(([from]) => from.toLowerCase() === text.trim().toLowerCase());
  if (mapped) return mapped[1];
  if (scale === undefined || text.trim() === '' || Number.isNaN(Number(text))) return text;
  return String(Number((Number(text) * scale).toPrecision(12)));
}

/** The values in their types; what the new service's loader refuses is dropped. @throws TaskError (exit 2) */
function checkedByLoader(configPath: string, settings: readonly Setting[]): Setting[] {
  const env = settings.flatMap(({ path, value }) => (path ? [[loaderVariable(path), String(value)]] : []));
  try {
    const effective = effectiveValues(loadConfig({ configPath, env: Object.fromEntries(env) }));
    const values = new Map(effective.map(({ path, value }) => [path, value]));
    return settings.map((one) => (one.path ? { ...one, value: values.get(one.path) } : one));
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const checked = settings.map((one) => {
      const isOwn = ({ path }: { path: string }) => path === one.path || path.startsWith(`${one.path}.`);
      const problem = error.problems.find(isOwn);
      return problem ? dropped(one, `the new service refuses it: ${problem.message}`) : one;
    });
    if (checked.some((one, index) => one !== settings[index])) return checkedByLoader(configPath, checked);
    throw usageError(`The service configuration is not valid: ${error.message}`, {
      code: 'service-config-invalid',
      hint: 'fix it first: npm run doctor',
    });
  }
}

/** The base file edited in place, so that layout and order stay; lists are extended. */
async function editConfig(
  { root, environments }: Project,
  settings: readonly Setting[],
): Promise<NewSettings['config']> {
  const file = join(dirname(environments.prod.config ?? ''), BASE_FILE);
  const written = settings.filter((one) => one.path && !one.variable);
  if (written.length === 0) return null;
  const before = (await readIfPresent(join(root, file))) ?? '{}\n';
  let after = before;
  for (const { path = '', value } of written) {
    const keys = path.split('.');
    const present = keys.reduce<unknown>(
      (node, key) => (node as Record<string, unknown> | undefined)?.[key],
      parse(after),
    );
    const isList = Array.isArray(value) && Array.isArray(present);
    const wanted = isList ? [...new Set([...present, ...value])] : value;
    if (JSON.stringify(present) === JSON.stringify(wanted)) continue;
    const formattingOptions = { insertSpaces: true, tabSize: 2 };
    after = applyEdits(after, modify(after, keys, wanted, { formattingOptions }));
  }
  return after === before ? null : { path: file, before, after };
}

// Clients elsewhere reach the new service as they reached the old one, but not without a token.

const LOOPBACK = /^(127\.|::1$|localhost$)/;

function openTo(project: Project, { service, address }: Legacy): Setting {
  const place = {
    origin: `ports of ${service}`,
    key: 'host_ip',
    variable: variableName(project, 'BIND_ADDRESS'),
  };
  return { ...place, outcome: 'renamed', value: address, isSecret: false };
}

export function openingProblems(
  project: Project,
  { address }: Pick<Legacy, 'address'>,
  { variables }: Pick<NewSettings, 'variables'>,
): TaskError[] {
  const bind = variableName(project, 'BIND_ADDRESS');
  const token = project.live?.token && variableName(project, project.live.token);
  const hasToken = !token || variables[token] || project.dotenv[token];
  if (variables[bind] === undefined || (hasToken && ['0.0.0.0', '::'].includes(address))) return [];
  const message = `The old service answers the network on ${address}: the new one needs a token for that`;
  const hint = `in .env: ${token}=… (openssl rand -hex 32) and ${bind}=0.0.0.0, or ${bind}=127.0.0.1 to keep it to this machine`;
  return [new TaskError(message, { code: 'exposed', hint })];
}
