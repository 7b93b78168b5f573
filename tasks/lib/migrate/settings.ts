// Old settings → new ones, every key accounted for: carried, renamed, or dropped because of something. Pure.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { applyEdits, modify, parse } from 'jsonc-parser';
import { z } from 'zod';
import { ConfigError, effectiveValues, loadConfig, mergeLayers } from '../../../service/config/config.ts';
import { BASE_FILE } from '../../../service/config/sources.ts';
import { parseDotenv } from '../dotenv.ts';
import { TaskError, usageError } from '../errors.ts';
import { readIfPresent } from '../files.ts';
import { registerSecret } from '../log.ts';
import { type Project, variable, variableName } from '../project.ts';
import type { LegacyDescription, SettingRule } from '../project-schema.ts';
import { type ComposeHandle, resolveCompose } from './detect.ts';

export interface OldSetting {
  /** The file, or `environment of rag-mcp`. */
  origin: string;
  /** Dotted path in a file, or the variable's name. */
  key: string;
  value: unknown;
  isVariable: boolean;
}

type TargetFile = SettingRule['in'];

export const settingOutcomeSchema = z.strictObject({
  origin: z.string(),
  key: z.string(),
  outcome: z.enum(['carried', 'renamed', 'dropped']),
  /** `synapse.json: semantic.chunk_size` or `.env: SYNAPSE_TOKEN`. */
  to: z.string().optional(),
  /** Key path or variable without prefix, for the one who writes it. */
  target: z
    .strictObject({
      path: z.string().optional(),
      file: z.enum(['base', 'dev', 'prod']).optional(),
      variable: z.string().optional(),
    })
    .optional(),
  value: z.unknown().optional(),
  /** Its value is never shown, and goes to .env alone. */
  isSecret: z.boolean(),
  reason: z.string().optional(),
});

export type SettingOutcome = z.output<typeof settingOutcomeSchema>;

/** What the new configuration has: key path → its default, which tells the type. Empty: it has none. */
type KnownKeys = ReadonlyMap<string, unknown>;

const SECRET_NAME =
  /(^|[._-])(token|secret|pass|passwd|password|passphrase|credentials?|(api|access|private|secret)_?key)$/;

/** By its last word: `hf_token` and `apiKey` are secrets, `max_tokens` is none. */
const namesSecret = (key: string) => SECRET_NAME.test(key.replace(/([a-z])([A-Z])/g, '$1_$2').toLowerCase());

const normal = (key: string) => key.toLowerCase().replaceAll('__', '_').replaceAll('.', '_');

/** `settings` in the order of their weight, those that beat others last. */
export function translateSettings(
  description: LegacyDescription,
  known: KnownKeys,
  settings: readonly OldSetting[],
): SettingOutcome[] {
  const outcomes = settings.map((setting) => translate(description, known, setting));
  return outcomes.map((outcome, index) => {
    const later = outcomes.slice(index + 1).find((other) => isSameTarget(other, outcome));
    if (!later) return outcome;
    return dropped(outcome, `${later.key} of ${later.origin} overrides it`);
  });
}

function isSameTarget(a: SettingOutcome, b: SettingOutcome): boolean {
  if (!a.target || !b.target) return false;
  return a.target.variable === b.target.variable && a.target.path === b.target.path;
}

/** The same key, not carried after all. */
function dropped({ origin, key, isSecret }: SettingOutcome, reason: string): SettingOutcome {
  return { origin, key, isSecret, outcome: 'dropped', reason };
}

function translate(description: LegacyDescription, known: KnownKeys, setting: OldSetting): SettingOutcome {
  const { origin, key } = setting;
  const bare = setting.isVariable ? key.slice(description.variable_prefix.length) : key;
  const rule = ruleFor(description.settings, bare) ?? sameKey(known, bare);
  const isSecret = namesSecret(key) || namesSecret(rule?.variable ?? '');
  const plain: SettingOutcome = { origin, key, isSecret, outcome: 'dropped' };
  if (!rule)
    return dropped(plain, isSecret ? 'there is no such secret here' : 'there is no such setting here');
  if (rule.drop) return dropped(plain, rule.drop);
  if (isSecret && !rule.variable) return dropped(plain, 'secrets go to .env, which has no variable for it');
  if (!rule.variable && !known.has(rule.to ?? '')) return dropped(plain, `there is no ${rule.to} here`);
  const value = convert(setting.value, rule, known.get(rule.to ?? ''));
  if (value === undefined || value === '') return dropped(plain, 'it is empty');
  const isSame = rule.to !== undefined && rule.variable === undefined && normal(rule.to) === normal(bare);
  const target = {
    ...(rule.to ? { path: rule.to, file: rule.in } : {}),
    ...(rule.variable ? { variable: rule.variable } : {}),
  };
  return { ...plain, outcome: isSame ? 'carried' : 'renamed', target, value };
}

function ruleFor(rules: Record<string, SettingRule>, key: string): SettingRule | undefined {
  const wanted = normal(key);
  const exact = Object.entries(rules).find(([name]) => normal(name) === wanted);
  const begins = ([name]: [string, SettingRule]) =>
    name.endsWith('*') && wanted.startsWith(normal(name.slice(0, -1)));
  return (exact ?? Object.entries(rules).find(begins))?.[1];
}

/** A key that exists here under the same path needs no rule. */
function sameKey(known: KnownKeys, key: string): SettingRule | undefined {
  const path = [...known.keys()].find((name) => normal(name) === normal(key));
  return path === undefined ? undefined : { to: path, in: 'base', values: {} };
}

/** The value in the type of the new key; text that is no such value stays text, for the loader to refuse. */
function convert(old: unknown, rule: SettingRule, like: unknown): unknown {
  const text = typeof old === 'string' ? old.trim() : undefined;
  const mapped = Object.entries(rule.values).find(
    ([from]) => from.toLowerCase() === String(old).toLowerCase(),
  );
  if (mapped) return mapped[1];
  if (typeof like === 'number' && old !== null && text !== '' && !Number.isNaN(Number(old)))
    return Number((Number(old) * (rule.scale ?? 1)).toPrecision(12));
  if (typeof like === 'boolean' && text !== undefined)
    return (
      { true: true, '1': true, yes: true, false: false, '0': false, no: false }[text.toLowerCase()] ?? text
    );
  if (Array.isArray(like) && text !== undefined)
    return text
      .split(',')
      .map((item) => item.trim())
      .filter(Boolean);
  if (typeof like === 'string' && text !== undefined && like === like.toUpperCase())
    return text.toUpperCase();
  return rule.variable ? (text ?? String(old)) : (text ?? old);
}

/** The leaves of a JSON file as settings; lists are leaves. */
export function settingsOfJson(origin: string, value: unknown, path: readonly string[] = []): OldSetting[] {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return Object.entries(value).flatMap(([key, child]) => settingsOfJson(origin, child, [...path, key]));
  }
  return path.length === 0 ? [] : [{ origin, key: path.join('.'), value, isVariable: false }];
}

/** Those of the variables that are the older setup's. */
export function settingsOfVariables(
  origin: string,
  prefix: string,
  variables: Record<string, string | undefined>,
): OldSetting[] {
  return Object.entries(variables).flatMap(([key, value]) =>
    key.startsWith(prefix) && value !== undefined ? [{ origin, key, value, isVariable: true }] : [],
  );
}

// The translation of the older setup's settings for this project: what goes where, nothing is written yet.

export interface NewSettings {
  outcomes: SettingOutcome[];
  /** Path below the project → its text now and then; only files that change. */
  files: Record<string, { before: string | null; after: string }>;
  /** Variables of .env; secrets are nowhere else. */
  variables: Record<string, string>;
}

/**
 * The translation, as it would be written; values that the service's loader refuses are dropped, and
 * those that .env already sets: somebody has decided that for the new service.
 */
export async function planNewSettings(
  project: Project,
  description: LegacyDescription,
  legacy: ComposeHandle & { service: string; address: string },
): Promise<NewSettings> {
  const paths = configFiles(project);
  const defaults = paths ? effectiveValues(mergeLayers([])) : [];
  const known = new Map(defaults.map(({ path, value }) => [path, value]));
  const translated = translateSettings(description, known, await oldSettings(description, legacy));
  if (!LOOPBACK.test(legacy.address)) translated.push(openTo(legacy));
  for (const { isSecret, value } of translated) if (isSecret) registerSecret(String(value ?? ''));
  const nameOf = ({ target }: SettingOutcome) => target?.variable && variableName(project, target.variable);
  const undecided = translated.map((one) => {
    const name = nameOf(one);
    const decided = name && project.dotenv[name];
    return decided && decided !== one.value ? dropped(one, `.env already sets ${name}`) : one;
  });
  const checked = paths ? await checkedByLoader(project, paths, undecided) : undecided;
  const outcomes = checked.map((one) => {
    const name = nameOf(one);
    const place = name
      ? `.env: ${name}`
      : one.target && `${basename(paths![one.target.file!])}: ${one.target.path}`;
    return place ? { ...one, to: place } : one;
  });
  const variables = outcomes.flatMap((one) => (nameOf(one) ? [[nameOf(one), String(one.value)]] : []));
  const files = paths ? await editedFiles(project, paths, outcomes) : {};
  return { outcomes, files, variables: Object.fromEntries(variables) };
}

const LOOPBACK = /^(127\.|::1$|localhost$)/;

/** Clients elsewhere reach the new service as they reached the old one. */
function openTo({ service, address }: { service: string; address: string }): SettingOutcome {
  const origin = `ports of ${service}`;
  const target = { variable: 'BIND_ADDRESS' };
  return { origin, key: 'host_ip', outcome: 'renamed', target, value: address, isSecret: false };
}

/** The network must not reach a service without a token. @throws TaskError; nothing was changed then */
export function verifyOpening(
  project: Project,
  { address }: { address: string },
  { variables }: NewSettings,
) {
  const [bind, token] = [variableName(project, 'BIND_ADDRESS'), project.live?.token];
  if (variables[bind] === undefined) return;
  const keep = `or keep the new one to this machine: ${bind}=127.0.0.1 in .env`;
  const refuse = (message: string, hint: string) =>
    new TaskError(message, { code: 'exposed', hint: `${hint}\n${keep}; nothing was changed` });
  if (!['0.0.0.0', '::'].includes(address))
    throw refuse(
      `The old service listens on ${address} alone, where its health cannot be asked`,
      `listen on every address: ${bind}=0.0.0.0 in .env`,
    );
  if (!token || variables[variableName(project, token)] || variable(project, token)) return;
  throw refuse(
    `The old service answers the network on ${address} without a token`,
    `give the new one a token: ${variableName(project, token)}=… in .env (openssl rand -hex 32)`,
  );
}

// Reading the older setup's settings from where they are: its JSON files, its .env, its compose file.

/** The old settings, weakest first: files, .env, what compose gives the container. */
async function oldSettings(description: LegacyDescription, legacy: ComposeHandle): Promise<OldSetting[]> {
  const { directory } = legacy;
  const files = await Promise.all(
    description.config_files.map(async (file): Promise<OldSetting[]> => {
      const text = await readIfPresent(join(directory, file));
      if (text === undefined) return [];
      try {
        return settingsOfJson(file, JSON.parse(text));
      } catch (error) {
        throw new TaskError(`Cannot read ${join(directory, file)}: ${(error as Error).message}`, {
          code: 'unknown-shape',
          hint: 'fix it, or move it away to migrate without it; nothing was changed',
        });
      }
    }),
  );
  const dotenv = parseDotenv((await readIfPresent(join(directory, '.env'))) ?? '');
  const { services } = await resolveCompose(legacy);
  const environment = services[description.service]?.environment ?? {};
  const prefix = description.variable_prefix;
  // Compose has put .env's values into the environment: the same key there is the same setting.
  const outside = Object.fromEntries(
    Object.entries(dotenv).filter(([name]) => environment[name] === undefined),
  );
  return [
    ...files.flat(),
    ...settingsOfVariables('.env', prefix, outside),
    ...settingsOfVariables(`environment of ${description.service}`, prefix, environment),
  ];
}

// The new service's configuration files: edited in place, so that layout and order stay, and tried with the
// loader that runs in the container.

/** The configuration files of this project, by what they are for; undefined where it has none. */
function configFiles(project: Project): Record<TargetFile, string> | undefined {
  const { dev, prod } = project.environments;
  if (!dev.config || !prod.config) return undefined;
  return { base: join(dirname(prod.config), BASE_FILE), dev: dev.config, prod: prod.config };
}

/** `withVariables`: also what .env would say, for the loader to judge. */
async function editedFiles(
  project: Project,
  paths: Record<TargetFile, string>,
  outcomes: readonly SettingOutcome[],
  withVariables = false,
): Promise<NewSettings['files']> {
  const edited: NewSettings['files'] = {};
  for (const { target, value } of outcomes) {
    if (!target?.path || !target.file || (target.variable && !withVariables)) continue;
    const file = paths[target.file];
    const before = edited[file]?.before ?? (await readIfPresent(join(project.root, file))) ?? null;
    const text = edited[file]?.after ?? before ?? '{}\n';
    const keys = target.path.split('.');
    const present = keys.reduce<unknown>(
      (node, key) => (node as Record<string, unknown> | undefined)?.[key],
      parse(text),
    );
    const isList = Array.isArray(value) && Array.isArray(present);
    const wanted = isList ? [...new Set([...present, ...value])] : value;
    if (JSON.stringify(present) === JSON.stringify(wanted)) continue;
    const formattingOptions = { insertSpaces: true, tabSize: 2 };
    const after = applyEdits(text, modify(text, keys, wanted, { formattingOptions }));
    edited[file] = { before, after };
  }
  return edited;
}

/** Tries the new files with the loader that runs in the container; what it refuses is dropped, and said. */
async function checkedByLoader(
  project: Project,
  paths: Record<TargetFile, string>,
  outcomes: readonly SettingOutcome[],
): Promise<SettingOutcome[]> {
  const refused = await refusals(project, paths, await editedFiles(project, paths, outcomes, true));
  if (refused.size === 0) return [...outcomes];
  const checked = outcomes.map((one) => {
    const own = one.target?.path;
    const isOwn = ([path]: [string, string]) => path === own || path.startsWith(`${own}.`);
    const [, message] = [...refused].find(isOwn) ?? [];
    return message ? dropped(one, `the new service refuses it: ${message}`) : one;
  });
  if (checked.every((one, index) => one === outcomes[index])) {
    throw usageError(`The service configuration is not valid: ${[...refused].join('; ')}`, {
      code: 'service-config-invalid',
      hint: 'fix it first: npm run doctor',
    });
  }
  return checkedByLoader(project, paths, checked);
}

/** Key path → what is wrong with it. */
async function refusals(
  project: Project,
  paths: Record<TargetFile, string>,
  edited: NewSettings['files'],
): Promise<Map<string, string>> {
  const folder = await mkdtemp(join(tmpdir(), 'settings-'));
  const refused = new Map<string, string>();
  try {
    for (const file of new Set(Object.values(paths))) {
      const text = edited[file]?.after ?? (await readIfPresent(join(project.root, file)));
      if (text !== undefined) await writeFile(join(folder, basename(file)), text);
    }
    for (const file of [paths.dev, paths.prod]) loadConfig({ configPath: join(folder, basename(file)) });
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    for (const { path, message } of error.problems) refused.set(path, message);
  } finally {
    await rm(folder, { recursive: true });
  }
  return refused;
}
