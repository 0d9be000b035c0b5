// The peers, as their users write them: node peers.js ws|joined|socketio PORT CONTROL_PORT
// Each line that comes in on the control port is one event, to be sent to every listener.
const net = require("net");
const http = require("http");
const [kind, port, control] = [process.argv[2], +process.argv[3], +process.argv[4]];

let send;
const server = http.createServer();
if (kind === "socketio") {
  const { Server } = require("socket.io");
  const io = new Server(server, { transports: ["websocket"], pingInterval: 300000, perMessageDeflate: false });
  send = (events) => { for (const event of events) io.to("all").emit("event", JSON.parse(event)); };
  io.on("connection", (socket) => socket.join("all"));
} else {
  const { WebSocketServer, Sender } = require("ws");
  const wss = new WebSocketServer({ server, perMessageDeflate: false });
  send = kind === "ws"
    ? (events) => { for (const event of events) for (const client of wss.clients) if (client.readyState === 1) client.send(event); }
    : (events) => { // the frames of one batch, built once and joined into one write per listener
      const frame = (event) => Buffer.concat(Sender.frame(Buffer.from(event), { fin: true, rsv1: false, opcode: 1, mask: false, readOnly: true }));
      const joined = Buffer.concat(events.map(frame));
      for (const client of wss.clients) if (client.readyState === 1) client._socket.write(joined);
    };
}
net.createServer((socket) => {
  let rest = "";
  socket.on("data", (data) => {
    const lines = (rest + data).split("\n");
    rest = lines.pop();
    if (lines.length) send(lines);
  });
}).listen(control, "127.0.0.1");
server.listen({ port, host: "127.0.0.1", backlog: 4096 }, () => console.log("ready"));
