// udp.js ADDRESS:PORT WAY: one datagram by node:dgram, and what comes back; the way is send, or connect.
import dgram from "node:dgram";
import { finish } from "./finish.js";

const [to, way] = process.argv.slice(2);
const [, address, port] = to.match(/^\[?([^\]]*?)\]?:(\d+)$/);

await finish(
  () =>
    new Promise((resolve, reject) => {
      const socket = dgram.createSocket(address.includes(":") ? "udp6" : "udp4");
      const timer = setTimeout(() => reject(new Error("lost")), 10_000);
      const sent = (error) => error && reject(error);
      socket.on("error", reject);
      socket.on("message", (data, from) => {
        clearTimeout(timer);
        const host = from.family === "IPv6" ? `[${from.address}]` : from.address;
        resolve(`${data} from ${host}:${from.port}`);
      });
      if (way === "connect") {
        socket.connect(Number(port), address, (error) => (error ? reject(error) : socket.send("hello", sent)));
      } else {
        socket.send("hello", Number(port), address, sent);
      }
    }),
);
