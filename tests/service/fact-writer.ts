// A process of the concurrency test: opens a data directory and adds facts as fast as it can.
// Usage: node fact-writer.ts DATA_DIRECTORY CONFIG NAME COUNT; prints how many were acknowledged.
import { loadConfig } from '../../service/config/config.ts';
import { openStores } from '../../service/stores/stores.ts';

const [data = '', configPath = '', name = '', count = '0'] = process.argv.slice(2);
const { config } = loadConfig({ configPath, env: { SYNAPSE_DATA__DIRECTORY: data } });
const { memory } = openStores(config);
let acknowledged = 0;
for (let i = 0; i < Number(count); i++) {
  memory.addFact({ scope: 'shared', key: `${name}-${i}`, value: { i }, confidence: 1, source: name });
  acknowledged += 1;
}
console.log(acknowledged);
