// The JavaScript half of the benchmark: prints one JSON object with the medians of what it measured.
//
//   node bench.mjs [--signal URL] [--count 1000] [--runs 3] [--edits 100] [--only name,...] [--quick]
//
// Each peer is a process of its own, the very one that the interoperability tests drive, so that two peers do not
// share one event loop. Times are taken inside the peers, on the machine's monotonic clock where two peers are
// compared; the way through the pipe is not in them. Measurements between two peers need a signalling server.

import { spawn } from 'node:child_process';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const INTEROP = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../tests/interop');
const TEMPLATE = { title: 'Item {i}', done: false, n: '{i}', tags: ['a', 'b'], shop: { aisle: 3 } };
// The client sends at most ten updates a second: an edit sooner after the last one than this waits for its turn.
const EDIT_PAUSE_MS = 200;
const WAIT_MS = 600_000;

const { values: options } = parseArgs({
  options: {
    signal: { type: 'string' },
    count: { type: 'string', default: '1000' },
    runs: { type: 'string', default: '3' },
    edits: { type: 'string', default: '100' },
    only: { type: 'string' },
    quick: { type: 'boolean', default: false },
  },
});

const whole = (name) => {
  const value = Number(options[name]);
  if (!Number.isInteger(value) || value < 1) {
    throw new Error(`--${name} must be a whole number above zero`);
  }
  return value;
};
// A quick run proves that everything works; its figures mean little.
const count = options.quick ? Math.min(100, whole('count')) : whole('count');
const runs = options.quick ? 1 : whole('runs');
const edits = options.quick ? Math.min(20, whole('edits')) : whole('edits');

const monotonicMs = () => Number(process.hrtime.bigint()) / 1e6;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The value below which that share of the values lies; between two neighbours the nearest is taken. */
const quantile = (values, share) => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)];
};

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

//
// Peers
//

const children = new Set();
const folders = new Set();

/** A peer in a process of its own. */
class Peer {
  #child;
  #next = 1;
  #answers = new Map();
  #listeners = new Set();

  static async start({ folder, signal = options.signal } = {}) {
    const peer = new Peer();
    peer.spawnedAt = monotonicMs();
    const place = folder ? ['--data', folder] : ['--memory'];
    const network = signal ? ['--signal', signal] : [];
    // Garbage is collected before memory is measured, which node allows only when started so.
    peer.#child = spawn(process.execPath, ['--expose-gc', path.join(INTEROP, 'peer.mjs'), ...network, ...place], {
      stdio: ['pipe', 'pipe', process.env.BENCH_VERBOSE ? 'inherit' : 'ignore'],
    });
    children.add(peer.#child);
    const died = new Promise((_, reject) => {
      // Not "exit": that may come before the last answer has been read.
      peer.#child.once('close', (code) => {
        children.delete(peer.#child);
        const error = new Error(`a peer ended with code ${code}`);
        peer.#answers.forEach(({ reject: refuse }) => refuse(error));
        reject(error);
      });
    });
    died.catch(() => {});
    readline.createInterface({ input: peer.#child.stdout }).on('line', (line) => peer.#onLine(JSON.parse(line)));
    peer.ready = await Promise.race([peer.event((event) => event.event === 'ready'), died]);
    return peer;
  }

  #onLine(message) {
    if (message.event) {
      this.#listeners.forEach((listener) => listener(message));
      return;
    }
    const { resolve, reject } = this.#answers.get(message.id);
    this.#answers.delete(message.id);
    if (message.error) {
      reject(new Error(message.error));
    } else {
      resolve({ ...message.ok, ms: message.ms });
    }
  }

  /** The next event that passes the check. */
  event(check) {
    return new Promise((resolve) => {
      const listener = (event) => {
        if (check(event)) {
          this.#listeners.delete(listener);
          resolve(event);
        }
      };
      this.#listeners.add(listener);
    });
  }

  do(name, fields = {}) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#answers.set(id, { resolve, reject });
      this.#child.stdin.write(JSON.stringify({ ...fields, id, do: name }) + '\n');
    });
  }

  async close() {
    const gone = new Promise((resolve) => this.#child.once('close', resolve));
    await this.do('close');
    await gone;
  }
}

const folder = async () => {
  const made = await fs.mkdtemp(path.join(os.tmpdir(), 'dxos-bench-js-'));
  folders.add(made);
  return made;
};

const diskBytes = async (root) => {
  const entries = await fs.readdir(root, { recursive: true, withFileTypes: true });
  const sizes = entries
    .filter((entry) => entry.isFile())
    .map(async (entry) => (await fs.stat(path.join(entry.parentPath ?? entry.path, entry.name))).size);
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
};

/** A peer with an identity and a space that nothing is in. */
const owner = async (place = {}) => {
  const peer = await Peer.start(place);
  await peer.do('identity', { name: 'Alice' });
  const { spaceId } = await peer.do('createSpace', { name: 'bench' });
  return { peer, spaceId };
};

const fill = (peer, spaceId) => peer.do('addMany', { space: spaceId, count, template: TEMPLATE, ids: false });

/**
 * Let a fresh peer in.
 *
 * Two JavaScript peers now and then fail at their very first call, because the guest may ask before the host is
 * ready to be asked; how often is told in the result, for a failed try is not a slow one.
 */
const join = async (host, spaceId, failures) => {
  const guest = await Peer.start({ folder: await folder() });
  await guest.do('identity', { name: 'Bob' });
  const { code, authCode } = await host.do('invite', { space: spaceId });
  for (let tries = 1; ; tries++) {
    const begin = monotonicMs();
    try {
      return { guest, begin, ...(await guest.do('join', { code, authCode, timeoutMs: WAIT_MS })) };
    } catch (error) {
      failures.push(error.message);
      if (tries === 3) {
        throw error;
      }
    }
  }
};

//
// What is measured
//

const firstSteps = async () => {
  const samples = {
    load_code_ms: [],
    initialize_ms: [],
    create_identity_ms: [],
    // The client makes a first space for every identity, and is of little use before that space is ready.
    create_identity_and_default_space_ms: [],
    create_space_ms: [],
  };
  // Cheap enough to repeat more often than the rest.
  for (let run = 0; run < Math.max(runs, options.quick ? 1 : 5); run++) {
    const peer = await Peer.start({ folder: await folder() });
    samples.load_code_ms.push(peer.ready.loadMs);
    samples.initialize_ms.push(peer.ready.initializeMs);
    const { createMs, ms } = await peer.do('identity', { name: 'Alice' });
    samples.create_identity_ms.push(createMs);
    samples.create_identity_and_default_space_ms.push(ms);
    samples.create_space_ms.push((await peer.do('createSpace', { name: 'bench' })).ms);
    await peer.close();
  }
  return samples;
};

const objects = async () => {
  const samples = {
    create_objects_ms: [],
    update_objects_ms: [],
    disk_bytes_per_object: [],
    rss_after_create_bytes: [],
    rss_after_reopen_bytes: [],
    reopen_fresh_from_spawn_ms: [],
    reopen_fresh_from_initialize_ms: [],
    reopen_same_process_ms: [],
  };
  for (let run = 0; run < runs; run++) {
    const place = await folder();
    let { peer, spaceId } = await owner({ folder: place });
    // What a profile with an empty space takes is not charged to the objects.
    await peer.close();
    const emptyBytes = await diskBytes(place);
    peer = await Peer.start({ folder: place });
    await peer.do('waitReady', { space: spaceId, timeoutMs: WAIT_MS });
    samples.create_objects_ms.push((await fill(peer, spaceId)).ms);
    samples.rss_after_create_bytes.push((await peer.do('rss')).rssBytes);
    samples.update_objects_ms.push((await peer.do('updateMany', { space: spaceId, set: { done: true } })).updateMs);
    await peer.close();
    samples.disk_bytes_per_object.push(((await diskBytes(place)) - emptyBytes) / count);

    peer = await Peer.start({ folder: place });
    const fullQuery = async () => {
      await peer.do('waitReady', { space: spaceId, timeoutMs: WAIT_MS });
      // The first answers after opening may be short of objects whose documents are still being loaded.
      for (;;) {
        if ((await peer.do('count', { space: spaceId })).count >= count) {
          return monotonicMs();
        }
      }
    };
    const openedAt = await fullQuery();
    samples.reopen_fresh_from_spawn_ms.push(openedAt - peer.spawnedAt);
    samples.reopen_fresh_from_initialize_ms.push(openedAt - peer.ready.at + peer.ready.initializeMs);
    samples.rss_after_reopen_bytes.push((await peer.do('rss')).rssBytes);

    const { initializeMs } = await peer.do('reopen');
    const begin = monotonicMs();
    samples.reopen_same_process_ms.push((await fullQuery()) - begin + initializeMs);
    await peer.close();
  }
  return samples;
};

const joining = async () => {
  const samples = { join_objects_ms: [], join_objects_after_ready_ms: [] };
  const failures = [];
  for (let run = 0; run < runs; run++) {
    const { peer: host, spaceId } = await owner({ folder: await folder() });
    await fill(host, spaceId);
    const { guest, begin, readyMs } = await join(host, spaceId, failures);
    await guest.do('waitForCount', { space: spaceId, count, timeoutMs: WAIT_MS });
    const totalMs = monotonicMs() - begin;
    samples.join_objects_ms.push(totalMs);
    samples.join_objects_after_ready_ms.push(totalMs - readyMs);
    await Promise.all([host.close(), guest.close()]);
  }
  return { ...samples, failures };
};

const edit = async () => {
  const failures = [];
  const { peer: host, spaceId } = await owner({ folder: await folder() });
  const { objectId } = await host.do('add', { space: spaceId, data: { title: 'Item', n: -1 } });
  const { guest } = await join(host, spaceId, failures);
  await guest.do('waitFor', { space: spaceId, objectId, timeoutMs: WAIT_MS });
  await guest.do('watch', { space: spaceId, objectId });

  let n = 0;
  const delays = async (pauseMs) => {
    const samples = [];
    for (let done = 0; done < edits; done++, n++) {
      const wanted = n;
      const seen = guest.event((event) => event.event === 'object' && event.object.data.n === wanted);
      const { at } = await host.do('update', { space: spaceId, objectId, set: { n: wanted }, flush: false });
      samples.push((await seen).at - at);
      await pause(pauseMs);
    }
    return samples;
  };
  const alone = await delays(EDIT_PAUSE_MS);
  const hurried = await delays(0);
  await Promise.all([host.close(), guest.close()]);
  return {
    edit_p50_ms: [quantile(alone, 0.5)],
    edit_p90_ms: [quantile(alone, 0.9)],
    edit_p99_ms: [quantile(alone, 0.99)],
    edit_back_to_back_p50_ms: [quantile(hurried, 0.5)],
    edit_back_to_back_p99_ms: [quantile(hurried, 0.99)],
    failures,
  };
};

const invitation = async () => {
  const samples = { invitation_handshake_ms: [], invitation_ready_ms: [] };
  const failures = [];
  const { peer: host, spaceId } = await owner({ folder: await folder() });
  for (let run = 0; run < Math.max(runs, options.quick ? 1 : 5); run++) {
    const { guest, handshakeMs, readyMs } = await join(host, spaceId, failures);
    samples.invitation_handshake_ms.push(handshakeMs);
    samples.invitation_ready_ms.push(readyMs);
    await guest.close();
  }
  await host.close();
  return { ...samples, failures };
};

const MEASUREMENTS = {
  start: { run: firstSteps, twoPeers: false },
  objects: { run: objects, twoPeers: false },
  join: { run: joining, twoPeers: true },
  edit: { run: edit, twoPeers: true },
  invitation: { run: invitation, twoPeers: true },
};

//
// The run
//

const cleanUp = async () => {
  children.forEach((child) => child.kill());
  await Promise.all([...folders].map((one) => fs.rm(one, { recursive: true, force: true })));
};
process.once('SIGINT', () => void cleanUp().then(() => process.exit(130)));
process.once('SIGTERM', () => void cleanUp().then(() => process.exit(143)));

const names = options.only ? options.only.split(',') : Object.keys(MEASUREMENTS);
const unknown = names.filter((name) => !Object.hasOwn(MEASUREMENTS, name));
if (unknown.length > 0) {
  console.error(`bench.mjs: --only knows ${Object.keys(MEASUREMENTS).join(', ')}; got ${unknown.join(', ')}`);
  process.exit(2);
}

const report = {
  implementation: 'javascript',
  package: '@dxos/client',
  version: JSON.parse(await fs.readFile(path.join(INTEROP, 'node_modules/@dxos/client/package.json'), 'utf8')).version,
  node: process.version,
  cpus: os.cpus().length,
  count,
  runs,
  edits,
  quick: options.quick,
  results: {},
  samples: {},
  skipped: {},
  errors: {},
  failed_joins: [],
};

for (const name of names) {
  const { run, twoPeers } = MEASUREMENTS[name];
  if (twoPeers && !options.signal) {
    report.skipped[name] = 'needs --signal';
    continue;
  }
  console.error(`bench.mjs: ${name} …`);
  try {
    const { failures = [], ...samples } = await run();
    report.failed_joins.push(...failures);
    for (const [key, values] of Object.entries(samples)) {
      report.results[key] = Number(median(values).toFixed(2));
      report.samples[key] = values.map((value) => Number(value.toFixed(2)));
    }
  } catch (error) {
    // One thing that fails must not cost the figures of the others.
    report.errors[name] = error.message;
  }
}

await cleanUp();
process.stdout.write(JSON.stringify(report, null, 2) + '\n');
process.exitCode = Object.keys(report.errors).length > 0 ? 1 : 0;
