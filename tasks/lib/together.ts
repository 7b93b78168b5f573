/** Acts that do not need each other; the next step, or the undoing, begins when all have ended. @throws the first's error */
export async function together(...acts: (Promise<void> | undefined)[]): Promise<void> {
  const outcomes = await Promise.allSettled(acts);
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}
