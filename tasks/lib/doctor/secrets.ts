// Values in configuration files that look like secrets: by the name of their key, or by their own well-known form.
// Pure; it reports places, never values.

export interface SuspiciousLine {
  /** From 1. */
  line: number;
  /** Why, without the value. */
  why: string;
}

const SECRET_KEY =
  /(?:^|[\s"'{,;.-])([\w.-]*(?:token|secret|password|passwd|api[_-]?key|private[_-]?key|credential)[\w.-]*)["']?\s*[:=]\s*(.*)$/i;

/** Forms that issuers give their secrets, so that they can be found. */
const KNOWN_FORMS: [form: RegExp, name: string][] = [
  [/-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----/, 'a private key'],
  [/\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_\w{22,}/, 'a GitHub token'],
  [/\bglpat-[\w-]{20,}/, 'a GitLab token'],
  [/\bAKIA[0-9A-Z]{16}\b/, 'an AWS access key'],
  [/\bxox[baprs]-[\w-]{10,}/, 'a Slack token'],
  [/\bsk-[A-Za-z0-9_-]{20,}/, 'an API key'],
  [/\bnpm_[A-Za-z0-9]{36}\b/, 'an npm token'],
  [/\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}/, 'a JSON web token'],
  [/\b[a-z][a-z0-9+.-]*:\/\/[^\s/:@"'$]+:[^\s/@"'${]+@/i, 'a password in a URL'],
];

/** Names of keys that speak about secrets without holding one. */
const HARMLESS_KEY =
  /(?:_file|_files|file|path|_env|_name|_header|_length|_limit|max_tokens|tokens|_type|_url|_id|expiry|minutes|seconds)$/i;

/** A value that a person would recognize as no secret: empty, a variable, a path, a word of configuration. */
function isHarmlessValue(text: string): boolean {
  const value = text
    .replace(/[,;}\]]*\s*(?:#.*)?$/, '')
    .replace(/^["']|["']$/g, '')
    .trim();
  if (value === '' || value.startsWith('#')) return true;
  if (/^\$\{?\w+/.test(value) || /^<.*>$/.test(value) || /^%\w+%$/.test(value)) return true;
  if (/^(true|false|null|none|\d{1,6}|\[|\{|\||>)$/i.test(value) || /^[[{]/.test(value)) return true;
  if (/^(\/|\.\/|\.\.\/|~\/)/.test(value)) return true;
  // The name of a variable stands for its value.
  return /^[A-Z][A-Z0-9_]*$/.test(value);
}

export function findSecrets(text: string): SuspiciousLine[] {
  return text.split('\n').flatMap((line, index): SuspiciousLine[] => {
    const form = KNOWN_FORMS.find(([pattern]) => pattern.test(line));
    if (form) return [{ line: index + 1, why: `looks like ${form[1]}` }];
    const [, key = '', value = ''] = SECRET_KEY.exec(withoutComment(line)) ?? [];
    if (!key || HARMLESS_KEY.test(key) || isHarmlessValue(value)) return [];
    return [{ line: index + 1, why: `gives ${key} a value of its own` }];
  });
}

/** A whole-line comment explains and sets nothing. */
function withoutComment(line: string): string {
  return /^\s*(#|\/\/)/.test(line) ? '' : line;
}
