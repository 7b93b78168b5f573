// The layered configuration loader: environment variables → environment file → base file → defaults.
// The same code runs inside the container and in the tasks outside it, so both agree on every value.
import { readEnvironmentLayer } from './environment.ts';
import { readFileLayer } from './file.ts';
import { configLeaves, type Layer, valueProblem } from './layer.ts';
import { ConfigError } from './problem.ts';
import { type Config, ConfigSchema } from './schema.ts';
import { configPathOf, layerFiles, variableName } from './sources.ts';

export { OTHER_VARIABLES } from './environment.ts';
export { ConfigError, type Problem } from './problem.ts';
export { type Config, ConfigSchema, LEARNING_MODES, LOG_LEVELS } from './schema.ts';
export { BASE_FILE, DEFAULT_CONFIG_PATH, layerFiles, variableName } from './sources.ts';

export interface LoadedConfig {
  config: Config;
  /** Dotted path of every leaf → `environment variable NAME`, the file's path, or `default`. */
  origins: Record<string, string>;
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
  return [...configLeaves].map(([path, leaf]) => ({
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
    [...configLeaves.keys()].map((path) => [path, values.get(path)?.origin ?? 'default']),
  );
  const nested = nest(new Map([...values].map(([path, { value }]) => [path, value])));
  const whole = ConfigSchema.safeParse(nested);
  if (whole.success) return { config: whole.data, origins };
  throw new ConfigError(
    whole.error.issues.map((issue) => {
      const path = issue.path.join('.');
      return valueProblem({ ...issue, path: [] }, path, values.get(path)?.value, origins[path] ?? 'default');
    }),
  );
}

/** `{'a.b' → 1}` → `{a: {b: 1}}`. */
function nest(values: Map<string, unknown>): Record<string, unknown> {
  const root: Record<string, unknown> = {};
  for (const [path, value] of values) {
    const keys = path.split('.');
    const leaf = keys.pop()!;
    const parent = keys.reduce<Record<string, unknown>>((node, key) => {
      node[key] ??= {};
      return node[key] as Record<string, unknown>;
    }, root);
    parent[leaf] = value;
  }
  return root;
}
