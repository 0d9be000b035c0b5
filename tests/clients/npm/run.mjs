// Follows in Node and writes everything it is told as lines of JSON; options come as the first argument, commands as lines.
// `socket` chooses the built-in WebSocket or the package ws. The rest of what stands before `...options` is for tests:
// `tokens` are given one after the other (null: never), `chance` stands for every random number, `stopsAt` is the state in
// which it is stopped, `throwsAt` and `throwsAtGap` make handlers throw, `pause` makes them slow, and with `endsTwice`
// every end of a connection is told twice. With `hasten` long timers fire soon.
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { follow } from "../../../clients/javascript/index.js";

const { socket, tokens, chance, stopsAt, throwsAt, throwsAtGap, pause, endsTwice, hasten, ...options } = JSON.parse(process.argv[2]);
const say = (kind, detail) => process.stdout.write(JSON.stringify({ kind, ...detail }) + "\n");
if (chance !== undefined) Math.random = () => chance;
if (hasten) {
  const { setTimeout } = globalThis;
  globalThis.setTimeout = (call, delay, ...rest) => setTimeout(call, delay >= 30_000 ? 50 : delay, ...rest);
}
if (socket === "ws") globalThis.WebSocket = (await import("ws")).WebSocket;

class Twice extends WebSocket {
  constructor(url) { super(url); this.addEventListener("close", () => this.onerror?.({})); }
}

async function tell(kind, frame, isThrown) {
  say(kind, frame);
  if (pause) await sleep(pause * 1000);
  if (isThrown) throw new Error("the handler failed");
}

let following;
try {
  following = follow({
    ...options,
    ...(endsTwice && { WebSocket: Twice }),
    ...(tokens && { token: async () => { say("token"); return tokens.shift() ?? new Promise(() => {}); } }),
    ...(!("onEvent" in options) && { onEvent: (event) => tell("event", { seq: event.seq, name: event.event }, event.seq === throwsAt) }),
    onGap: (gap) => tell("gap", gap, throwsAtGap),
    onError: ({ code, message }) => say("error", { code, message }),
    onState: (state, { error, ...detail }) => {
      say(state, { detail });
      if (state === stopsAt) queueMicrotask(() => following.stop());
    },
  });
} catch (error) { say("thrown", { message: error.message }); process.exit(); }

const commands = {
  stop: () => { following.stop(); process.stdin.destroy(); },
  place: () => say("place", { since: following.since, epoch: following.epoch }),
  skew: (seconds) => { const { now } = Date; Date.now = () => now() + seconds * 1000; },
};
createInterface(process.stdin).on("line", (line) => {
  const [command, argument] = line.split(" ");
  commands[command](Number(argument));
});
process.stdin.unref?.();
