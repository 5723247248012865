export function body(source) {
  return source.body;
}

// All bytes of a body, or nothing once there are more than `limit` of them.
export async function collect(source, limit, declared) {
  if (declared) return new Uint8Array(await source.arrayBuffer());
  const pieces = [];
  let size = 0;
  for await (const piece of source.body) {
    size += piece.byteLength;
    // Leaving the loop cancels the stream.
    if (size > limit) return undefined;
    pieces.push(piece);
  }
  if (pieces.length === 1) return pieces[0];
  const whole = new Uint8Array(size);
  let offset = 0;
  for (const piece of pieces) {
    whole.set(piece, offset);
    offset += piece.byteLength;
  }
  return whole;
}
