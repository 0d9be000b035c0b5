// Follows the events of an organization, in browsers and in Node, across every interruption. See README.md beside it.
//
//   const following = follow({ url: "ws://127.0.0.1:2213/v1", token, onEvent: (event) => console.log(event.seq, event) });
//   following.stop();
//
// Everything that happens to a follow happens in one loop, in order: what a socket says is put into a queue, and the loop
// takes it from there. The position moves only after the handler of an event has finished.

export const EVENT_NAMES = [
  "call_initiated", "call_ended", "call_recording_ready", "fetch_messages", "note_created", "transfer_requested",
  "transfer_ended", "message_status", "voice_ai_webhook", "note_updated", "contact_updated", "availability_changed",
  "contact_erased", "erased",
];

const TOKEN = [4401, 4497, 4498]; // the token is not valid, was revoked, has expired
const HOPELESS = [1002, 1003, 1007, 1009, 4403]; // a mistake of ours, or an origin that may not connect
const RESTART = 1012;
const RECONNECT = { jitterSeconds: 5, baseSeconds: 0.5, maxSeconds: 30 }; // until a hello says otherwise
const HEARTBEAT_SECONDS = 20; // likewise
const STEADY_SECONDS = 30; // a connection that stood for so long counts as a success
const QUIET_SECONDS = 3; // with the page in front a silent line is asked after so long, elsewhere after a heartbeat
const ASLEEP_SECONDS = 65; // browsers delay timers of hidden pages by up to a minute; a longer delay was a sleep
const ASLEEP = { code: 1006, reason: "the machine was asleep" };
const MOST_QUEUED = 2000; // frames that wait for a slow handler before the connection is given up, to be resumed later
const BLOCKED_UPGRADES = 2; // after so many failed upgrades in a row events are read over HTTP
const PROBE_SECONDS = 60; // while they are, the socket is tried again about that often
const POLL_SECONDS = 2; // the shortest time between two empty pages
const FRONT_WAIT_SECONDS = 5, BACK_WAIT_SECONDS = 25; // how long the API is asked to wait for an event
const PAGE_EVENTS = 500;

/** Follow events until `stop()` is called or what went wrong cannot get better. Throws TypeError for a wrong option. */
export function follow(options) {
  const loop = new Follow(checked(options));
  queueMicrotask(() => loop.run()); // no callback before the caller has what it can stop
  return {
    stop: () => loop.stop(),
    get since() { return loop.since; },
    get epoch() { return loop.epoch; },
  };
}

// The options.

const isText = (value) => typeof value === "string" && value !== "";
const isToken = (value) => isText(value) && value.length <= 4096;
const isFunction = (value) => typeof value === "function";
const isId = (value) => typeof value === "string" && /^[0-9a-f]{24}$/.test(value);
const isSeconds = (value) => Number.isFinite(value) && value > 0;
const isNames = (value) => Array.isArray(value) && value.length > 0 && new Set(value).size === value.length &&
  value.every((name) => EVENT_NAMES.includes(name));
const isAddress = (...schemes) => (value) => {
  try { return schemes.includes(new URL(value).protocol) && !String(value).includes("#"); } catch { return false; }
};

// Each option: whether a value is right, and what it has to be. An option that is absent, undefined or null is not given.
const OPTIONS = {
  url: [isAddress("ws:", "wss:"), "the address of the broadcaster, such as wss://events.example/v1"],
  token: [(value) => isToken(value) || isFunction(value), "an API key or JWT, or a function that returns one"],
  since: [(value) => Number.isSafeInteger(value) && value >= 0, "the sequence of the last event handled, a whole number from 0"],
  epoch: [isId, "the epoch that came with the position, 24 hexadecimal digits"],
  events: [isNames, `a list of at least one of ${EVENT_NAMES.join(", ")}, each once; without it all events come`],
  contactId: [isId, "the id of a contact, 24 hexadecimal digits"],
  conversationId: [isId, "the id of a conversation, 24 hexadecimal digits"],
  fallbackUrl: [isAddress("http:", "https:"), "the address of GET /api/events, such as https://api.example/api/events"],
  onEvent: [isFunction, "a function that takes an event"],
  onGap: [isFunction, "a function that takes a gap"],
  onState: [isFunction, "a function that takes a state's name and details"],
  onError: [isFunction, "a function that takes an error"],
  tokenSeconds: [isSeconds, "a number of seconds above 0"],
  connectSeconds: [isSeconds, "a number of seconds above 0"],
  pongSeconds: [isSeconds, "a number of seconds above 0"],
  WebSocket: [isFunction, "a WebSocket class, such as that of the package ws where there is none built in"],
  fetch: [isFunction, "a function like the built-in fetch"],
};
const DEFAULTS = {
  onGap() {}, onState() {}, onError: (error) => console.error(error), tokenSeconds: 10, connectSeconds: 10, pongSeconds: 4.5,
};
const NEEDED = ["url", "token", "onEvent", "WebSocket"];

function checked(given) {
  if (typeof given !== "object" || given === null) throw new TypeError("follow() takes an object of options.");
  const unknown = Object.keys(given).find((name) => !Object.hasOwn(OPTIONS, name));
  if (unknown) throw new TypeError(`${unknown} is no option; the options are ${Object.keys(OPTIONS).join(", ")}.`);
  const told = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined && value !== null));
  const options = { WebSocket: globalThis.WebSocket, fetch: globalThis.fetch?.bind(globalThis), ...told };
  for (const [name, [isRight, words]] of Object.entries(OPTIONS)) {
    const isGiven = options[name] !== undefined;
    if (isGiven ? !isRight(options[name]) : NEEDED.includes(name)) throw new TypeError(`${name} must be ${words}.`);
  }
  if (told.epoch && told.since === undefined) throw new TypeError("epoch belongs to a position: give since as well.");
  if (told.fallbackUrl && !options.fetch) throw new TypeError(`fetch must be ${OPTIONS.fetch[1]}.`);
  return { ...DEFAULTS, ...options };
}

// The loop.

class Follow {
  #options;
  #filters;
  #reconnect = RECONNECT;
  #failures = 0; // connections in a row that brought nothing
  #refusals = 0; // tokens in a row that were not accepted
  #blocked = 0; // upgrades in a row that failed
  #steadySince = null; // since when the present connection stands
  #line = null; // the present socket
  #page = null; // what aborts the present page of events
  #resting = null; // what ends the present pause
  #stopped = new AbortController();
  #unwatch = () => {};

  constructor(options) {
    const { since = null, epoch = null, events, contactId, conversationId } = options;
    this.#options = options;
    this.since = since;
    this.epoch = epoch;
    this.#filters = { events, contactId, conversationId };
  }

  async run() {
    if (this.#isStopped) return;
    this.#unwatch = watchSurroundings({
      lost: () => this.#interrupt("offline"),
      found: () => { this.#blocked = 0; this.#wake("online"); },
      seen: () => this.#wake("in front"),
    });
    try {
      while (!this.#isStopped) {
        const ending = await this.#connect();
        if (this.#isStopped || this.#isFinal(ending)) return this.stop(ending);
        await this.#pause(ending);
      }
    } catch (error) { // only a callback of the caller's throws in here
      this.stop({ code: "handler_failed", reason: String(error), error });
    }
  }

  get #isStopped() { return this.#stopped.signal.aborted; }

  stop({ code = null, reason = "stopped", error } = {}) {
    if (this.#isStopped) return;
    this.#stopped.abort();
    this.#unwatch();
    this.#interrupt(reason);
    this.#resting?.end(0);
    try {
      if (error) this.#options.onError({ type: "error", code, message: reason, error });
      this.#options.onState("stopped", { code, reason, error, since: this.since, epoch: this.epoch });
    } catch (thrown) { console.error(thrown); }
  }

  #isFinal({ code }) {
    if (TOKEN.includes(code)) return !isFunction(this.#options.token) || ++this.#refusals > 1; // a function may have a better one
    return HOPELESS.includes(code) || code === "invalid_message";
  }

  async #connect() {
    const { onState } = this.#options;
    this.#steadySince = null;
    onState("connecting", { since: this.since, epoch: this.epoch });
    let token;
    try {
      token = await this.#token();
    } catch (error) {
      if (!this.#isStopped) this.#options.onError({ type: "error", code: "token_failed", message: String(error), error });
      return { code: null, reason: String(error) };
    }
    if (this.#isStopped) return {};
    const isBlocked = this.#options.fallbackUrl && this.#blocked >= BLOCKED_UPGRADES;
    return isBlocked ? this.#poll(token) : this.#listen(token, new Line(this.#options));
  }

  async #token() {
    const { token, tokenSeconds } = this.#options;
    if (!isFunction(token)) return token;
    const late = `token() gave nothing within ${tokenSeconds} s`;
    const fresh = await within(tokenSeconds, Promise.resolve().then(token), late, this.#stopped.signal);
    if (!isToken(fresh)) throw new TypeError("token() did not return a token");
    return fresh;
  }

  // Progress, or a connection that stood for a while, begins the pauses anew; a hello alone does not.
  async #pause({ code, reason, afterSeconds = 0 }) {
    const { jitterSeconds, baseSeconds, maxSeconds } = this.#reconnect;
    if (this.#steadySince !== null && Date.now() - this.#steadySince >= STEADY_SECONDS * 1000) this.#failures = 0;
    const first = code === RESTART ? jitterSeconds : baseSeconds;
    const seconds = afterSeconds + Math.random() * Math.min(Math.max(maxSeconds, first), first * 2 ** this.#failures++);
    this.#options.onState("waiting", { seconds, code, reason });
    if (this.#isStopped) return;
    await new Promise((resolve) => {
      let timer = setTimeout(resolve, seconds * 1000);
      const end = (delay) => { clearTimeout(timer); timer = setTimeout(resolve, Math.min(delay, seconds) * 1000); };
      this.#resting = { end, isOrdered: afterSeconds > 0 };
    });
    this.#resting = null;
  }

  #interrupt(reason) {
    this.#line?.end({ code: null, reason });
    this.#page?.abort(reason);
  }

  // Comes back at once, all but a little jitter, unless the server said when.
  #wake(reason) {
    if (this.#line) this.#line.wake();
    else this.#page?.abort(reason);
    if (!this.#resting?.isOrdered) this.#resting?.end(Math.random() * RECONNECT.baseSeconds);
  }

  // Over a socket.

  async #listen(token, line) {
    this.#line = line;
    try {
      for (;;) {
        const frame = await line.take();
        if (this.#isStopped) return {};
        if (frame.type === "closed") {
          const isAnswered = line.isGreeted || frame.code >= 4000 || frame.code === RESTART || frame.code === 1013;
          if (!isAnswered && frame.reason !== "offline") this.#blocked += 1;
          return frame;
        }
        if (frame.type === "opened") {
          line.send({ ...this.#filters, type: "auth", token, since: this.since ?? undefined, epoch: this.epoch ?? undefined });
        }
        if (frame.type === "hello") this.#greet(line, frame);
        await this.#take(frame);
        const { type, code, message: reason } = frame;
        if (type === "error" && code === "invalid_message" && !line.isGreeted) return { code, reason }; // it refused the options
      }
    } finally {
      this.#line = null;
      line.end({});
    }
  }

  #greet(line, frame) {
    this.#reconnect = { ...RECONNECT, ...frame.reconnect };
    this.since ??= frame.since;
    this.epoch ??= frame.epoch ?? null;
    this.#refusals = this.#blocked = 0;
    this.#steadySince = Date.now();
    line.watch(frame.heartbeatSeconds ?? HEARTBEAT_SECONDS);
    this.#options.onState("live", frame);
  }

  // The position moves after the caller's handler has finished; one that throws ends the follow before its event.
  async #take(frame) {
    const { onEvent, onGap, onError } = this.#options;
    if (frame.type === "event" && !(frame.seq <= this.since)) {
      await onEvent(frame);
      this.since = frame.seq;
      this.#failures = 0;
    } else if (frame.type === "gap") {
      await onGap(frame);
      this.since = frame.oldest - 1;
      this.epoch = frame.epoch ?? this.epoch;
    } else if (frame.type === "pong") {
      this.since = Math.max(this.since, frame.sequence);
    } else if (frame.type === "error") {
      onError(frame);
    }
  }

  // Over HTTP, where sockets are blocked; the socket is tried beside it now and then.

  async #poll(token) {
    const probe = new Probe(this.#options, () => this.#page?.abort("the socket is open"));
    let isTold = false;
    try {
      while (!this.#isStopped && this.#blocked >= BLOCKED_UPGRADES) {
        if (probe.line) {
          this.#blocked = BLOCKED_UPGRADES - 1; // one failure is enough to come back here
          return await this.#listen(token, probe.line);
        }
        const began = Date.now();
        const page = await this.#read(token, isTold);
        if (page.ending) return page.ending;
        if (page.interrupted) continue;
        if (!isTold) this.#announce(page, began);
        await this.#handle(page);
        if (this.#isStopped) return {};
        if (isTold && !page.events.length) await this.#rest(began);
        isTold = true;
      }
      return { code: null, reason: "online" };
    } finally {
      probe.end();
    }
  }

  #announce({ head, epoch }, began) {
    this.#refusals = 0;
    this.#steadySince = began;
    this.#options.onState("polling", { since: this.since ?? head, epoch: this.epoch ?? epoch ?? null });
  }

  async #handle(page) {
    this.epoch ??= page.epoch ?? null;
    if (this.since === null) { // from now on
      this.since = page.head;
      return;
    }
    if (page.gap) await this.#take({ type: "gap", epoch: page.epoch, ...page.gap });
    for (const event of page.events) {
      if (this.#isStopped) return;
      await this.#take(event);
    }
    this.since = Math.max(this.since, page.next);
  }

  async #read(token, mayWait) {
    const { fallbackUrl, fetch, pongSeconds } = this.#options;
    const isBeginning = this.since === null; // then only the head is of interest
    const wait = !mayWait ? 0 : isInFront() ? FRONT_WAIT_SECONDS : BACK_WAIT_SECONDS;
    const { events, contactId, conversationId } = this.#filters;
    const place = { since: this.since ?? 0, epoch: this.epoch, limit: isBeginning ? 1 : PAGE_EVENTS, wait };
    const url = new URL(fallbackUrl);
    for (const [name, value] of Object.entries({ ...place, events, contactId, conversationId })) {
      if (value !== undefined && value !== null) url.searchParams.set(name, value);
    }
    const { signal } = this.#page = new AbortController();
    const timer = setTimeout(() => this.#page?.abort("no answer"), (wait + pongSeconds) * 1000);
    try {
      const answer = await fetch(url.href, { headers: { Authorization: `Bearer ${token}` }, signal, cache: "no-store" });
      const page = await answer.json().catch(() => null);
      if (signal.aborted) throw signal.reason;
      return answer.ok && Array.isArray(page?.events) ? page : { ending: refusal(answer, page) };
    } catch (error) {
      if (["in front", "the socket is open"].includes(signal.reason)) return { interrupted: true };
      return { ending: { code: null, reason: String(signal.reason ?? error) } };
    } finally {
      clearTimeout(timer);
      this.#page = null;
    }
  }

  // An API that does not wait is asked every two seconds at most.
  async #rest(began) {
    const seconds = POLL_SECONDS - (Date.now() - began) / 1000;
    if (seconds <= 0) return;
    this.#page = new AbortController();
    const { signal } = this.#page;
    await within(seconds + Math.random() * 0.1, new Promise(() => {}), "", signal).catch(() => {});
    this.#page = null;
  }
}

function refusal(answer, page) {
  const words = page?.error?.message ?? page?.error;
  const reason = typeof words === "string" ? words : `the API answered ${answer.status}`;
  if (answer.status === 401) return { code: TOKEN[0], reason };
  if (answer.status === 400) return { code: "invalid_message", reason };
  return { code: answer.status, reason, afterSeconds: Number(answer.headers.get("Retry-After")) || 0 };
}

// One socket: what it says, in order, with its end as the last item; never an unhandled error, in any environment.

class Line {
  isGreeted = false;
  #socket = null;
  #pongSeconds;
  #onEnd;
  #items = [];
  #taker = null;
  #ended = false;
  #timer;
  #quietSeconds = () => HEARTBEAT_SECONDS;
  #heardAt = Date.now();
  #askedAt = null;
  #dueAt = Infinity; // when the timer was to fire

  constructor({ WebSocket, url, connectSeconds, pongSeconds }, { onOpen, onEnd } = {}) {
    this.#pongSeconds = pongSeconds;
    this.#onEnd = onEnd;
    const late = { code: 1006, reason: `no greeting within ${connectSeconds} s` };
    this.#timer = setTimeout(() => this.end(late), connectSeconds * 1000);
    try {
      const socket = this.#socket = new WebSocket(url);
      socket.onopen = () => { this.#put({ type: "opened" }); onOpen?.(); };
      socket.onmessage = ({ data }) => this.#hear(data);
      // Node 20 reports a refused connection as an error without a close; elsewhere the error comes first.
      socket.onclose = ({ code = 1006, reason }) => this.end({ code, reason: reason || "the connection broke" });
      socket.onerror = (event) => this.end({ code: 1006, reason: event?.message || "no connection" });
    } catch (error) { this.end({ code: null, reason: String(error) }); }
  }

  async take() {
    while (!this.#items.length) await new Promise((resolve) => { this.#taker = resolve; });
    return this.#items.shift();
  }

  send(message) {
    try {
      if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(message));
    } catch (error) { this.end({ code: 1006, reason: String(error) }); }
  }

  // Once greeted, a line that says nothing for a while is asked, and given up without an answer.
  watch(heartbeatSeconds) {
    this.isGreeted = true;
    this.#quietSeconds = () => (isInFront() ? Math.min(QUIET_SECONDS, heartbeatSeconds) : heartbeatSeconds);
    this.#look();
  }

  // The page was hidden or the machine asleep: a line nobody looked at for long is given up, any other is asked at once.
  wake() {
    if (!this.isGreeted || this.#ended) return;
    if (this.#hasSlept(Date.now())) return this.end(ASLEEP);
    if (this.#askedAt === null) this.#ask();
    this.#look();
  }

  end(ending) {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#items.push({ ...ending, type: "closed" });
    this.#taker?.();
    this.#onEnd?.();
    const socket = this.#socket;
    if (!socket) return;
    // The package ws throws what nobody listens to: an error after the end is heard, and ignored.
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = () => {};
    try {
      if (ending.code === 1006 && socket.terminate) socket.terminate(); // nobody is there to say goodbye to
      else socket.close();
    } catch { /* it is closed already */ }
  }

  #put(item) {
    if (this.#ended) return;
    if (this.#items.length >= MOST_QUEUED) return this.end({ code: null, reason: `${MOST_QUEUED} frames wait for the handler` });
    this.#items.push(item);
    this.#taker?.();
  }

  #hear(data) {
    this.#heardAt = Date.now();
    if (this.#askedAt !== null) {
      this.#askedAt = null;
      this.#look();
    }
    let frame;
    try { frame = JSON.parse(data); } catch { /* told below */ }
    if (typeof frame?.type === "string") this.#put(frame);
    else this.end({ code: null, reason: "a frame cannot be read" });
  }

  #hasSlept(now) { return now - this.#dueAt > ASLEEP_SECONDS * 1000; }

  #ask() {
    this.#askedAt = Date.now();
    this.send({ type: "ping" });
  }

  #look() {
    clearTimeout(this.#timer);
    const now = Date.now();
    if (isInFront() && this.#hasSlept(now)) return this.end(ASLEEP);
    this.#heardAt = Math.min(this.#heardAt, now); // the clock may have been set back
    const isLate = this.#askedAt !== null && now - this.#askedAt >= this.#pongSeconds * 1000;
    if (isLate) return this.end({ code: 1006, reason: "no answer" });
    if (this.#askedAt === null && now - this.#heardAt >= this.#quietSeconds() * 1000) this.#ask();
    if (this.#ended) return;
    this.#dueAt = this.#askedAt === null ? this.#heardAt + this.#quietSeconds() * 1000 : this.#askedAt + this.#pongSeconds * 1000;
    this.#timer = setTimeout(() => this.#look(), Math.max(1, this.#dueAt - now));
  }
}

// Tries the socket now and then while events are read over HTTP.

class Probe {
  line = null; // once it is open
  #trying = null;
  #timer;
  #options;
  #onOpen;

  constructor(options, onOpen) {
    this.#options = options;
    this.#onOpen = onOpen;
    this.#later();
  }

  end() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#trying?.end({});
  }

  #later() {
    this.#timer = setTimeout(() => this.#try(), PROBE_SECONDS * (0.5 + Math.random() / 2) * 1000);
  }

  #try() {
    const onOpen = () => { this.line = this.#trying; this.#onOpen(); };
    const onEnd = () => { if (!this.line && this.#timer !== null) this.#later(); };
    this.#trying = new Line(this.#options, { onOpen, onEnd });
  }
}

// The surroundings.

function isInFront() {
  return globalThis.document?.visibilityState === "visible";
}

function watchSurroundings({ lost, found, seen }) {
  const visible = () => { if (isInFront()) seen(); };
  const watched = [
    [globalThis, "offline", lost], [globalThis, "online", found], [globalThis, "pageshow", seen],
    [globalThis.document, "visibilitychange", visible], [globalThis.document, "resume", seen],
  ];
  for (const [target, name, listener] of watched) target?.addEventListener?.(name, listener);
  return () => { for (const [target, name, listener] of watched) target?.removeEventListener?.(name, listener); };
}

function within(seconds, promise, reason, signal) {
  return new Promise((resolve, reject) => {
    const fail = () => finish(reject, new Error(signal?.aborted ? "stopped" : reason));
    const timer = setTimeout(fail, seconds * 1000);
    const finish = (settle, value) => { clearTimeout(timer); signal?.removeEventListener("abort", fail); settle(value); };
    signal?.addEventListener("abort", fail);
    promise.then((value) => finish(resolve, value), (error) => finish(reject, error));
  });
}
