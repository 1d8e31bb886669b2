// fetch.js URL CA: Node's own fetch. NODE_EXTRA_CA_CERTS names the authority, as its user would.
import { finish } from "./finish.js";

await finish(async () => {
  const response = await fetch(process.argv[2], { signal: AbortSignal.timeout(20_000) });
  return `${response.status} ${await response.text()}`;
});
