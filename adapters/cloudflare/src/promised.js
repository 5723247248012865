export function settle(promise, id, settled) {
  promise.then(
    (value) => settled(id, true, value),
    (error) => settled(id, false, error),
  );
}
