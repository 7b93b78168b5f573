// The program inside the image: `main` serves, `main --health` asks the server that already runs.
// Each half is loaded only when it is the one that is wanted.

if (process.argv[2] === '--health') {
  const { checkHealth } = await import('./health-check.ts');
  checkHealth(process.env);
} else {
  const { serve } = await import('./serve.ts');
  await serve(process.env);
}
