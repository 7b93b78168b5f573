// The model of a candidate: prod's service as it is, with nothing of prod's that a trial could touch.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { candidateModel } from '../../tasks/lib/docker/candidate.ts';
import type { ResolvedModel } from '../../tasks/lib/docker/compose.ts';
import { loadProject } from '../../tasks/lib/project.ts';
import { REPOSITORY } from '../tasks/project.ts';

const RESOLVED: ResolvedModel = {
  name: 'synapse',
  services: {
    'synapse-prod': {
      image: 'synapse:v1.0.0',
      container_name: 'synapse-prod',
      restart: 'always',
      environment: { SYNAPSE_ENV: 'prod', TOKEN: 'a$b' },
      ports: [
        { target: 9000, published: '9000' },
        { target: 8002, published: '8002' },
      ],
      read_only: true,
      deploy: { resources: { limits: { memory: '3221225472' } } },
      depends_on: { cache: { condition: 'service_healthy' } },
      networks: { 'synapse-net': { ipv4_address: '172.22.0.9' } },
      volumes: [
        { type: 'bind', source: '/opt/synapse/data', target: '/app/data' },
        { type: 'volume', source: 'synapse-models', target: '/app/models' },
        { type: 'bind', source: '/etc/app.conf', target: '/etc/app.conf', read_only: true },
      ],
      secrets: [{ source: 'key' }],
    },
    'synapse-dev': { image: 'synapse:latest', container_name: 'synapse-dev' },
    cache: { image: 'cache:1', container_name: 'cache', ports: [{ target: 6379, published: '6379' }] },
    unrelated: { image: 'other:1' },
  },
  networks: { 'synapse-net': { name: 'synapse-net', ipam: { config: [{ subnet: '172.22.0.0/16' }] } } },
  volumes: { 'synapse-models': { name: 'synapse-models' } },
  secrets: { key: { file: '/run/key' } },
};

test('a candidate has prod’s environment, limits, secrets and dependencies, and neither its data nor its names', async () => {
  const project = await loadProject(REPOSITORY);
  const trial = { image: 'synapse:candidate-1', expected: {} };
  const before = JSON.stringify(RESOLVED);
  const model = candidateModel(project, RESOLVED, trial);
  assert.equal(JSON.stringify(RESOLVED), before, 'what it is made from stays as it was');
  assert.deepEqual(Object.keys(model.services).sort(), ['cache', 'synapse-prod']);
  const prod = model.services['synapse-prod']!;
  const was = RESOLVED.services['synapse-prod']!;
  for (const key of ['environment', 'read_only', 'deploy', 'depends_on', 'secrets'])
    assert.deepEqual(prod[key], was[key]);
  assert.equal(prod.image, 'synapse:candidate-1');
  assert.equal(prod.restart, 'no');
  assert.deepEqual(prod.ports, [{ target: 8002, host_ip: '127.0.0.1' }]);
  assert.deepEqual(
    prod.volumes?.map(({ type, source, target }) => [type, source, target]),
    [['bind', '/etc/app.conf', '/etc/app.conf']],
  );
  const empty = (prod.tmpfs as string[]).map((entry) => entry.split(':')[0]);
  assert.deepEqual(empty, ['/app/data', '/app/models'], 'of its data only the places are there, empty');
  for (const service of Object.values(model.services)) {
    assert.equal(service.container_name, undefined);
    assert.deepEqual(service.labels?.['release-flow.candidate'], 'synapse');
  }
  assert.equal(model.services.cache?.ports, undefined);
  assert.ok(!JSON.stringify(model).includes('172.22.0'), 'no subnet that prod’s network has');
  assert.equal(model.volumes, undefined);
});

test('a rehearsal has the directory that it is given where prod has its data', async () => {
  const project = await loadProject(REPOSITORY);
  const model = candidateModel(project, RESOLVED, { image: 'x', expected: {}, data: '/backups/.scratch' });
  assert.equal(model.services['synapse-prod']?.volumes?.[0]?.source, '/backups/.scratch');
});

test('a candidate that depends on nobody gets no network of its own, which takes long to make and to remove', async () => {
  const project = await loadProject(REPOSITORY);
  const { depends_on: _needs, ...prod } = RESOLVED.services['synapse-prod']!;
  const alone = { ...RESOLVED, services: { 'synapse-prod': prod } };
  const model = candidateModel(project, alone, { image: 'x', expected: {} });
  assert.equal(model.networks, undefined);
  const { network_mode: mode, networks, ports } = model.services['synapse-prod']!;
  assert.deepEqual([mode, networks, ports?.length], ['bridge', undefined, 1]);
});
