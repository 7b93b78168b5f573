// The command line contract: strict flags with the nearest match, help from the same declarations, and a
// `--help` of every task.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { nearest, suggestion, TaskError } from '../../tasks/lib/errors.ts';
import { helpPage, parseCommandLine } from '../../tasks/lib/task.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

const SPEC = {
  name: 'sail',
  summary: 'Take the ship out.',
  arguments: '[north|south]',
  maxArguments: 1,
  choices: ['north', 'south'],
  flags: {
    knots: { type: 'string', value: 'N', description: 'speed' },
    night: { type: 'boolean', description: 'with lights' },
  },
  examples: ['npm run sail -- north --knots 5'],
} as const;

function refusal(argv: string[]): TaskError {
  try {
    parseCommandLine(SPEC, argv);
  } catch (error) {
    assert(error instanceof TaskError);
    return error;
  }
  return assert.fail(`${argv.join(' ')} was accepted`);
}

test('what is given is what the task gets; what is not given is false or undefined', () => {
  const rows: [string[], Record<string, unknown>, string[]][] = [
    [[], { knots: undefined, night: false, yes: false, json: false, 'dry-run': false }, []],
    [['north', '--knots', '5', '-y'], { knots: '5', yes: true }, ['north']],
    [['--knots=5', '--json', '--dry-run', 'south'], { knots: '5', json: true, 'dry-run': true }, ['south']],
    [['--knots=-5'], { knots: '-5' }, []],
    [['--knots', '-5'], { knots: '-5' }, []],
    [['--knots', '5', '--knots', '6'], { knots: '6' }, []],
    [['--', 'north'], { night: false }, ['north']],
    [['-h'], { help: true }, []],
  ];
  for (const [argv, expected, positionals] of rows) {
    const parsed = parseCommandLine(SPEC, argv);
    const flags = parsed.flags as Record<string, unknown>;
    for (const [name, value] of Object.entries(expected)) assert.equal(flags[name], value, argv.join(' '));
    assert.deepEqual(parsed.positionals, positionals);
  }
});

test('everything else is refused with exit 2, saying what was meant and where the help is', () => {
  const rows: [string[], message: string, hint: RegExp][] = [
    [['--nigth'], 'sail: Unknown flag --nigth', /did you mean --night\?/],
    [['--dryrun'], 'sail: Unknown flag --dryrun', /did you mean --dry-run\?/],
    [['--no-night'], 'sail: Unknown flag --no-night', /--night/],
    [['--force'], 'sail: Unknown flag --force', /valid: --knots, --night, --dry-run/],
    [['-x'], 'sail: Unknown flag -x', /valid:/],
    [['--constructor'], 'sail: Unknown flag --constructor', /valid:/],
    [['--knots'], 'sail: --knots needs a value: --knots N', /--help/],
    [['--knots='], 'sail: --knots needs a value: --knots N', /--help/],
    [['--knots', '--night'], 'sail: --knots needs a value: --knots N', /--help/],
    [['--night=no'], 'sail: --night takes no value, got "no"', /--help/],
    [['--night='], 'sail: --night takes no value, got ""', /--help/],
    [['nroth'], 'sail: Unknown argument "nroth"', /did you mean north\?/],
    [['east-by-east'], 'sail: Unknown argument "east-by-east"', /valid: north, south/],
    [['north', 'south'], 'sail: Unexpected argument "south"', /--help/],
  ];
  for (const [argv, message, hint] of rows) {
    const error = refusal(argv);
    assert.deepEqual([error.message, error.code, error.exitCode], [message, 'usage', 2]);
    assert.match(error.hint ?? '', hint, argv.join(' '));
    assert.match(error.hint ?? '', /see: npm run sail -- --help/);
  }
});

test('the nearest name is offered only when it is near', () => {
  assert.equal(nearest('relese', ['release', 'status']), 'release');
  assert.equal(nearest('x', ['release', 'status']), undefined);
  assert.equal(nearest('x', []), undefined);
  assert.equal(suggestion('zzzzzz', ['a', 'b']), 'valid: a, b');
});

test('the help page', () => {
  assert.equal(
    helpPage(SPEC),
    `Take the ship out.

Usage: npm run sail -- [north|south] [flags]

Flags:
      --knots N  speed
      --night    with lights
      --dry-run  print the plan and every command, change nothing
  -y, --yes      skip the question
      --json     print exactly one JSON object on stdout, on failure too
      --quiet    print only warnings and errors, e.g. for cron
      --verbose  print each command as it runs
  -h, --help     print this page

Examples:
  npm run sail -- north --knots 5
`,
  );
});

for (const name of readdirSync(join(ROOT, 'tasks')).filter((file) => file.endsWith('.ts'))) {
  test(`${name} --help prints its page, exit 0`, () => {
    const argv = ['tasks/start.mjs', name.slice(0, -3), '--help'];
    const { status, stdout, stderr } = spawnSync(process.execPath, argv, { cwd: ROOT, encoding: 'utf8' });
    assert.equal(status, 0, stderr);
    const script = name === 'switch-env.ts' ? 'switch' : name.slice(0, -3);
    const page = new RegExp(`^\\S.+\\n\\nUsage: npm run ${script} --.* \\[flags\\]\\n`);
    assert.match(stdout, page);
  });
}

test('a dry run that npm took for itself is refused, not done for real', () => {
  const rows: [argv: string[], code: number, says: RegExp][] = [
    [['doctor'], 2, /npm run doctor -- --dry-run/],
    [['schemas', '--check', '--dry-run'], 0, /^(?!.*npm took)/s],
  ];
  for (const [argv, code, says] of rows) {
    const env = { ...process.env, npm_config_dry_run: 'true' };
    const options = { cwd: ROOT, encoding: 'utf8', env } as const;
    const { status, stderr } = spawnSync(process.execPath, ['tasks/start.mjs', ...argv], options);
    assert.equal(status, code, stderr);
    assert.match(stderr, says);
  }
});

test('a reader that stops early is no failure', () => {
  const command = `'${process.execPath}' tasks/start.mjs release --help | head -1; exit "\${PIPESTATUS[0]}"`;
  const { status, stderr } = spawnSync('bash', ['-c', command], { cwd: ROOT, encoding: 'utf8' });
  assert.deepEqual([status, stderr], [0, '']);
});
