// `doctor --live` and `status` on Synapse with a token: what is written through dev is read through prod, and containers
// whose settings differ from the files are reported.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { queryHealth } from '../../tasks/lib/docker/health.ts';
import type { Examined } from '../../tasks/lib/doctor/check.ts';
import type { StatusReport } from '../../tasks/lib/status/report.ts';
import { docker } from './processes.ts';
import type { TestProject } from './project.ts';

const TOKEN = 'live-test-token-93c1';

/** In a project that was up; leaves prod with a container that was started by hand, and dev stopped. */
export async function testDoctor(t: TestContext, project: TestProject): Promise<void> {
  await project.edit('.env', (text) => `${text}SYNAPSE_TOKEN=${TOKEN}\n`);
  const up = await project.task('up', ['--yes', '--json']);
  assert.equal(up.code, 0, up.stderr);
  const live = async () => {
    const outcome = await project.task('doctor', ['--live', '--json']);
    const { checks } = outcome.json() as { checks: Examined[] };
    assert.ok(!outcome.stdout.includes(TOKEN) && !outcome.stderr.includes(TOKEN), 'the token stays secret');
    const ours = checks.filter(({ id }) => id.startsWith('live-'));
    const verdicts = Object.fromEntries(ours.map(({ id, verdict }) => [id, verdict]));
    return { ...outcome, checks, verdicts, finding: (id: string) => checks.find((one) => one.id === id)! };
  };
  const containers = () => project.snapshot().then((snapshot) => snapshot.containers);

  await t.test('all is well: nothing fails, nothing is started or stopped', async () => {
    const before = await containers();
    const { code, checks, verdicts } = await live();
    assert.deepEqual(
      checks.filter(({ verdict }) => verdict === 'failed'),
      [],
    );
    assert.equal(code, 0);
    assert.deepEqual(verdicts, { 'live-memory': 'ok', 'live-variables': 'ok', 'live-config': 'ok' });
    assert.equal(await containers(), before);
  });

  await t.test('status shows the effective configuration and the limits', async () => {
    const outcome = await project.task('status', ['--json']);
    assert.equal(outcome.code, 0, outcome.stderr);
    const { environments } = outcome.json() as unknown as StatusReport;
    assert.deepEqual(environments.dev.config, {
      'log.level': 'DEBUG',
      'automatic_learning.mode': 'aggressive',
    });
    assert.deepEqual(environments.prod.config, {
      'log.level': 'INFO',
      'automatic_learning.mode': 'moderate',
    });
    assert.equal(environments.prod.memory?.limit, 3 * 2 ** 30);
    const page = join(project.directory, 'status.html');
    const written = await project.task('status', ['--html', page]);
    assert.equal(written.code, 0, written.stderr);
    assert.match(
      await project.read('../status.html'),
      /^<!doctype html>[\s\S]*All is well[\s\S]*<\/html>\n$/,
    );
  });

  await t.test('a variable that was changed but not applied', async () => {
    const good = await project.read('.env');
    await project.write('.env', `${good}SYNAPSE_PROD_LOG_LEVEL=ERROR\n`);
    const { code, verdicts, finding } = await live();
    assert.equal(code, 1);
    assert.deepEqual(verdicts, { 'live-memory': 'ok', 'live-variables': 'failed', 'live-config': 'failed' });
    assert.match(finding('live-variables').detail, /^prod runs with other values of LOG_LEVEL/);
    assert.match(finding('live-config').detail, /prod runs with log\.level "INFO", the files say "ERROR"/);
    assert.match(finding('live-config').remedy!, /npm run switch -- both/, 'dev keeps running');
    await project.write('.env', good);
  });

  await t.test('a prod with another data directory', async () => {
    const prod = `${project.name}-prod`;
    const variables = JSON.parse(
      await docker('inspect', '--format', '{{json .Config.Env}}', prod),
    ) as string[];
    await docker('rm', '--force', '--volumes', prod);
    const other = join(project.directory, 'other-data');
    await mkdir(other, { mode: 0o777 });
    await docker(
      'run',
      '--detach',
      `--name=${prod}`,
      `--label=com.docker.compose.project=${project.name}`,
      '--label=com.docker.compose.service=synapse-prod',
      `--publish=127.0.0.1:${project.ports.prod}:8002`,
      '--user=0:0',
      `--volume=${other}:/app/data`,
      ...variables.map((line) => `--env=${line}`),
      `${project.name}:v1.0.0`,
    );
    const url = `http://127.0.0.1:${project.ports.prod}/health`;
    for (let tries = 0; tries < 100 && (await queryHealth(url)).status !== 200; tries += 1) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const { code, verdicts, finding } = await live();
    assert.equal(code, 1);
    assert.equal(verdicts['live-memory'], 'failed', JSON.stringify(finding('live-memory')));
    assert.match(finding('live-memory').remedy!, /same data directory/);
  });

  await t.test('an environment that does not run is reported as unchecked', async () => {
    await docker('stop', '--time', '1', `${project.name}-dev`);
    const { finding } = await live();
    assert.equal(finding('live-memory').verdict, 'unchecked');
    assert.match(finding('live-memory').detail, /dev not running/);
  });
}
