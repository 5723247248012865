// A variable or a secret; another kind of binding has no text.
export function variable(env, name) {
  const value = Object.hasOwn(env, name) ? env[name] : undefined;
  return typeof value === 'string' ? value : undefined;
}

export async function stored(env) {
  return env.KV ? env.KV.get('tidegate.json') : null;
}
