// Old settings → new ones, every key accounted for: carried, renamed, or dropped because of something. Pure.
import type { LegacyDescription, SettingRule } from '../migrate-schema.ts';

export interface OldSetting {
  /** The file, or `environment of rag-mcp`. */
  origin: string;
  /** Dotted path in a file, or the variable's name. */
  key: string;
  value: unknown;
  isVariable: boolean;
}

export type TargetFile = SettingRule['in'];

export interface SettingOutcome {
  origin: string;
  key: string;
  outcome: 'carried' | 'renamed' | 'dropped';
  /** `synapse.json: semantic.chunk_size` or `.env: SYNAPSE_TOKEN`. */
  to?: string;
  /** Key path or variable without prefix, for the one who writes it. */
  target?: { path?: string; file?: TargetFile; variable?: string };
  value?: unknown;
  /** Its value is never shown, and goes to .env alone. */
  isSecret: boolean;
  reason?: string;
}

/** What the new configuration has: key path → its default, which tells the type. Empty: it has none. */
export type KnownKeys = ReadonlyMap<string, unknown>;

const SECRET_NAME = /token|secret|passw(or)?d|api_?key|credential/i;

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
    return dropped(outcome, `${later.key} of ${later.origin} beats it`);
  });
}

function isSameTarget(a: SettingOutcome, b: SettingOutcome): boolean {
  if (!a.target || !b.target) return false;
  return a.target.variable === b.target.variable && a.target.path === b.target.path;
}

/** The same key, not carried after all. */
export function dropped({ origin, key, isSecret }: SettingOutcome, reason: string): SettingOutcome {
  return { origin, key, isSecret, outcome: 'dropped', reason };
}

function translate(description: LegacyDescription, known: KnownKeys, setting: OldSetting): SettingOutcome {
  const { origin, key } = setting;
  const bare = setting.isVariable ? key.slice(description.variable_prefix.length) : key;
  const rule = ruleFor(description.settings, bare) ?? sameKey(known, bare);
  const isSecret = SECRET_NAME.test(key) || SECRET_NAME.test(rule?.variable ?? '');
  const plain: SettingOutcome = { origin, key, isSecret, outcome: 'dropped' };
  if (!rule)
    return dropped(plain, isSecret ? 'there is no such secret here' : 'there is no such setting here');
  if (rule.drop) return dropped(plain, rule.drop);
  if (isSecret && !rule.variable)
    return dropped(plain, 'a secret belongs into .env, which has no variable for it');
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
    return Number(old) * (rule.scale ?? 1);
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

/** One line a key, for people; secrets by name only. */
export function describeOutcome(one: SettingOutcome): string {
  const value = one.isSecret ? '***' : JSON.stringify(one.value);
  const from = `${one.key} (${one.origin})`;
  if (one.outcome === 'dropped') return `dropped  ${from}: ${one.reason}`;
  return `${one.outcome.padEnd(7)}  ${from} → ${one.to ?? one.target?.path ?? one.target?.variable} = ${value}`;
}
