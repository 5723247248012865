export function watch({ signal }, id, left) {
  if (signal.aborted) {
    left(id, true);
  } else {
    signal.addEventListener('abort', () => left(id, true));
  }
}
