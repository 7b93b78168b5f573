// zod's issues in a user's words: file, key path, what is there, what was expected, the nearest valid key.
import type { core, ZodError, ZodObject, ZodType } from 'zod';
import { z } from '#zod';
import { type TaskError, usageError } from './errors.ts';
import { suggestion } from './nearest.ts';

type Issue = core.$ZodIssue;

/** One error per problem. `data` is the parsed file, to say what is there. */
export function describeIssues(schema: ZodType, error: ZodError, file: string, data: unknown): TaskError[] {
  return error.issues.flatMap((issue) => describeIssue(schema, issue, file, data));
}

function describeIssue(schema: ZodType, issue: Issue, file: string, data: unknown): TaskError[] {
  if (issue.code === 'unrecognized_keys') {
    const valid = keysAt(schema, issue.path);
    return issue.keys.map((key) =>
      usageError(`${file}: unknown key ${keyPath([...issue.path, key])}`, {
        code: 'config-unknown-key',
        hint: suggestion(key, valid),
      }),
    );
  }
  const found = valueAt(data, issue.path);
  const what = found === undefined ? 'is missing' : `is ${JSON.stringify(found)}`;
  const expected = issue.message.replace(/^Invalid input: /, '').replace(/, received .*$/, '');
  return [usageError(`${file}: ${keyPath(issue.path)} ${what}; ${expected}`, { code: 'config-invalid' })];
}

function keyPath(path: readonly PropertyKey[]): string {
  return path.map(String).join('.') || '(the whole file)';
}

function valueAt(data: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key],
    data,
  );
}

/** The keys that are valid at `path`, seen through defaults and optionals. */
function keysAt(schema: ZodType, path: readonly PropertyKey[]): string[] {
  let current: unknown = schema;
  for (const key of path) current = (unwrap(current) as ZodObject).shape?.[key as string];
  const object = unwrap(current);
  return object instanceof z.ZodObject ? Object.keys(object.shape) : [];
}

function unwrap(schema: unknown): unknown {
  let current = schema;
  while (
    current instanceof z.ZodDefault ||
    current instanceof z.ZodPrefault ||
    current instanceof z.ZodOptional
  ) {
    current = current.unwrap();
  }
  return current;
}
