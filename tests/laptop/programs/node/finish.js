// One line: the answer, or the error with its code and its causes' own.
const described = (error) => {
  const inner = [error.cause, ...(error.errors ?? [])].filter(Boolean).map(described);
  return [`${error.code ?? error.name} ${error.message}`, ...inner].join("; by ");
};

export const finish = async (call) => {
  let line;
  try {
    line = `answer ${await call()}`;
  } catch (error) {
    line = `error ${described(error)}`;
    process.exitCode = 1;
  }
  process.stdout.write(line.replaceAll("\n", " ") + "\n", () => process.exit());
};
