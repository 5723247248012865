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

// A stream that holds nothing back: a piece is taken out of Rust when it is asked for.
export function pulled(body) {
  return new ReadableStream(
    {
      async pull(controller) {
        const next = body.next();
        const piece = next instanceof Promise ? await next : next;
        if (piece === undefined) {
          body.cancel();
          controller.close();
        } else {
          controller.enqueue(piece);
        }
      },
      cancel() {
        body.cancel();
      },
    },
    { highWaterMark: 0 },
  );
}

// The same with its length declared.
export function fixed(body, size) {
  const { readable, writable } = new FixedLengthStream(size);
  // A failure shows on `readable` as well, where it is heard.
  pulled(body).pipeTo(writable).catch(() => {});
  return readable;
}
