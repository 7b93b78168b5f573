// The environment variables as the highest layer: SYNAPSE_<PATH> with `__` between levels, parsed by the
// type that the schema gives the key. A misspelt SYNAPSE_ variable is a problem, not silence.

import * as z from 'zod';
import { addValue, configLeaves, emptyLayer, type Layer } from './layer.ts';
import { didYouMean, nearest } from './problem.ts';
import { withoutDefault } from './schema.ts';
import { variableName } from './sources.ts';

/** SYNAPSE_ variables that configure the container rather than a key of the schema. */
export const OTHER_VARIABLES = [
  'SYNAPSE_CONFIG_PATH',
  'SYNAPSE_TOKEN',
  'SYNAPSE_VERSION',
  'SYNAPSE_REVISION',
];

/** Short names; the long name of the same key wins over them. */
const SHORT_NAMES: Record<string, string> = { SYNAPSE_ENV: 'environment', LOG_LEVEL: 'log.level' };

/** An empty variable counts as not set, because compose files write `${NAME:-}`. */
export function readEnvironmentLayer(env: Record<string, string | undefined>): Layer {
  const layer = emptyLayer();
  const paths = new Map(Object.entries(SHORT_NAMES));
  for (const path of configLeaves.keys()) paths.set(variableName(path), path);
  for (const [name, path] of paths) {
    const raw = env[name];
    if (raw)
      addValue(layer, path, parseVariable(raw, configLeaves.get(path)!), `environment variable ${name}`);
  }
  for (const name of Object.keys(env)) {
    if (!name.startsWith('SYNAPSE_') || paths.has(name) || OTHER_VARIABLES.includes(name)) continue;
    const hint = didYouMean(nearest(name, [...paths.keys(), ...OTHER_VARIABLES]));
    layer.problems.push({
      where: `environment variable ${name}`,
      path: '',
      message: 'unknown variable',
      ...hint,
    });
  }
  return layer;
}

/** Text that does not parse is returned as it is, for the schema to refuse with its own words. */
function parseVariable(raw: string, leaf: z.ZodType): unknown {
  const type = withoutDefault(leaf);
  const text = raw.trim();
  if (type instanceof z.ZodNumber) return text === '' || Number.isNaN(Number(text)) ? raw : Number(text);
  if (type instanceof z.ZodBoolean) return { true: true, false: false }[text.toLowerCase()] ?? raw;
  if (type instanceof z.ZodEnum) {
    return type.options.find((option) => String(option).toLowerCase() === text.toLowerCase()) ?? raw;
  }
  if (!(type instanceof z.ZodArray)) return raw;
  return text
    .split(',')
    .map((item) => item.trim())
    .filter(Boolean);
}
