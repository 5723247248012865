// The pieces of a stream, one after another.
export class Pieces {
  constructor(stream) {
    this.reader = stream.getReader();
  }

  // The next one, or nothing at the end.
  async next() {
    return (await this.reader.read()).value;
  }

  release() {
    // It may have broken already; then there is nobody left to tell.
    this.reader.cancel().catch(() => {});
  }
}

// A stream that holds nothing back: a piece is taken out of Rust when it is asked for. `context` is kept until it has
// ended, so that a caller who leaves does not take with him what has to be done then. `exchange` is aborted if it breaks.
export function pulled(body, context, exchange) {
  const { promise, resolve } = Promise.withResolvers();
  context?.waitUntil(promise);
  let ended = false;
  const end = () => {
    if (ended) return;
    ended = true;
    body.cancel();
    resolve();
  };
  return new ReadableStream(
    {
      async pull(controller) {
        try {
          const next = body.next();
          const piece = next instanceof Promise ? await next : next;
          if (piece !== undefined) return controller.enqueue(piece);
        } catch (error) {
          exchange?.abort();
          end();
          throw error;
        }
        end();
        controller.close();
      },
      cancel: end,
    },
    { highWaterMark: 0 },
  );
}

// The same with its length declared.
export function fixed(body, size, exchange) {
  const { readable, writable } = new FixedLengthStream(size);
  // A failure shows on `readable` as well, where it is heard.
  pulled(body, undefined, exchange).pipeTo(writable).catch(() => {});
  return readable;
}
