// The strict command line: declared flags only, the nearest match for an unknown one, and a help page
// made from the same declarations. Parsing is node's own parseArgs.
import { parseArgs } from 'node:util';
import { type TaskError, usageError } from './errors.ts';
import { suggestion } from './nearest.ts';

export interface Flag {
  type: 'boolean' | 'string';
  description: string;
  /** How the value is called in the help, e.g. `VERSION`. */
  value?: string;
  short?: string;
}

export type Flags = Record<string, Flag>;

export type FlagValues<F extends Flags> = {
  [K in keyof F]: F[K]['type'] extends 'boolean' ? boolean : string | undefined;
};

/** What every task accepts. */
export const COMMON_FLAGS = {
  'dry-run': { type: 'boolean', description: 'print the plan and every command, change nothing' },
  yes: { type: 'boolean', short: 'y', description: 'skip the question' },
  json: { type: 'boolean', description: 'print exactly one JSON object on stdout, on failure too' },
  verbose: { type: 'boolean', description: 'print each command as it runs' },
  help: { type: 'boolean', short: 'h', description: 'print this page' },
} as const satisfies Flags;

/** For tasks that can work on another machine's engine; `runTask` hands the value to every call of docker. */
export const CONTEXT_FLAG = {
  context: {
    type: 'string',
    value: 'NAME',
    description: 'work on the engine of this Docker context, e.g. one made for ssh://pi',
  },
} as const satisfies Flags;

export interface CommandLine<F extends Flags> {
  name: string;
  summary: string;
  /** The positional arguments as the help shows them, e.g. `[patch|minor|major]`. */
  arguments?: string;
  maxArguments?: number;
  /** The words that the first positional may be; anything else is refused with the nearest match. */
  choices?: readonly string[];
  flags: F;
  examples?: readonly string[];
}

/** @throws TaskError (exit 2) for an unknown flag, a missing value or a surplus argument. */
export function parseCommandLine<F extends Flags>(spec: CommandLine<F>, argv: readonly string[]) {
  const flags: Flags = { ...spec.flags, ...COMMON_FLAGS };
  const options = Object.fromEntries(
    Object.entries(flags).map(([name, { type, short }]) => [name, { type, ...(short ? { short } : {}) }]),
  );
  const { tokens } = parseArgs({
    args: [...argv],
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const values: Record<string, boolean | string | undefined> = {};
  for (const [name, flag] of Object.entries(flags))
    values[name] = flag.type === 'boolean' ? false : undefined;
  for (const token of tokens) {
    if (token.kind !== 'option') continue;
    const flag = Object.hasOwn(flags, token.name) ? flags[token.name] : undefined;
    if (!flag) throw unknownFlag(spec, token.rawName, flags);
    values[token.name] = flagValue(spec, flag, token);
  }
  const positionals = tokens.flatMap((token) => (token.kind === 'positional' ? [token.value] : []));
  verifyPositionals(spec, positionals);
  return { flags: values as FlagValues<F & typeof COMMON_FLAGS>, positionals };
}

interface OptionToken {
  rawName: string;
  value: string | undefined;
  inlineValue: boolean | undefined;
}

function flagValue(spec: CommandLine<Flags>, flag: Flag, token: OptionToken): boolean | string {
  if (flag.type === 'boolean') {
    if (token.inlineValue) throw wrong(spec, `${token.rawName} takes no value, got "${token.value}"`);
    return true;
  }
  const looksLikeFlag = !token.inlineValue && token.value?.startsWith('--');
  if (!token.value || looksLikeFlag) {
    throw wrong(spec, `${token.rawName} needs a value: ${token.rawName} ${flag.value ?? 'VALUE'}`);
  }
  return token.value;
}

function unknownFlag(spec: CommandLine<Flags>, rawName: string, flags: Flags): TaskError {
  const names = Object.keys(flags).map((name) => `--${name}`);
  return wrong(spec, `Unknown flag ${rawName}`, suggestion(rawName, names));
}

function verifyPositionals(spec: CommandLine<Flags>, positionals: readonly string[]): void {
  const surplus = positionals[spec.maxArguments ?? 0];
  if (surplus !== undefined) throw wrong(spec, `Unexpected argument "${surplus}"`);
  const [first] = positionals;
  if (spec.choices && first !== undefined && !spec.choices.includes(first)) {
    throw wrong(spec, `Unknown argument "${first}"`, suggestion(first, spec.choices));
  }
}

function wrong(spec: CommandLine<Flags>, message: string, hint?: string): TaskError {
  const help = `see: tsx tasks/${spec.name}.ts --help`;
  return usageError(`${spec.name}: ${message}`, { hint: hint ? `${hint}\n${help}` : help });
}

export function helpPage<F extends Flags>(spec: CommandLine<F>): string {
  const rows = Object.entries({ ...spec.flags, ...COMMON_FLAGS } as Flags).map(([name, flag]) => {
    const value = flag.type === 'string' ? ` ${flag.value ?? 'VALUE'}` : '';
    const short = flag.short ? `-${flag.short}, ` : '    ';
    return [`  ${short}--${name}${value}`, flag.description] as const;
  });
  const width = Math.max(...rows.map(([left]) => left.length)) + 2;
  const usage = `Usage: tsx tasks/${spec.name}.ts${spec.arguments ? ` ${spec.arguments}` : ''} [flags]`;
  const examples = spec.examples?.length
    ? ['', 'Examples:', ...spec.examples.map((line) => `  ${line}`)]
    : [];
  return [
    spec.summary,
    '',
    usage,
    '',
    'Flags:',
    ...rows.map(([left, right]) => left.padEnd(width) + right),
    ...examples,
    '',
  ].join('\n');
}
