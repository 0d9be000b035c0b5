// What a person writes who uses the client with TypeScript; compiled with `tsc --strict`, never run.
import { EVENT_NAMES, follow, type CallEnded, type EventName, type Gap, type Message } from "../../../clients/javascript/index.js";

let spoken = 0;
let text: Message | undefined;
const names: readonly EventName[] = EVENT_NAMES;

const following = follow({
  url: new URL("wss://events.example/v1"),
  token: async () => "token",
  since: 41,
  epoch: "a".repeat(24),
  events: ["call_ended", "fetch_messages"],
  fallbackUrl: "https://api.example/api/events",
  onEvent: async (event) => {
    if (event.event === "call_ended") spoken += event.data.duration;
    if (event.event === "fetch_messages") text = event.data.message;
    // @ts-expect-error a note has no duration
    if (event.event === "note_created") spoken += event.data.duration;
    // @ts-expect-error no event has this name
    if (event.event === "call_started") spoken += 1;
  },
  onGap: ({ since, oldest, reason }: Gap) => { if (reason === "pruned") spoken -= oldest - since; },
  onState: (state, detail) => { if (state === "waiting" && "seconds" in detail) spoken += detail.seconds; },
  onError: ({ code, message }) => { if (code === "token_failed") throw new Error(message); },
});

const place: number | null = following.since;
const ended: CallEnded["data"]["endedAt"] = "2026-05-15T09:10:00.000Z";
following.stop();

// @ts-expect-error an event has to be handled
follow({ url: "ws://127.0.0.1:2213/v1", token: "token" });
// @ts-expect-error the sequence is a number
follow({ url: "ws://127.0.0.1:2213/v1", token: "token", since: "41", onEvent() {} });
// @ts-expect-error a misspelt option
follow({ url: "ws://127.0.0.1:2213/v1", token: "token", contactID: "c", onEvent() {} });
export { ended, names, place, text };
