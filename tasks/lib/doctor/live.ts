// Trying what runs, as its users do: written through dev, read through prod; and whether the containers got the
// variables and the configuration that the files say. Starts and stops nothing. What is sent is release.toml's.
import { randomBytes } from 'node:crypto';
import { switchCommand } from '../active.ts';
import { environmentOfService } from '../docker/compose.ts';
import { queryHealth } from '../docker/health.ts';
import { withReach } from '../docker/remote.ts';
import { effectiveConfig } from '../docker/service-config.ts';
import { TaskError } from '../errors.ts';
import { type HttpAddress, request } from '../http.ts';
import { ENVIRONMENTS, PROJECT_FILE, type Project, portOf, variable } from '../project.ts';
import { withHealthAddress } from '../switch/observe.ts';
import { type Check, type Facts, type Report, unchecked } from './check.ts';

type Live = NonNullable<Project['live']>;

export const LIVE_CHECKS: readonly Check[] = [
  { id: 'live-memory', title: 'live: dev writes, prod reads', look: sharedMemory },
  { id: 'live-variables', title: 'live: variables', look: variables },
  { id: 'live-config', title: 'live: configuration', look: configuration },
];

async function running({ containers, project }: Facts) {
  const found = (await containers()).filter(({ state }) => state === 'running');
  return ENVIRONMENTS.flatMap((name) => {
    const container = found.find(({ service }) => environmentOfService(project, service) === name);
    return container ? [{ name, container }] : [];
  });
}

async function sharedMemory(facts: Facts, { fail }: Report) {
  const { project } = facts;
  const { live } = project;
  if (!live) return unchecked(`${PROJECT_FILE} does not say how (tables live.write and live.read)`);
  const found = (await running(facts)).map(({ name }) => name);
  const [missing] = ENVIRONMENTS.filter((name) => !found.includes(name));
  if (missing) return unchecked(`${missing} not running: ${switchCommand(project, missing)}`);
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

async function variables(facts: Facts, { fail }: Report) {
  const [services, found] = [await facts.services(), await running(facts)];
  if (found.length === 0) return unchecked('nothing runs');
  for (const { name, container } of found) {
    const wanted = services[container.service]?.environment ?? {};
    const different = Object.keys(wanted).filter((key) => container.environment[key] !== wanted[key]);
    // Names only: a value may be a secret.
    const detail = `${name} runs with other values of ${different.join(', ')} than the compose file gives`;
    if (different.length > 0) fail(detail, `replace it: ${switchCommand(facts.project, name)}`);
  }
  return `as in the compose files: ${found.map(({ name }) => name).join(', ')}`;
}

async function configuration(facts: Facts, { fail }: Report) {
  const { project } = facts;
  const names = (await running(facts)).map(({ name }) => name);
  const found = names.filter((name) => project.environments[name].config);
  const keys = Object.entries(project.health.config);
  if (found.length === 0 || keys.length === 0)
    return unchecked(
      `nothing runs whose configuration ${PROJECT_FILE} names (environments.*.config, health.config)`,
    );
  for (const name of found) {
    const { values } = await effectiveConfig(project, name);
    const { status, body, error } = await withHealthAddress(project, name, queryHealth);
    if (status !== 200) fail(`${name} answers ${status || error}`, 'see why: npm run status');
    const remedy = `replace it: ${switchCommand(project, name)}; where a value comes from: npm run doctor -- --config ${name}`;
    for (const [key, path] of status === 200 ? keys : []) {
      const wanted = JSON.stringify(values.find((one) => one.path === path)?.value);
      const has = JSON.stringify(body[key]);
      if (has !== wanted) fail(`${name} runs with ${path} ${has}, the files say ${wanted}`, remedy);
    }
  }
  return `${keys.map(([, path]) => path).join(', ')} as the files say: ${found.join(', ')}`;
}
