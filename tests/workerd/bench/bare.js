// The least that a Worker can do between a caller and an upstream: what the gateway is measured against.
export default {
  fetch(request, env) {
    const { pathname, search } = new URL(request.url);
    return fetch(env.UPSTREAM + pathname + search, request);
  },
};
