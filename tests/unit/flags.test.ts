// The command line contract: strict flags with the nearest match, help from the same declarations, and a
// `--help` of every task.
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { nearest, suggestion, TaskError } from '../../tasks/lib/errors.ts';
import { helpPage, parseCommandLine, scriptOf } from '../../tasks/lib/task.ts';
import { REPOSITORY, type RunOptions, runProcess } from '../tasks/processes.ts';

const TASKS = readdirSync(join(REPOSITORY, 'tasks')).filter((file) => file.endsWith('.ts'));

const start = (argv: string[], options: RunOptions = {}) =>
  runProcess(process.execPath, ['tasks/start.mjs', ...argv], { cwd: REPOSITORY, ...options });

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
    [['--knots', '-5'], 'sail: --knots needs a value: --knots N', /--help/],
    [['--knots', '--night'], 'sail: --knots needs a value: --knots N', /--help/],
    [['--night=no'], 'sail: --night takes no value', /--help/],
    [['--night='], 'sail: --night takes no value', /--help/],
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

test('every task prints its help page, and refuses what it does not know, by the name of its script', async () => {
  for (const task of TASKS.map((file) => file.slice(0, -3))) {
    const { code, stdout, stderr } = await start([task, '--help']);
    assert.equal(code, 0, stderr);
    const script = scriptOf(task);
    assert.match(stdout, new RegExp(`^\\S.+\\n\\nUsage: npm run ${script} --.* \\[flags\\]\\n`));
    const refused = await start([task, '--no-such-flag']);
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, new RegExp(`✗ ${script}: Unknown flag --no-such-flag`));
  }
});

test('a dry run that npm took for itself is refused, not done for real', async () => {
  const rows: [argv: string[], code: number, says: RegExp][] = [
    [['doctor'], 2, /npm run doctor -- --dry-run/],
    [['schemas', '--check', '--dry-run'], 0, /^(?!.*npm took)/s],
  ];
  for (const [argv, expected, says] of rows) {
    const { code, stderr } = await start(argv, { env: { npm_config_dry_run: 'true' } });
    assert.equal(code, expected, stderr);
    assert.match(stderr, says);
  }
});

test('a reader that stops early is no failure', async () => {
  const command = `'${process.execPath}' tasks/start.mjs release --help | head -1; exit "\${PIPESTATUS[0]}"`;
  const { code, stderr } = await runProcess('bash', ['-c', command], { cwd: REPOSITORY });
  assert.deepEqual([code, stderr], [0, '']);
});
