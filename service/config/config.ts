// The layered configuration loader: environment variables → environment file → base file → defaults.
// The same code runs inside the container and in the tasks outside it, so both agree on every value. What is
// wrong is collected over all layers, each problem with its place and the nearest valid name, and thrown once.
import { readFileSync } from 'node:fs';
import { distance } from 'fastest-levenshtein';
import * as jsonc from 'jsonc-parser';
import * as z from 'zod';
import { type Config, ConfigSchema, schemaPaths, withoutDefault } from './schema.ts';
import { configPathOf, layerFiles, variableName } from './sources.ts';

export { type Config, ConfigSchema, LEARNING_MODES, LOG_LEVELS } from './schema.ts';
export { BASE_FILE, DEFAULT_CONFIG_PATH, layerFiles, variableName } from './sources.ts';

const { leaves, sections } = schemaPaths(ConfigSchema);

/** Names that configuration files of the Python server use, and what they are called here. */
const ALIASES: Record<string, string> = { 'logging.level': 'log.level' };
const ALIAS_SECTIONS = new Set(Object.keys(ALIASES).map((path) => path.slice(0, path.lastIndexOf('.'))));

/** SYNAPSE_ variables that configure the container rather than a key of the schema. */
export const OTHER_VARIABLES = [
  'SYNAPSE_CONFIG_PATH',
  'SYNAPSE_TOKEN',
  'SYNAPSE_VERSION',
  'SYNAPSE_REVISION',
];

/** Short names; the long name of the same key wins over them. */
const SHORT_NAMES: Record<string, string> = { SYNAPSE_ENV: 'environment', LOG_LEVEL: 'log.level' };

export interface LoadedConfig {
  config: Config;
  /** Dotted path of every leaf → `environment variable NAME`, the file's path, or `default`. */
  origins: Record<string, string>;
}

export interface Problem {
  /** A file (with `:line:column` where known) or `environment variable NAME`. */
  where: string;
  /** Dotted key path; empty when the whole source is at fault. */
  path: string;
  message: string;
  hint?: string;
}

/** The values that one source gives, each with the origin that is shown for it, and what is wrong with it. */
export interface Layer {
  values: Map<string, { value: unknown; origin: string }>;
  problems: Problem[];
}

/** Thrown once, before anything starts, with every problem of every layer. */
export class ConfigError extends Error {
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    const count = problems.length === 1 ? '1 problem' : `${problems.length} problems`;
    super(`Cannot use the service configuration: ${count}\n${problems.map(describeProblem).join('\n')}`);
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

function describeProblem(problem: Problem): string {
  const subject = problem.path === '' ? problem.where : `${problem.where}: ${problem.path}`;
  return `  ${subject}: ${problem.message}${problem.hint ? `\n    hint: ${problem.hint}` : ''}`;
}

/**
 * Reads all layers and checks them together.
 * `env` is the environment of the service (the container's, not the shell's of a task): every SYNAPSE_
 * variable in it must be a known one. `configPath` defaults to its SYNAPSE_CONFIG_PATH.
 * @throws {ConfigError} with every problem of every layer.
 */
export function loadConfig({
  env = {},
  configPath = configPathOf(env),
}: {
  env?: Record<string, string | undefined>;
  configPath?: string;
} = {}): LoadedConfig {
  const files = layerFiles(configPath).map(readFileLayer);
  return mergeLayers([...files, readEnvironmentLayer(env)]);
}

export interface EffectiveValue {
  path: string;
  value: unknown;
  origin: string;
  /** The environment variable that overrides it. */
  variable: string;
  description: string;
}

/** Every key with its value, the layer it came from and how to change it: for people to read. */
export function effectiveValues({ config, origins }: LoadedConfig): EffectiveValue[] {
  return [...leaves].map(([path, leaf]) => ({
    path,
    value: path.split('.').reduce<unknown>((node, key) => (node as Record<string, unknown>)[key], config),
    origin: origins[path] ?? 'default',
    variable: variableName(path),
    description: leaf.description ?? '',
  }));
}

/** Lays layers over the defaults, later ones over earlier ones. Pure. @throws {ConfigError} */
export function mergeLayers(layers: Layer[]): LoadedConfig {
  const problems = layers.flatMap((layer) => layer.problems);
  if (problems.length > 0) throw new ConfigError(problems);
  const values = new Map(layers.flatMap((layer) => [...layer.values]));
  const origins = Object.fromEntries(
    [...leaves.keys()].map((path) => [path, values.get(path)?.origin ?? 'default']),
  );
  const nested: Record<string, unknown> = {};
  for (const [path, { value }] of values) setPath(nested, path.split('.'), value);
  const whole = ConfigSchema.safeParse(nested);
  if (whole.success) return { config: whole.data, origins };
  throw new ConfigError(
    whole.error.issues.map((issue) => {
      const path = issue.path.join('.');
      return valueProblem({ ...issue, path: [] }, path, values.get(path)?.value, origins[path] ?? 'default');
    }),
  );
}

function setPath(node: Record<string, unknown>, [key = '', ...rest]: string[], value: unknown): void {
  if (rest.length === 0) node[key] = value;
  else {
    node[key] ??= {};
    setPath(node[key] as Record<string, unknown>, rest, value);
  }
}

/** Adds one value to a layer after checking it alone against its leaf of the schema. */
function addValue(layer: Layer, path: string, value: unknown, origin: string, where = origin): void {
  const checked = leaves.get(path)!.safeParse(value);
  if (checked.success) layer.values.set(path, { value: checked.data, origin });
  else layer.problems.push(...checked.error.issues.map((issue) => valueProblem(issue, path, value, where)));
}

/** Says what was expected of a value and what it is; for a choice, also the nearest valid one. */
function valueProblem(
  issue: { message: string; path: PropertyKey[] },
  path: string,
  value: unknown,
  where: string,
): Problem {
  const inner = issue.path.reduce<unknown>((part, key) => (part as never)?.[key], value);
  const shown = JSON.stringify(inner) ?? String(inner);
  const expected = issue.message.replace(/^(Invalid|Too)[^:]*: /, '');
  const leaf = withoutDefault(leaves.get(path) ?? z.unknown());
  const choice = leaf instanceof z.ZodEnum ? nearest(String(value), leaf.options.map(String)) : undefined;
  return {
    where,
    path: [path, ...issue.path.map(String)].join('.'),
    message: `${expected}; the value is ${shown.length > 80 ? `${shown.slice(0, 77)}...` : shown}`,
    ...didYouMean(choice),
  };
}

/** Reads one JSON file; what is wrong with it is in the layer's problems, nothing is thrown. */
function readFileLayer(file: string): Layer {
  const layer: Layer = { values: new Map(), problems: [] };
  try {
    addText(layer, file, readFileSync(file, 'utf8'));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const missing = code === 'ENOENT';
    const hint = 'SYNAPSE_CONFIG_PATH names the environment file; the base file synapse.json lies beside it';
    layer.problems.push({
      where: file,
      path: '',
      message: missing ? 'no such file' : `cannot be read (${code ?? message})`,
      ...(missing ? { hint } : {}),
    });
  }
  return layer;
}

function addText(layer: Layer, file: string, text: string): void {
  const errors: jsonc.ParseError[] = [];
  const root = jsonc.parseTree(text, errors, { disallowComments: true, allowTrailingComma: false });
  const at = (offset: number) => {
    const before = text.slice(0, offset).split('\n');
    return `${file}:${before.length}:${before.at(-1)!.length + 1}`;
  };
  const [first] = errors;
  if (first) {
    // `CommaExpected` → `comma expected`
    const code = jsonc.printParseErrorCode(first.error).replace(/(?<=[a-z])(?=[A-Z])/g, ' ');
    layer.problems.push({
      where: at(first.offset),
      path: '',
      message: `not valid JSON: ${code.toLowerCase()}`,
    });
  } else if (root?.type !== 'object') {
    layer.problems.push({ where: at(0), path: '', message: 'expected a JSON object of configuration keys' });
  } else {
    addObject(layer, file, root, '', at);
  }
}

function addObject(
  layer: Layer,
  file: string,
  node: jsonc.Node,
  prefix: string,
  at: (offset: number) => string,
): void {
  for (const property of node.children ?? []) {
    const [key, value] = property.children as [jsonc.Node, jsonc.Node];
    const written = `${prefix}${key.value}`;
    if (written === '$schema') continue;
    const path = ALIASES[written] ?? written;
    const problem = (message: string, hint = {}) =>
      layer.problems.push({ where: at(key.offset), path: written, message, ...hint });
    if (layer.values.has(path)) problem(path === written ? 'given twice' : `given twice, also as ${path}`);
    if (leaves.has(path)) addValue(layer, path, jsonc.getNodeValue(value), file, at(value.offset));
    else if (!sections.has(path) && !ALIAS_SECTIONS.has(path))
      problem('unknown key', didYouMean(nearest(path, [...leaves.keys(), ...sections])));
    else if (value.type === 'object') addObject(layer, file, value, `${path}.`, at);
    else {
      const message = `expected an object, found ${value.type}`;
      layer.problems.push({ where: at(value.offset), path, message });
    }
  }
}

/**
 * The environment variables as a layer: SYNAPSE_<PATH> with `__` between levels. An empty variable counts as not
 * set, because compose files write `${NAME:-}`; a misspelt SYNAPSE_ variable is a problem.
 */
function readEnvironmentLayer(env: Record<string, string | undefined>): Layer {
  const layer: Layer = { values: new Map(), problems: [] };
  const paths = new Map(Object.entries(SHORT_NAMES));
  for (const [alias, path] of Object.entries(ALIASES)) paths.set(variableName(alias), path);
  for (const path of leaves.keys()) paths.set(variableName(path), path);
  for (const [name, path] of paths) {
    const raw = env[name];
    if (raw) addValue(layer, path, parseVariable(raw, leaves.get(path)!), `environment variable ${name}`);
  }
  for (const name of Object.keys(env)) {
    if (!name.startsWith('SYNAPSE_') || paths.has(name) || OTHER_VARIABLES.includes(name)) continue;
    const hint = didYouMean(nearest(name, [...paths.keys(), ...OTHER_VARIABLES]));
    const where = `environment variable ${name}`;
    layer.problems.push({ where, path: '', message: 'unknown variable', ...hint });
  }
  return layer;
}

/** Text that does not parse is returned as it is, for the schema to refuse with its own words. */
function parseVariable(raw: string, leaf: z.ZodType): unknown {
  const type = withoutDefault(leaf);
  const text = raw.trim();
  if (type instanceof z.ZodNumber) return text === '' || Number.isNaN(Number(text)) ? raw : Number(text);
  if (type instanceof z.ZodBoolean) return { true: true, false: false }[text.toLowerCase()] ?? raw;
  if (type instanceof z.ZodEnum)
    return type.options.find((option) => String(option).toLowerCase() === text.toLowerCase()) ?? raw;
  if (!(type instanceof z.ZodArray)) return raw;
  const items = text.split(',').map((item) => item.trim());
  return items.filter(Boolean);
}

/** The candidate most like `word`, or undefined when none is close enough to be meant. */
function nearest(word: string, candidates: Iterable<string>): string | undefined {
  let best: { name: string; cost: number } | undefined;
  for (const name of candidates) {
    // `chunk_size` may be meant for `semantic.chunk_size`; a match of the whole path counts for more.
    const cost = Math.min(spelling(word, name), spelling(lastSegment(word), lastSegment(name)) + 0.2);
    if (cost <= 1 && (best === undefined || cost < best.cost)) best = { name, cost };
  }
  return best?.name;
}

/** 0 is equal, up to 1 is a misspelling: two edits, or half of the longer word. */
function spelling(a: string, b: string): number {
  return distance(a.toLowerCase(), b.toLowerCase()) / Math.max(a.length / 2, b.length / 2, 2);
}

function lastSegment(path: string): string {
  return path.split(/\.|__/).at(-1) ?? path;
}

/** `did you mean "x"?`, as an object to spread, so that no hint is no key. */
function didYouMean(name: string | undefined): { hint?: string } {
  return name === undefined ? {} : { hint: `did you mean "${name}"?` };
}
