// Cutting a document into overlapping chunks, at the end of a paragraph, line or sentence if one is
// near. Pure.

/** Where to cut, best first, within the last third of a chunk. */
const CUTS = ['\n\n', '\n', '. ', ' '];

export interface ChunkSize {
  /** Characters. */
  chunk_size: number;
  chunk_overlap: number;
}

/** Chunks of at most `chunk_size` characters; each repeats up to `chunk_overlap` of the one before it. */
export function* chunksOf(text: string, { chunk_size, chunk_overlap }: ChunkSize): Generator<string> {
  for (let start = 0; start < text.length; ) {
    const last = start + chunk_size >= text.length;
    const end = last ? text.length : cutBefore(text, start, start + chunk_size);
    const chunk = text.slice(start, end).trim();
    if (chunk !== '') yield chunk;
    if (last) return;
    // A large overlap must not cut thousands of chunks that hardly differ.
    start = wholeCharacter(text, Math.max(end - chunk_overlap, start + Math.ceil(chunk_size / 3)));
  }
}

function cutBefore(text: string, start: number, end: number): number {
  const earliest = start + Math.ceil(((end - start) * 2) / 3);
  const window = text.slice(earliest, end);
  for (const cut of CUTS) {
    const found = window.lastIndexOf(cut);
    if (found >= 0) return earliest + found + cut.length;
  }
  return wholeCharacter(text, end);
}

/** Moves a position forward out of the middle of a surrogate pair. */
function wholeCharacter(text: string, position: number): number {
  const code = text.charCodeAt(position);
  return code >= 0xdc00 && code <= 0xdfff ? position + 1 : position;
}
