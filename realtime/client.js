// Follows an organization's events in a browser or in Node, through every reconnect; shapes are in openapi/events.yaml.
//
//   const stop = listen({ url: "ws://127.0.0.1:2213/v1", token, onEvent: (event) => console.log(event.seq, event) });
//
// Options: `since` (the last sequence already handled), `events`, `contactId`, `conversationId` (filters),
// `onGap({since, oldest})` (reload what you show), `onState(name, detail)` with name "connecting", "live" (detail is the
// hello), "waiting" (detail is {seconds, code, reason}) or "stopped", and `WebSocket` where there is no global one.
// `token` may be a function, also an async one, that returns a fresh token. Returns a function that stops listening.

const TOKEN = [4401, 4497, 4498], HOPELESS = [1002, 1003, 1007, 1009, 4403], RESTART = 1012;

export function listen({ url, token, since: position = null, onEvent, onGap = () => {}, onState = () => {},
  WebSocket = globalThis.WebSocket, ...filters }) {
  let reconnect = { jitterSeconds: 5, baseSeconds: 0.5, maxSeconds: 30 }, heartbeat = 20;
  let failures = 0, refusals = 0, missed = 0, stopped = false, socket, timer, pulse;

  const heard = {
    hello(frame) {
      position ??= frame.since;
      ({ reconnect, heartbeatSeconds: heartbeat } = frame);
      failures = refusals = 0;
      watch();
      onState("live", frame);
    },
    event(frame) { if (!(frame.seq <= position)) { position = frame.seq; onEvent(frame); } },
    gap(frame) { position = frame.oldest - 1; onGap(frame); },
    pong(frame) { position = Math.max(position, frame.sequence); },
  };
  async function connect() {
    onState("connecting", { since: position });
    try {
      const fresh = typeof token === "function" ? await token() : token;
      if (stopped) return;
      watch();
      socket = new WebSocket(url);
      socket.onopen = () => socket.send(JSON.stringify({ ...filters, type: "auth", token: fresh, since: position ?? undefined }));
      socket.onmessage = ({ data }) => { missed = 0; const frame = JSON.parse(data); if (!stopped) heard[frame.type]?.(frame); };
      // Node 20 reports a refused connection as an error without a close; elsewhere the error comes first.
      socket.onclose = socket.onerror = ({ code = 1006, reason = "no connection" }) => comeBack({ code, reason });
    } catch (error) { comeBack({ code: null, reason: String(error) }); }
  }
  function watch() { clearInterval(pulse); missed = 0; pulse = setInterval(beat, heartbeat * 1000); }
  function beat() { // the pong keeps our place when a filter lets little through, and proves that the line still stands
    if (missed++ >= 2) comeBack({ code: 1006, reason: "no answer" });
    else if (socket?.readyState === 1) socket.send('{"type":"ping"}');
  }
  function hangUp() {
    clearInterval(pulse); clearTimeout(timer);
    if (socket) socket.onmessage = socket.onclose = socket.onerror = null;
    socket?.close();
  }
  function comeBack({ code, reason }) {
    hangUp();
    if (stopped) return;
    const refused = TOKEN.includes(code) && (typeof token !== "function" || ++refusals > 1); // a function may have a better one
    if (refused || HOPELESS.includes(code)) return stop({ code, reason });
    const limit = Math.min(reconnect.maxSeconds, reconnect.baseSeconds * 2 ** failures++);
    const seconds = Math.random() * (code === RESTART ? reconnect.jitterSeconds : limit);
    onState("waiting", { seconds, code, reason });
    timer = setTimeout(connect, seconds * 1000);
  }
  function stop(detail = {}) {
    if (stopped) return;
    stopped = true;
    hangUp();
    onState("stopped", detail);
  }

  connect();
  return () => stop();
}
