// grpc.js HOST:PORT: one unary call by grpc-js. Messages are JSON in raw bytes: no code is generated.
import grpc from "@grpc/grpc-js";
import { finish } from "./finish.js";

const raw = (data) => data;

await finish(
  () =>
    new Promise((resolve, reject) => {
      const client = new grpc.Client(process.argv[2], grpc.credentials.createInsecure());
      const message = Buffer.from('{"message": "hello"}');
      const options = { deadline: Date.now() + 20_000 };
      client.makeUnaryRequest("/hairpin.test.Echo/Unary", raw, raw, message, options, (error, answer) =>
        error ? reject(error) : resolve(`200 ${answer}`),
      );
    }),
);
