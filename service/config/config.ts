// The layered configuration loader: environment variables → environment file → base file → defaults. It runs in the
// container and in the tasks, so both agree on every value. All problems are reported together, each with
// its place and the nearest valid name.
import { readFileSync } from 'node:fs';
import { distance } from 'fastest-levenshtein';
import * as jsonc from 'jsonc-parser';
import * as z from 'zod';
import { type Config, ConfigSchema, schemaPaths, withoutDefault } from './schema.ts';
import { configPathOf, layerFiles, variableName } from './sources.ts';

const { leaves, sections } = schemaPaths(ConfigSchema);

/** Names that configuration files of the Python server use, and what they are called here. */
const ALIASES: Record<string, string> = { 'logging.level': 'log.level' };
const ALIAS_SECTIONS = new Set(Object.keys(ALIASES).map((path) => path.slice(0, path.lastIndexOf('.'))));

/** SYNAPSE_ variables that configure the container rather than a key of the schema. */
const OTHER_VARIABLES = ['SYNAPSE_CONFIG_PATH', 'SYNAPSE_TOKEN', 'SYNAPSE_VERSION', 'SYNAPSE_REVISION'];

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
  /** Dotted key path; empty when the problem is the whole source. */
  path: string;
  message: string;
  hint?: string | undefined;
}

/** Thrown once, before anything starts, with every problem of every layer. */
export class ConfigError extends Error {
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    const count = problems.length === 1 ? '1 problem' : `${problems.length} problems`;
    const lines = problems.map(({ where, path, message, hint }) => {
      const subject = path === '' ? where : `${where}: ${path}`;
      return `  ${subject}: ${message}${hint ? `\n    hint: ${hint}` : ''}`;
    });
    super(`Cannot use the service configuration: ${count}\n${lines.join('\n')}`);
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

/** The values of one source by their paths, each with the origin that is shown for it. */
type Layer = Map<string, { value: unknown; origin: string }>;

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
  const problems: Problem[] = [];
  const files = layerFiles(configPath).map((file) => readFileLayer(file, problems));
  const layers = [...files, readVariables(env, problems)];
  if (problems.length > 0) throw new ConfigError(problems);
  return mergeLayers(layers);
}

export type EffectiveValue = ReturnType<typeof effectiveValues>[number];

/** Every key with its value and the layer it came from. */
export function effectiveValues({ config, origins }: LoadedConfig) {
  return Object.entries(origins).map(([path, origin]) => {
    const value = path.split('.').reduce<unknown>((node, key) => (node as never)[key], config);
    return { path, value, origin };
  });
}

/** Lays layers over the defaults, later ones over earlier ones. @throws {ConfigError} */
export function mergeLayers(layers: Layer[]): LoadedConfig {
  const values = new Map(layers.flatMap((layer) => [...layer]));
  const origins = Object.fromEntries(
    [...leaves.keys()].map((path) => [path, values.get(path)?.origin ?? 'default']),
  );
  // Keys have one or two levels.
  const nested: Record<string, Record<string, unknown>> = {};
  for (const [path, { value }] of values) {
    const [key = '', below] = path.split('.');
    Object.assign(nested, { [key]: below === undefined ? value : { ...nested[key], [below]: value } });
  }
  const whole = ConfigSchema.safeParse(nested);
  if (whole.success) return { config: whole.data, origins };
  throw new ConfigError(
    whole.error.issues.map((issue) => {
      const path = issue.path.join('.');
      return valueProblem({ ...issue, path: [] }, path, values.get(path)?.value, origins[path] ?? 'default');
    }),
  );
}

/** What was expected of a value and what it is; for a choice, also the nearest valid one. */
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
  return {
    where,
    path: [path, ...issue.path.map(String)].join('.'),
    message: `${expected}; the value is ${shown.length > 80 ? `${shown.slice(0, 77)}...` : shown}`,
    hint: leaf instanceof z.ZodEnum ? didYouMean(String(value), leaf.options.map(String)) : undefined,
  };
}

function readFileLayer(file: string, problems: Problem[]): Layer {
  const layer: Layer = new Map();
  try {
    addText(layer, file, readFileSync(file, 'utf8'), problems);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const missing = code === 'ENOENT';
    problems.push({
      where: file,
      path: '',
      message: missing ? 'no such file' : `cannot be read (${code ?? message})`,
      hint: missing
        ? 'SYNAPSE_CONFIG_PATH names the environment file; the base file synapse.json lies beside it'
        : undefined,
    });
  }
  return layer;
}

function addText(layer: Layer, file: string, text: string, problems: Problem[]): void {
  const errors: jsonc.ParseError[] = [];
  const root = jsonc.parseTree(text, errors, { disallowComments: true, allowTrailingComma: false });
  const at = (offset: number) => {
    const before = text.slice(0, offset).split('\n');
    return `${file}:${before.length}:${before.at(-1)!.length + 1}`;
  };
  const report = (offset: number, path: string, message: string, hint?: string) =>
    problems.push({ where: at(offset), path, message, hint });
  const addObject = (node: jsonc.Node, prefix: string): void => {
    for (const property of node.children ?? []) {
      const [key, value] = property.children as [jsonc.Node, jsonc.Node];
      const written = `${prefix}${key.value}`;
      if (written === '$schema') continue;
      const path = ALIASES[written] ?? written;
      if (layer.has(path))
        report(key.offset, written, path === written ? 'given twice' : `given twice, also as ${path}`);
      const leaf = leaves.get(path);
      if (leaf) {
        const checked = leaf.safeParse(jsonc.getNodeValue(value));
        layer.set(path, { value: checked.data, origin: file });
        for (const issue of checked.error?.issues ?? [])
          problems.push(valueProblem(issue, path, jsonc.getNodeValue(value), at(value.offset)));
      } else if (!sections.has(path) && !ALIAS_SECTIONS.has(path))
        report(key.offset, written, 'unknown key', didYouMean(path, [...leaves.keys(), ...sections]));
      else if (value.type === 'object') addObject(value, `${path}.`);
      else report(value.offset, path, `expected an object, found ${value.type}`);
    }
  };
  const [first] = errors;
  if (first) {
    // `CommaExpected` → `comma expected`
    const code = jsonc.printParseErrorCode(first.error).replace(/(?<=[a-z])(?=[A-Z])/g, ' ');
    report(first.offset, '', `not valid JSON: ${code.toLowerCase()}`);
  } else if (root?.type !== 'object') report(0, '', 'expected a JSON object of configuration keys');
  else addObject(root, '');
}

/**
 * The environment variables as a layer: SYNAPSE_<PATH> with `__` between levels. An empty variable counts as not
 * set, because compose files write `${NAME:-}`; a misspelt SYNAPSE_ variable is a problem.
 */
function readVariables(env: Record<string, string | undefined>, problems: Problem[]): Layer {
  const layer: Layer = new Map();
  const paths = new Map(Object.entries(SHORT_NAMES));
  for (const [alias, path] of Object.entries(ALIASES)) paths.set(variableName(alias), path);
  for (const path of leaves.keys()) paths.set(variableName(path), path);
  for (const [name, path] of paths) {
    const raw = env[name];
    if (!raw) continue;
    const origin = `environment variable ${name}`;
    const value = parseVariable(raw, leaves.get(path)!);
    const checked = leaves.get(path)!.safeParse(value);
    layer.set(path, { value: checked.data, origin });
    for (const issue of checked.error?.issues ?? []) problems.push(valueProblem(issue, path, value, origin));
  }
  for (const name of Object.keys(env)) {
    if (!name.startsWith('SYNAPSE_') || paths.has(name) || OTHER_VARIABLES.includes(name)) continue;
    const hint = didYouMean(name, [...paths.keys(), ...OTHER_VARIABLES]);
    problems.push({ where: `environment variable ${name}`, path: '', message: 'unknown variable', hint });
  }
  return layer;
}

/** Text that does not parse is returned as it is, for the schema to refuse. */
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

/** `did you mean "x"?` for the candidate most like `word`; undefined when none is close enough. */
function didYouMean(word: string, candidates: readonly string[]): string | undefined {
  const last = (path: string) => path.split(/\.|__/).at(-1) ?? path;
  const costs = candidates.map((name): [string, number] => [
    name,
    // `chunk_size` may be meant for `semantic.chunk_size`; a match of the whole path counts for more.
    Math.min(spelling(word, name), spelling(last(word), last(name)) + 0.2),
  ]);
  const [best] = costs.filter(([, cost]) => cost <= 1).sort(([, a], [, b]) => a - b);
  return best && `did you mean "${best[0]}"?`;
}

/** 0 is equal, up to 1 is a misspelling: two edits, or half of the longer word. */
function spelling(a: string, b: string): number {
  return distance(a.toLowerCase(), b.toLowerCase()) / Math.max(a.length / 2, b.length / 2, 2);
}
