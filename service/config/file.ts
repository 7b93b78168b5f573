// A configuration file as a layer: read, parsed with positions, walked key by key, so that each problem
// can name the line it is on. The only part of the loader that touches the disk.

import { readFileSync } from 'node:fs';
import * as jsonc from 'jsonc-parser';
import { addValue, configLeaves, configSections, emptyLayer, type Layer, unknownKey } from './layer.ts';

/** Reads one JSON file; what is wrong with it is in the layer's problems, nothing is thrown. */
export function readFileLayer(file: string): Layer {
  const layer = emptyLayer();
  try {
    addText(layer, file, readFileSync(file, 'utf8'));
  } catch (error) {
    layer.problems.push(unreadable(file, error as NodeJS.ErrnoException));
  }
  return layer;
}

function unreadable(file: string, error: NodeJS.ErrnoException) {
  const missing = error.code === 'ENOENT';
  const message = missing ? 'no such file' : `cannot be read (${error.code ?? error.message})`;
  const hint = 'SYNAPSE_CONFIG_PATH names the environment file; the base file synapse.json lies beside it';
  return { where: file, path: '', message, ...(missing ? { hint } : {}) };
}

/** Parses the text of a configuration file into a layer. */
export function addText(layer: Layer, file: string, text: string): void {
  const errors: jsonc.ParseError[] = [];
  const root = jsonc.parseTree(text, errors, { disallowComments: true, allowTrailingComma: false });
  const at = (offset: number) => `${file}:${position(text, offset)}`;
  const first = errors[0];
  if (first) {
    const message = `not valid JSON: ${sentence(jsonc.printParseErrorCode(first.error))}`;
    layer.problems.push({ where: at(first.offset), path: '', message });
  } else if (root?.type !== 'object') {
    layer.problems.push({ where: at(0), path: '', message: 'expected a JSON object of configuration keys' });
  } else {
    addObject(layer, file, root, [], at);
  }
}

function addObject(
  layer: Layer,
  file: string,
  node: jsonc.Node,
  parents: string[],
  at: (offset: number) => string,
): void {
  const seen = new Set<string>();
  for (const property of node.children ?? []) {
    const [key, value] = property.children as [jsonc.Node, jsonc.Node];
    const name = String(key.value);
    const path = [...parents, name].join('.');
    if (seen.has(name)) layer.problems.push({ where: at(key.offset), path, message: 'given twice' });
    seen.add(name);
    if (path === '$schema') continue;
    if (configLeaves.has(path)) addValue(layer, path, jsonc.getNodeValue(value), file, at(value.offset));
    else if (!configSections.has(path)) layer.problems.push(unknownKey(path, at(key.offset)));
    else if (value.type === 'object') addObject(layer, file, value, [...parents, name], at);
    else
      layer.problems.push({
        where: at(value.offset),
        path,
        message: `expected an object, found ${value.type}`,
      });
  }
}

/** `line:column`, both counted from 1. */
function position(text: string, offset: number): string {
  const before = text.slice(0, offset).split('\n');
  return `${before.length}:${before.at(-1)!.length + 1}`;
}

/** `CommaExpected` → `comma expected`. */
function sentence(code: string): string {
  return code.replace(/(?<=[a-z])(?=[A-Z])/g, ' ').toLowerCase();
}
