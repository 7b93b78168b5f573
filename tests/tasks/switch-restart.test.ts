// What was chosen survives a restart of the engine, and one in the middle of a switch: on a private engine that is killed
// as by a power cut, and started again.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { START } from './project.ts';
import { secondEngine } from './second-engine.ts';
import { releasedProject } from './switch-support.ts';

test('an engine that is restarted runs what was chosen, and nothing else', async (t) => {
  const engine = await secondEngine(t);
  const project = await releasedProject(t);
  await engine.load(project, 'latest', 'v1.0.0', 'v1.0.1');
  const switchTo = (argv: string[], env: Record<string, string> = {}) =>
    engine.run(project, [process.execPath, START, 'switch-env', ...argv, '--yes'], env);
  const mustSwitch = async (...argv: string[]) => {
    const outcome = await switchTo(argv);
    assert.equal(outcome.code, 0, outcome.stderr);
    return outcome;
  };
  const running = async () => {
    const names = await engine.docker('ps', '--format', '{{.Names}}');
    return names.split('\n').filter(Boolean).sort();
  };
  /** The engine starts what it must start soon after it answers. */
  const untilRunning = async (name: string) => {
    for (let tries = 0; !(await running()).includes(name) && tries < 600; tries += 1) await sleep(100);
    return running();
  };
  const prod = `${project.name}-prod`;

  await mustSwitch('both', '--version', 'v1.0.0');

  await t.test('prod comes back, dev as its policy says', async () => {
    await engine.restart();
    assert.deepEqual(await untilRunning(prod), [prod]);
  });

  await t.test(
    'a reboot in the middle of a switch: prod serves, status says so and how to resume',
    async () => {
      await mustSwitch('prod', '--version', 'v1.0.0');
      const env = { RELEASE_FLOW_FAULT: 'SIGKILL@switch/start-prod/applied' };
      assert.equal((await switchTo(['prod', '--version', 'v1.0.1'], env)).code, 137);
      await engine.restart();
      assert.deepEqual(await untilRunning(`${prod}.before`), [`${prod}.before`]);
      for (;;) {
        const { stdout } = await mustSwitch('status');
        assert.match(stdout, /switch was interrupted .*resume it: npm run switch -- prod --version v1\.0\.1/);
        if (/^\* prod {2}healthy/m.test(stdout)) break;
        await sleep(200);
      }
      const outcome = await mustSwitch('prod', '--version', 'v1.0.0');
      assert.match(outcome.stdout, /^Nothing to do/);
      assert.deepEqual(await running(), [prod]);
    },
  );

  for (const target of ['none', 'dev']) {
    await t.test(`prod, switched off by ${target}, stays off`, async () => {
      await mustSwitch(target);
      await engine.restart();
      // As long as prod needed above, and more: the engine answers questions only once it has started what it must.
      await sleep(3000);
      assert.deepEqual(await running(), []);
      await mustSwitch('prod');
    });
  }
});
