// The older service as far as a migration meets it: answers /health, reads and writes facts in memory.db in
// rollback-journal mode, and lists its models. Runs as root, as it did.
import { readdirSync } from 'node:fs';
import { createServer } from 'node:http';
import { DatabaseSync } from 'node:sqlite';

const withMemory = (work) => {
  const sql = new DatabaseSync('/app/data/memory.db', { timeout: 5000 });
  try {
    return work(sql);
  } finally {
    sql.close();
  }
};
const facts = () =>
  withMemory((sql) => sql.prepare('SELECT id, scope, key, value FROM memory_facts ORDER BY id').all());
const server = createServer((request, response) => {
  const answer = (status, body) =>
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  try {
    if (request.url === '/health')
      answer(200, { status: 'ok', service: 'rag-mcp', models: readdirSync('/app/models') });
    else if (request.url === '/facts') answer(200, facts());
    else answer(404, {});
  } catch (error) {
    answer(500, { error: String(error) });
  }
});
server.listen(8002, '0.0.0.0');
process.on('SIGTERM', () => process.exit(0));
