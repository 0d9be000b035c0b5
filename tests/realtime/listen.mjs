// Runs realtime/client.js in Node and writes everything it is told as lines of JSON; options come as the first argument.
import { listen } from "../../realtime/client.js";

const { tokens, ...options } = JSON.parse(process.argv[2]);
const say = (kind, detail) => process.stdout.write(JSON.stringify({ kind, ...detail }) + "\n");
const stop = listen({
  ...options,
  token: tokens ? async () => tokens.shift() : options.token,
  onEvent: (event) => say("event", { seq: event.seq, name: event.event }),
  onGap: (gap) => say("gap", gap),
  onState: (state, detail) => say(state, { detail }),
});
process.stdin.on("data", stop).on("end", stop);
process.stdin.unref?.();
