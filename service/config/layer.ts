// One layer of configuration: the values a single source gives, each with the place it was written at,
// and what is wrong with that source. Pure: reading files is file.ts, merging is ../config.ts.

import * as z from 'zod';
import { didYouMean, nearest, type Problem } from './problem.ts';
import { ConfigSchema, schemaPaths, withoutDefault } from './schema.ts';

export interface Layer {
  /** Dotted path → value and the origin that is shown for it. */
  values: Map<string, { value: unknown; origin: string }>;
  problems: Problem[];
}

const { leaves, sections } = schemaPaths(ConfigSchema);

export { leaves as configLeaves, sections as configSections };

export function emptyLayer(): Layer {
  return { values: new Map(), problems: [] };
}

/** Adds one value to a layer after checking it alone against its leaf of the schema. */
export function addValue(layer: Layer, path: string, value: unknown, origin: string, where = origin): void {
  const checked = leaves.get(path)!.safeParse(value);
  if (checked.success) layer.values.set(path, { value: checked.data, origin });
  else layer.problems.push(...checked.error.issues.map((issue) => valueProblem(issue, path, value, where)));
}

/** Says what was expected of a value and what it is; for a choice, also the nearest valid one. */
export function valueProblem(
  issue: { message: string; path: PropertyKey[] },
  path: string,
  value: unknown,
  where: string,
): Problem {
  const inner = issue.path.reduce<unknown>((part, key) => (part as never)?.[key], value);
  const expected = issue.message.replace(/^(Invalid|Too)[^:]*: /, '');
  const leaf = withoutDefault(leaves.get(path) ?? z.unknown());
  const choice = leaf instanceof z.ZodEnum ? nearest(String(value), leaf.options.map(String)) : undefined;
  const fullPath = [path, ...issue.path.map(String)].join('.');
  return {
    where,
    path: fullPath,
    message: `${expected}; the value is ${show(inner)}`,
    ...didYouMean(choice),
  };
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

export function unknownKey(path: string, where: string): Problem {
  return {
    where,
    path,
    message: 'unknown key',
    ...didYouMean(nearest(path, [...leaves.keys(), ...sections])),
  };
}
