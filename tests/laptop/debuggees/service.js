// Answers every request with what it adds up.
const http = require("node:http");
const name = process.argv[2];

http.createServer((request, response) => {
  const total = 40 + 2;
  response.end(JSON.stringify({ who: name, total })); // breakpoint
}).listen(0, "127.0.0.1", () => console.log("serving"));
