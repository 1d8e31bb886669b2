// http.js URL CA: the modules http and https.
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { finish } from "./finish.js";

const [url, authority] = process.argv.slice(2);

await finish(
  () =>
    new Promise((resolve, reject) => {
      const client = url.startsWith("https:") ? https : http;
      const request = client.get(url, { ca: readFileSync(authority), timeout: 20_000 }, (response) => {
        let body = "";
        response.on("data", (data) => (body += data));
        response.on("end", () => resolve(`${response.statusCode} ${body}`));
        response.on("error", reject);
      });
      request.on("timeout", () => request.destroy(new Error("timed out")));
      request.on("error", reject);
    }),
);
