// The types of index.js; those of what the server sends are generated, in events.d.ts.

import type { ErrorCode, Event, Gap, Hello } from "./events.d.ts";

export type * from "./events.d.ts";

export type EventName = Event["event"];

/** The names of all events. */
export declare const EVENT_NAMES: readonly EventName[];

/** Where a follow stands: the sequence of the last event handled, and the log it belongs to; null before the first hello. */
export interface Place {
  since: number | null;
  epoch: string | null;
}

/** What went wrong: a code for programs, and a sentence for people. `error` is what a callback of yours threw. */
export interface Problem {
  type: "error";
  code: ErrorCode | "token_failed" | "handler_failed";
  message: string;
  error?: unknown;
}

/** A close code (1006: the connection broke), a status of the API, or the code of an error; null where nobody gave one. */
export type Code = number | "invalid_message" | "handler_failed" | null;

/** Each state, and its details. */
export interface States {
  /** A connection is being made. */
  connecting: Place;
  /** Events come over a socket. */
  live: Hello;
  /** Sockets are blocked; events are read over HTTP. */
  polling: Place;
  /** The connection ended; the next one is made after `seconds`. */
  waiting: { seconds: number; code: Code; reason: string };
  /** The follow ended, by `stop()` or because what went wrong cannot get better; go on from `since` and `epoch`. */
  stopped: Place & { code: Code; reason: string; error?: unknown };
}

export type State = keyof States;

export interface Options {
  /** The address of the broadcaster, such as `wss://events.example/v1`. */
  url: string | URL;
  /** An API key or JWT, or a function, also an async one, that returns a fresh one. */
  token: string | (() => string | Promise<string>);
  /** The sequence of the last event handled; without it the follow begins with what happens from now on. */
  since?: number | null;
  /** The epoch that came with that position. */
  epoch?: string | null;
  /** Only events of these names, at least one; without it all come. */
  events?: readonly EventName[] | null;
  /** Only events of this contact. */
  contactId?: string | null;
  /** Only events of this conversation. */
  conversationId?: string | null;
  /** The address of `GET /api/events`, read where sockets are blocked. */
  fallbackUrl?: string | URL | null;
  /** Handles one event. It may be async: the next one waits for it. The position moves after it; if it throws, the follow ends. */
  onEvent(event: Event): unknown;
  /** Events are missing: reload what you show. It may be async, and is awaited. */
  onGap?(gap: Gap): unknown;
  /** Something changed; see `States`. */
  onState?<S extends State>(state: S, detail: States[S]): void;
  /** The server's `error` frames, and what callbacks of yours threw. By default they go to `console.error`. */
  onError?(problem: Problem): void;
  /** How long `token()` may take: 10 by default. */
  tokenSeconds?: number;
  /** How long a connection may take until it is greeted: 10 by default. */
  connectSeconds?: number;
  /** How long the answer to a ping may take: 4.5 by default. */
  pongSeconds?: number;
  /** The WebSocket class, where there is none built in (Node before 22): that of the package `ws`. */
  WebSocket?: unknown;
  /** What reads `fallbackUrl`; the built-in one by default. */
  fetch?: typeof fetch;
}

export interface Following extends Readonly<Place> {
  /** Stop following, at once; nothing is handed on afterwards. */
  stop(): void;
}

/** Follow events until `stop()` is called or what went wrong cannot get better. Throws TypeError for a wrong option. */
export declare function follow(options: Options): Following;
