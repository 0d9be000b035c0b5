// Runs realtime/client.js in Node and writes everything it is told as lines of JSON; options come as the first argument.
// `chance` stands for every random number, `stopsAt` is the state in which it is stopped, and with `endsTwice` every end
// of a connection is told twice.
import { listen } from "../../realtime/client.js";

const { tokens, chance, stops_at: stopsAt, ends_twice: endsTwice, ...options } = JSON.parse(process.argv[2]);
const say = (kind, detail) => process.stdout.write(JSON.stringify({ kind, ...detail }) + "\n");
if (chance !== undefined) Math.random = () => chance;

class Twice extends WebSocket {
  constructor(url) { super(url); this.addEventListener("close", () => this.onerror?.({})); }
}

const stop = listen({
  ...options,
  ...(endsTwice && { WebSocket: Twice }),
  token: tokens ? async () => { await null; say("token", {}); return tokens.shift(); } : options.token,
  onEvent: (event) => say("event", { seq: event.seq, name: event.event }),
  onGap: (gap) => say("gap", gap),
  onState: (state, detail) => {
    say(state, { detail });
    if (state === stopsAt) queueMicrotask(() => stop());
  },
});
process.stdin.on("data", stop).on("end", stop);
process.stdin.unref?.();
