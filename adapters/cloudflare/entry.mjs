// What Cloudflare starts: hands calls to the Rust module that worker-build has wrapped.
import { DurableObject } from 'cloudflare:workers';
import Tidegate, { Account as Ledger } from './build/index.js';
import bundled from './build/tidegate.json.txt';

// Called directly: an instance a call, behind worker-build's proxies, costs more than the conversion of a head.
const { answer, leave } = Tidegate.prototype;
let calls = 0;

export default {
  fetch(request, env, context) {
    const call = ++calls >>> 0;
    const response = answer(call, request, env, context, bundled);
    request.signal.addEventListener('abort', () => leave(call));
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
