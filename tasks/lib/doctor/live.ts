// Trying what runs, as its users do: written through dev, read through prod; and whether the containers got the
// variables and the configuration that the files say. Starts and stops nothing. What is sent is release.toml's.

import { randomBytes } from 'node:crypto';
import { resolve } from 'node:path';
import { effectiveValues, loadConfig } from '../../../service/config/config.ts';
import { switchCommand } from '../active.ts';
import { queryHealth } from '../docker/health.ts';
import { withReach } from '../docker/remote.ts';
import { TaskError } from '../errors.ts';
import { type HttpAddress, request } from '../http.ts';
import {
  ENVIRONMENTS,
  type EnvironmentName,
  PROJECT_FILE,
  type Project,
  portOf,
  variable,
} from '../project.ts';
import { healthAddress } from '../switch/observe.ts';
import { type Check, type Facts, type Report, unchecked } from './check.ts';

type Live = NonNullable<Project['live']>;

export const LIVE_CHECKS: readonly Check[] = [
  { id: 'live-memory', title: 'live: dev writes, prod reads', check: sharedMemory },
  { id: 'live-variables', title: 'live: variables', check: variables },
  { id: 'live-config', title: 'live: configuration', check: configuration },
];

async function running({ containers, project }: Facts) {
  const found = await containers();
  return ENVIRONMENTS.map((name) => ({
    name,
    container: found.find(
      ({ service, state }) => service === project.environments[name].service && state === 'running',
    ),
  }));
}

async function sharedMemory(facts: Facts, { fail }: Report) {
  const { project } = facts;
  const { live } = project;
  if (!live) return unchecked(`${PROJECT_FILE} does not say how (tables live.write and live.read)`);
  const missing = (await running(facts)).filter(({ container }) => !container).map(({ name }) => name);
  if (missing[0])
    return unchecked(`${missing.join(' and ')} not running: ${switchCommand(project, missing[0])}`);
  const nonce = `doctor-${randomBytes(8).toString('hex')}`;
  const token = live.token ? variable(project, live.token) : undefined;
  await withReach(async (reach) => {
    const [dev, prod] = await Promise.all([reach(portOf(project, 'dev')), reach(portOf(project, 'prod'))]);
    const written = await send(dev, live.write, nonce, token);
    const answer = await send(prod, live.read, nonce, token);
    if (answer.includes(nonce)) return;
    const detail = `what was written through dev (${written.slice(0, 120)}) is not what prod reads (${answer.slice(0, 120)})`;
    fail(detail, 'do both containers mount the same data directory? docker inspect; see also: docker logs');
  });
  return 'written through dev, read through prod';
}

async function variables(facts: Facts, { fail }: Report) {
  const services = await facts.services();
  const found = (await running(facts)).filter(({ container }) => container);
  if (found.length === 0) return unchecked('nothing runs');
  for (const { name, container } of found) {
    const wanted = services[facts.project.environments[name].service]?.environment ?? {};
    const different = Object.keys(wanted).filter((key) => container!.environment[key] !== wanted[key]);
    if (different.length === 0) continue;
    // Names only: a value may be a secret.
    const detail = `${name} runs with other values of ${different.join(', ')} than the compose file gives`;
    fail(detail, `replace it: ${switchCommand(facts.project, name)}`);
  }
  return `as in the compose files: ${found.map(({ name }) => name).join(', ')}`;
}

/** Key path → value, as the files and compose give it to an environment. */
async function wantedConfig(
  { project, services }: Facts,
  name: EnvironmentName,
): Promise<Map<string, unknown>> {
  const { config, service } = project.environments[name];
  const env = (await services())[service]?.environment ?? {};
  const loaded = loadConfig({ configPath: resolve(project.root, config!), env });
  return new Map(effectiveValues(loaded).map(({ path, value }) => [path, value]));
}

async function checkConfig(facts: Facts, name: EnvironmentName, { fail }: Report): Promise<void> {
  const { project } = facts;
  const wanted = await wantedConfig(facts, name);
  const { status, body, error } = await withReach(async (reach) =>
    queryHealth(await healthAddress(project, name, reach)),
  );
  if (status !== 200) fail(`${name} answers ${status || error}`, 'see why: npm run status');
  const remedy = `replace it: ${switchCommand(project, name)}; where a value comes from: npm run doctor -- --config ${name}`;
  for (const [key, path] of Object.entries(project.health.config)) {
    const [has, should] = [JSON.stringify(body[key]), JSON.stringify(wanted.get(path))];
    if (status === 200 && has !== should)
      fail(`${name} runs with ${path} ${has}, the files say ${should}`, remedy);
  }
}

async function configuration(facts: Facts, report: Report) {
  const { environments, health } = facts.project;
  const found = (await running(facts))
    .filter(({ name, container }) => container && environments[name].config)
    .map(({ name }) => name);
  const paths = Object.values(health.config);
  if (found.length === 0 || paths.length === 0) {
    const keys = 'environments.*.config, health.config';
    return unchecked(`nothing runs whose configuration ${PROJECT_FILE} names (${keys})`);
  }
  for (const name of found) await checkConfig(facts, name, report);
  return `${paths.join(', ')} as the files say: ${found.join(', ')}`;
}

/** The body of the response. @throws TaskError without one, or with anything but 200 */
async function send(where: HttpAddress, spec: Live['write'], nonce: string, token: string | undefined) {
  const fill = (text: string) => text.replaceAll('%nonce%', nonce);
  const headers = { ...spec.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
  const address = { ...where, url: where.url + fill(spec.path) };
  const options = { method: spec.method, headers, body: fill(spec.body) };
  const { status, text, error } = await request(address, options);
  if (status === 200) return text;
  throw new TaskError(`${spec.method} ${spec.path}: ${error?.message ?? `answered ${status}`}`, {
    code: 'live',
    hint: token
      ? 'is the token in .env the one that the container got? npm run status'
      : 'does it want a token? [live] token in release.toml names its variable in .env',
  });
}
