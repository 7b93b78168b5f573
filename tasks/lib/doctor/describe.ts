// Findings as a checklist.
import { paint } from '../log.ts';
import type { Verdict } from './check.ts';
import type { EffectiveConfig } from './effective-config.ts';
import type { Examined } from './examine.ts';

const MARKS: Record<Verdict, [mark: string, style: 'green' | 'yellow' | 'red' | 'dim']> = {
  ok: ['✓', 'green'],
  warning: ['!', 'yellow'],
  failed: ['✗', 'red'],
  unchecked: ['–', 'dim'],
};

function describeOne({ verdict, title, detail, remedy }: Examined): string {
  const [mark, style] = MARKS[verdict];
  const [first, ...rest] = detail.split('\n');
  const why = verdict === 'unchecked' ? `not checked: ${first}` : first;
  const indent = ' '.repeat(32);
  const lines = [
    `${paint(style, mark, process.stdout)} ${title.padEnd(29)} ${why}`,
    ...rest.map((line) => indent + line),
  ];
  const remedies = verdict === 'ok' || !remedy ? [] : remedy.split('\n').map((line) => `${indent}→ ${line}`);
  return [...lines, ...remedies].join('\n');
}

export function countVerdicts(findings: readonly Examined[]): Record<Verdict, number> {
  const count = (verdict: Verdict) => findings.filter((one) => one.verdict === verdict).length;
  return {
    ok: count('ok'),
    warning: count('warning'),
    failed: count('failed'),
    unchecked: count('unchecked'),
  };
}

export function describeFindings(findings: readonly Examined[]): string {
  const { ok, warning, failed, unchecked } = countVerdicts(findings);
  const summary = [
    `${ok} ok`,
    `${failed} failed`,
    ...(warning ? [`${warning} to look at`] : []),
    ...(unchecked ? [`${unchecked} not checked`] : []),
  ];
  return [...findings.map(describeOne), '', summary.join(', ')].join('\n');
}

/** One line a key: what it is, and which layer says so. */
export function describeEffectiveConfig({ environment, values }: EffectiveConfig): string {
  const rows = values.map(({ path, value, origin }) => [path, JSON.stringify(value), origin] as const);
  const width = (index: 0 | 1) => Math.max(...rows.map((row) => row[index].length)) + 2;
  const lines = rows.map(
    ([path, value, origin]) => `  ${path.padEnd(width(0))}${value.padEnd(width(1))}${origin}`,
  );
  return [`Configuration of ${environment}, and where each value comes from`, ...lines].join('\n');
}
