// What runs, which commit, how healthy, and how that compares with what was promised. Looks only; with --record
// it writes one sample down for the uptime (cron, each minute), with --heal it also restarts a prod that is ill.
//
// Exit code 0: all is well; 1: something is not, and the page says what to do.
import {
  CONTEXT_FLAG,
  loadProject,
  log,
  lookAtStatus,
  recordStatus,
  runTask,
  type Status,
  usageError,
  watch,
} from './lib/mod.ts';

await runTask({
  name: 'status',
  summary: 'What runs, which commit, how healthy, and the success measures with their present values.',
  flags: {
    watch: { type: 'boolean', description: 'show it again every few seconds until Ctrl-C' },
    html: { type: 'string', value: 'FILE', description: 'write one self-contained page with charts' },
    record: { type: 'boolean', description: 'write one sample for the uptime; for cron, each minute' },
    heal: { type: 'boolean', description: 'with --record: restart a prod that is not well, once' },
    ...CONTEXT_FLAG,
  },
  examples: [
    'npm run status',
    'npm run status -- --html status.html',
    'crontab -e, and this line:',
    `* * * * *  cd ${process.cwd()} && ${process.execPath} tasks/start.mjs status --record --heal >/dev/null 2>&1`,
  ],
  run: async ({ flags }) => {
    if (flags.watch && flags.json) throw usageError('status: --watch is for people, --json for one answer');
    if (flags.heal && !flags.record)
      throw usageError('status: --heal needs --record, which remembers what it did');
    const project = await loadProject();
    if (flags.record) return describeSample(await recordStatus(project, flags.heal));
    const look = async () => answer(await lookAtStatus(project), flags.html);
    return flags.watch ? watch(look) : look();
  },
});

async function answer({ report, text, writePage }: Status, page: string | undefined) {
  if (page) {
    await writePage(page);
    log.done(`wrote ${page}`);
  }
  return { data: { ...report }, text, exitCode: report.problems.length > 0 ? 1 : 0 };
}

function describeSample({ sample, healing }: Awaited<ReturnType<typeof recordStatus>>) {
  const text = [`prod is ${sample.prod}`, sample.why, healing].filter(Boolean).join('; ');
  return { data: { sample, healing: healing ?? null }, text, exitCode: sample.prod === 'down' ? 1 : 0 };
}
