// What Cloudflare starts: hands calls to the Rust module that worker-build has wrapped.
import { DurableObject } from 'cloudflare:workers';
import Tidegate, { Account as Ledger } from './build/index.js';
import bundled from './build/tidegate.json.txt';

// Called directly: an instance a call, behind worker-build's proxies, costs more than the conversion of a head.
const { answer } = Tidegate.prototype;

// By this the Rust module wakes its tasks, several times a call. The runtime's own costs ten times as much.
globalThis.queueMicrotask = async (task) => {
  await null;
  try {
    task();
  } catch (error) {
    reportError(error);
  }
};

export default {
  fetch(request, env, context) {
    // Should the module have trapped, this has it started again before it is called.
    if (globalThis.__worker_init_state.criticalError) new Tidegate(context, env);
    const response = answer(request, env, context, bundled);
    // Lives on if the caller leaves, so that what he leaves behind is settled.
    context.waitUntil(response);
    return response;
  },
};

export class Account extends DurableObject {
  constructor(context, env) {
    super(context, env);
    this.account = new Ledger(context.storage);
  }

  apply(entry) {
    return this.account.apply(entry);
  }

  alarm() {
    return this.account.alarm();
  }
}
