// Keeps standard output for our own JSON lines. Import this module before any other: the client's libraries
// print while they are being loaded, and one stray line would break the reader at the other end.

const writeStdout = process.stdout.write.bind(process.stdout);
process.stdout.write = process.stderr.write.bind(process.stderr);

// The library logs at level "info" unless told otherwise, which costs time and says little.
process.env.LOG_FILTER ??= 'error';

/** Write one JSON value as one line; resolves when the pipe has taken it. */
export const printLine = (value) =>
  new Promise((resolve) => {
    writeStdout(JSON.stringify(value) + '\n', () => resolve());
  });
