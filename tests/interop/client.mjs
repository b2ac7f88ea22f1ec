// A JavaScript client with real sockets and no hosted service. Shared by the peer and by the benchmark.

import './stdout.mjs';

import { register } from 'node:module';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';

import { Client, Config, LocalClientServices } from '@dxos/client';
import { Filter, QueryOptions, getObjectCore } from '@dxos/client/echo';
import { MemorySignalManager, MemorySignalManagerContext, WebsocketSignalManager } from '@dxos/messaging';
import { MemoryTransportFactory } from '@dxos/network-manager';
import { TcpTransportFactory } from '@dxos/network-manager/transport/tcp';

register('./resolve.mjs', import.meta.url);

/** Milliseconds of the machine's monotonic clock: comparable between processes, Python's time.monotonic() included. */
export const monotonicMs = () => Number(process.hrtime.bigint()) / 1e6;

/**
 * Open a client.
 *
 * @param signal URL of the signalling server; without one the client is alone.
 * @param dataRoot folder of the profile; without one nothing outlives the client.
 */
export const openClient = async ({ signal, dataRoot }) => {
  const storage = dataRoot ? { persistent: true, dataRoot } : { persistent: false };
  const signaling = signal ? [{ server: signal }] : undefined;
  const config = new Config({
    version: 1,
    runtime: { client: { storage }, services: signaling ? { signaling } : {} },
  });

  const services = new LocalClientServices({
    config,
    signalManager: signal
      ? new WebsocketSignalManager(signaling)
      : new MemorySignalManager(new MemorySignalManagerContext()),
    transportFactory: signal ? TcpTransportFactory : MemoryTransportFactory,
  });

  const client = new Client({ config, services });
  await client.initialize();
  return client;
};

/** Close a client and delete what it leaves behind. */
export const closeClient = async (client) => {
  const location = client.services.host?._level?.location;
  await client.destroy();
  // Even a client in memory keeps its documents in a database below the temporary folder, and never deletes it.
  if (location && path.dirname(location) === '/tmp' && path.basename(location).startsWith('dxos-')) {
    await fs.rm(location, { recursive: true, force: true });
  }
};

const PROPERTIES = 'dxos.org/type/Properties';

const typenameOf = (core) => {
  const dxn = core.getType()?.toDXN().toString();
  return dxn?.match(/^dxn:type:(.+?)(:[\d.]+)?$/)?.[1] ?? dxn ?? null;
};

/** An ECHO object as plain JSON. */
export const plainObject = (object) => {
  const core = getObjectCore(object);
  const { id, __typename, __meta, ...data } = core.toPlainObject();
  return { id, typename: typenameOf(core), deleted: core.isDeleted(), keys: __meta?.keys ?? [], data };
};

export const isProperties = (object) => typenameOf(getObjectCore(object)) === PROPERTIES;

/** A query over a whole space. The deleted objects come with it only when asked for. */
export const queryAll = (space, { deleted = false } = {}) =>
  space.db.query(Filter.everything(), {
    deleted: deleted
      ? QueryOptions.ShowDeletedOption.SHOW_DELETED
      : QueryOptions.ShowDeletedOption.HIDE_DELETED,
  });

/** The objects of a space, without the one that holds the space's own properties unless asked for. */
export const listObjects = async (space, { deleted = false, properties = false, timeoutMs = 600_000 } = {}) => {
  const { objects } = await queryAll(space, { deleted }).run({ timeout: timeoutMs });
  return properties ? objects : objects.filter((object) => !isProperties(object));
};

/** A fresh folder that nobody else can read. */
export const temporaryFolder = () => fs.mkdtemp(path.join(os.tmpdir(), 'dxos-js-'));
