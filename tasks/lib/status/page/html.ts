// HTML as text: every value goes through `escaped`, so that no container name or error message becomes markup.

const ENTITIES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

export function escaped(text: string | number): string {
  return String(text).replace(/[&<>"']/g, (character) => ENTITIES[character]!);
}

/** A template whose values are escaped; what is already HTML is passed as `raw`, lists are joined. */
export function html(parts: TemplateStringsArray, ...values: Value[]): Html {
  const text = parts.reduce(
    (all, part, index) => all + (index > 0 ? render(values[index - 1]) : '') + part,
    '',
  );
  return { html: text };
}

export interface Html {
  html: string;
}

type Value = string | number | null | undefined | false | Html | readonly Html[];

function render(value: Value): string {
  if (value === null || value === undefined || value === false) return '';
  if (Array.isArray(value)) return value.map((one: Html) => one.html).join('');
  return typeof value === 'object' ? (value as Html).html : escaped(value);
}

export const raw = (text: string): Html => ({ html: text });
