// What runs, from which commit, how healthy, and the success measures. Only reads; with --record it records one uptime
// sample (cron, each minute), with --heal it also restarts an unhealthy prod.
//
// Exit code 0: no problems; 1: there are, and the report says what to do.
import { stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import {
  CONTEXT_FLAG,
  describeStatus,
  loadFacts,
  loadProject,
  log,
  type Project,
  recordStatus,
  reportStatus,
  runTask,
  seriesOf,
  statusPage,
  usageError,
  WATCH_MS,
  watch,
  writeFileAtomic,
} from './lib/mod.ts';

await runTask({
  name: 'status',
  summary: 'Show what runs, from which commit, how healthy, and the success measures.',
  flags: {
    watch: { type: 'boolean', description: 'refresh every few seconds until Ctrl-C' },
    html: { type: 'string', value: 'FILE', description: 'write one self-contained page with charts' },
    record: { type: 'boolean', description: 'record one uptime sample; for cron, each minute' },
    heal: { type: 'boolean', description: 'with --record: restart an unhealthy prod, once' },
    ...CONTEXT_FLAG,
  },
  examples: [
    'npm run status',
    'npm run status -- --html status.html',
    'crontab -e, and this line:',
    `* * * * *  cd ${process.cwd()} && ${process.execPath} tasks/start.mjs status --record --heal >/dev/null 2>&1`,
  ],
  run: async ({ flags }) => {
    if (flags.watch && flags.json) throw usageError('status: --watch cannot be combined with --json');
    if (flags.heal && !flags.record) throw usageError('status: --heal needs --record');
    if (flags.html !== undefined) await verifyPage(flags.html);
    const project = await loadProject();
    if (flags.record) return record(project, flags.heal);
    const look = () => lookOnce(project, flags.html, flags.watch);
    return flags.watch ? watch(look) : look();
  },
});

/** @throws TaskError (exit 2) where no file can be written */
async function verifyPage(file: string) {
  const folder = dirname(resolve(file));
  const isDirectory = async (path: string) =>
    (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
  const cannot = `status: cannot write the page ${file}`;
  if (file === '' || (await isDirectory(file))) throw usageError(`${cannot}: expected the name of a file`);
  if (await isDirectory(folder)) return;
  throw usageError(`${cannot}: ${folder} is not a directory`, { hint: `mkdir -p ${folder}` });
}

async function lookOnce(project: Project, file: string | undefined, isWatching: boolean) {
  const facts = await loadFacts(project);
  const report = reportStatus(project, facts);
  if (file) {
    const refresh = isWatching ? WATCH_MS / 1000 : undefined;
    await writeFileAtomic(file, await statusPage(project.project.name, report, seriesOf(facts), refresh));
    log.done(`wrote ${file}`);
  }
  const exitCode = report.problems.length > 0 ? 1 : 0;
  return { data: { ...report }, text: describeStatus(project, report), exitCode };
}

async function record(project: Project, heal: boolean) {
  const { sample, healing } = await recordStatus(project, heal);
  const text = [`prod is ${sample.prod}`, sample.why, healing].filter(Boolean).join('; ');
  return { data: { sample, healing: healing ?? null }, text, exitCode: sample.prod === 'down' ? 1 : 0 };
}
