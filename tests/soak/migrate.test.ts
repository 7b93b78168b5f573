// The kill matrix of tests/tasks/migrate-kill.test.ts at every point, there and back.

process.env.SOAK = '1';
await import('../tasks/migrate-kill.test.ts');
