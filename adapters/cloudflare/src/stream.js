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

// What a caller reads. His leaving ends it as well as a cancellation does, which is not always heard then. `context` is kept
// until it has ended, so that he does not take with him what has to be done then.
export function called(body, { signal }, context) {
  const { promise, resolve } = Promise.withResolvers();
  context.waitUntil(promise);
  const { stream, end } = pulled(body, resolve);
  if (signal.aborted) {
    end();
  } else {
    signal.addEventListener('abort', end);
  }
  return stream;
}

// What an upstream is sent. A request whose stream fails is ended as if it were whole, so it is aborted first.
export function sent(body, size, exchange) {
  const { stream } = pulled(body, (error) => error && exchange.abort());
  if (size === undefined) return stream;
  const { readable, writable } = new FixedLengthStream(size);
  // A failure shows on `readable` as well, where it is heard.
  stream.pipeTo(writable).catch(() => {});
  return readable;
}

// A stream that holds nothing back: a piece is taken out of Rust when it is asked for. `ended` is called once, and told of
// the error if there was one.
function pulled(body, ended) {
  let over = false;
  const end = (error) => {
    if (over) return;
    over = true;
    body.cancel();
    ended(error);
  };
  const stream = new ReadableStream(
    {
      async pull(controller) {
        if (over) return controller.close();
        try {
          const next = body.next();
          const piece = next instanceof Promise ? await next : next;
          if (piece !== undefined) return controller.enqueue(piece);
        } catch (error) {
          end(error);
          throw error;
        }
        end();
        controller.close();
      },
      cancel: () => end(),
    },
    { highWaterMark: 0 },
  );
  return { stream, end: () => end() };
}
