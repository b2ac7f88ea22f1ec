// One JavaScript peer, driven by another process.
//
//   node peer.mjs --signal ws://127.0.0.1:PORT/.well-known/dx/signal (--data DIR | --memory)
//
// Commands come in on standard input and answers go out on standard output, one JSON object a line:
//   {"id": 1, "do": "add", "space": "B…", "data": {…}}  ->  {"id": 1, "ok": {…}, "ms": 3.2}  or  {"id": 1, "error": "…"}
// Whatever nobody asked for is an event: {"event": "…", "at": <monotonic ms>, …}. README.md lists all of them.

import { printLine } from './stdout.mjs';

import { closeClient, isProperties, listObjects, monotonicMs, openClient, plainObject, queryAll } from './client.mjs';

import fs from 'node:fs/promises';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import readline from 'node:readline';
import { isDeepStrictEqual, parseArgs } from 'node:util';

import { next as Automerge } from '@automerge/automerge';
import { PublicKey } from '@dxos/client';
import { Expando, Filter, HaloSpaceMember, SpaceMember, SpaceState, createDocAccessor, getObjectCore, importSpace, live, updateText } from '@dxos/client/echo';
import { CreateEpochRequest, Device, DeviceKind, DeviceType } from '@dxos/client/halo';
import { Invitation, InvitationEncoder } from '@dxos/client/invitations';
import { ConnectionState } from '@dxos/client/mesh';
import { Serializer } from '@dxos/echo-db';
import { EchoObject, Ref, toEffectSchema } from '@dxos/echo-schema';
import { Schema } from 'effect';

const { values: options } = parseArgs({
  options: { signal: { type: 'string' }, data: { type: 'string' }, memory: { type: 'boolean', default: false }, stalls: { type: 'boolean' } },
});
if (Boolean(options.data) === options.memory) {
  console.error('peer.mjs: give either --data DIR or --memory');
  process.exit(2);
}

let client;
let held; // What the benchmark goes on holding.
let loopDelay;
const pendingJoins = new Map();
const undoOnClose = new Set();

const emit = (event, fields) => printLine({ event, at: monotonicMs(), ...fields });

// The client throws from its own timers when a connection ends. A peer that died of that would hide the real result,
// and a peer that said nothing would hide a real fault.
const onFault = (error) => {
  console.error(error);
  void emit('fault', { error: String(error?.message ?? error) });
};
process.on('uncaughtException', onFault);
process.on('unhandledRejection', onFault);

//
// Help for the commands
//

const hex = (key) => key?.toHex() ?? null;
const nameOf = (numbers, value) => numbers[value] ?? String(value);

/** "shared_secret" -> 1, and an error that lists what is allowed. */
const numberOf = (numbers, name, what) => {
  const value = numbers[String(name).toUpperCase()];
  if (typeof value !== 'number') {
    const allowed = Object.keys(numbers).filter((key) => typeof numbers[key] === 'number');
    throw new Error(`${what} must be one of ${allowed.join(', ').toLowerCase()}; got ${name}`);
  }
  return value;
};

const required = (command, ...names) => {
  for (const name of names) {
    if (command[name] === undefined) {
      throw new Error(`${command.do}: "${name}" is missing`);
    }
  }
};

const withTimeout = (promise, timeoutMs, what) => {
  let timer;
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${timeoutMs} ms`)), timeoutMs);
  });
  return Promise.race([promise, limit]).finally(() => clearTimeout(timer));
};

/** Resolves as soon as the check holds for what the observable shows. */
const until = (observable, check, timeoutMs, what) => {
  let subscription;
  const held = new Promise((resolve) => {
    subscription = observable.subscribe((value) => check(value) && resolve(value));
  });
  return withTimeout(held, timeoutMs, what).finally(() => subscription?.unsubscribe());
};

/** A space by its id, its key in hex, or "default". */
const spaceOf = (command) => {
  required(command, 'space');
  if (command.space === 'default') {
    return client.spaces.default;
  }
  const space = client.spaces.get().find((one) => one.id === command.space || one.key.toHex() === command.space);
  if (!space) {
    throw new Error(`no such space here: ${command.space}`);
  }
  return space;
};

const spaceFields = (space) => ({
  spaceId: space.id,
  spaceKey: hex(space.key),
  state: nameOf(SpaceState, space.state.get()),
  // Until it is ready a space throws at the mere mention of its properties.
  name: space.state.get() === SpaceState.SPACE_READY ? (space.properties.name ?? null) : null,
});

const objectOf = async (space, id) => {
  required({ do: 'object', id }, 'id');
  const object = space.db.getObjectById(id) ?? (await listObjects(space, { deleted: true })).find((one) => one.id === id);
  if (!object) {
    throw new Error(`no such object here: ${id}`);
  }
  return object;
};

const parentOf = (object, dotted) => {
  const keys = dotted.split('.').map((key) => (/^\d+$/.test(key) ? Number(key) : key));
  const last = keys.pop();
  return { parent: keys.reduce((value, key) => value[key], object), last };
};

const matches = (data, match) =>
  Object.entries(match).every(([dotted, wanted]) => {
    const value = dotted.split('.').reduce((inner, key) => inner?.[key], data);
    return isDeepStrictEqual(value ?? null, wanted);
  });

/** Replaces "{i}" in the strings of a template, and the string "{i}" as a whole by the number itself. */
const fill = (template, i) => {
  if (template === '{i}') {
    return i;
  }
  if (typeof template === 'string') {
    return template.replaceAll('{i}', String(i));
  }
  if (Array.isArray(template)) {
    return template.map((value) => fill(value, i));
  }
  if (template && typeof template === 'object') {
    return Object.fromEntries(Object.entries(template).map(([key, value]) => [key, fill(value, i)]));
  }
  return template;
};

const edit = (object, { set = {}, unset = [], push = {}, text = {} }) => {
  for (const [dotted, value] of Object.entries(set)) {
    const { parent, last } = parentOf(object, dotted);
    parent[last] = value;
  }
  for (const dotted of unset) {
    const { parent, last } = parentOf(object, dotted);
    delete parent[last];
  }
  for (const [dotted, values] of Object.entries(push)) {
    const { parent, last } = parentOf(object, dotted);
    parent[last].push(...values);
  }
  for (const [dotted, value] of Object.entries(text)) {
    updateText(object, dotted.split('.'), value);
  }
};

const identityFields = () => {
  const identity = client.halo.identity.get();
  return {
    identityKey: hex(identity?.identityKey),
    did: identity?.did ?? null,
    displayName: identity?.profile?.displayName ?? null,
    haloSpaceKey: hex(identity?.spaceKey),
    deviceKey: hex(client.halo.device?.deviceKey),
  };
};

const waitForIdentity = async (timeoutMs) => {
  await until(client.halo.identity, (identity) => identity, timeoutMs, 'the identity');
  await until(client.halo.devices, () => client.halo.device, timeoutMs, 'this device');
};

//
// Invitations
//

const TERMINAL = ['SUCCESS', 'CANCELLED', 'TIMEOUT', 'ERROR', 'EXPIRED'];

const invitationOptions = ({ authMethod = 'shared_secret', type = 'interactive', role, ...command }) => {
  const wanted = {
    authMethod: numberOf(Invitation.AuthMethod, authMethod, 'authMethod'),
    type: numberOf(Invitation.Type, type, 'type'),
    ...(role === undefined ? {} : { role: numberOf(HaloSpaceMember.Role, role, 'role') }),
  };
  for (const name of ['multiUse', 'persistent', 'timeout', 'lifetime', 'authCode', 'target']) {
    if (command[name] !== undefined) {
      wanted[name] = command[name];
    }
  }
  return wanted;
};

const host = (observable, timeoutMs = 20_000) => {
  const made = new Promise((resolve, reject) => {
    let answered = false;
    observable.subscribe(
      (invitation) => {
        // The first value is a placeholder made on the client's side. Only the host of the services knows the time of
        // creation, the code and, for a delegated invitation, the credential that the other members will honour.
        const delegated = invitation.type === Invitation.Type.DELEGATED;
        if (!invitation.created || (delegated && !invitation.delegationCredentialId)) {
          return;
        }
        if (!answered) {
          answered = true;
          resolve({
            invitationId: invitation.invitationId,
            code: InvitationEncoder.encode(invitation),
            authCode: invitation.authCode ?? null,
            swarmKey: hex(invitation.swarmKey),
            lifetime: invitation.lifetime ?? null,
            multiUse: invitation.multiUse ?? false,
            persistent: invitation.persistent ?? false,
          });
        }
        void emit('invitation', {
          side: 'host',
          invitationId: invitation.invitationId,
          state: nameOf(Invitation.State, invitation.state),
        });
      },
      (error) => {
        reject(error);
        void emit('invitation', { side: 'host', invitationId: observable.get().invitationId, state: 'ERROR', error: error.message });
      },
    );
  });
  return withTimeout(made, timeoutMs, 'the invitation');
};

/** Follow an accepted invitation to its end; gives the invitation of the state SUCCESS. */
const guest = (observable, { authCode, timeoutMs }) => {
  const { invitationId } = observable.get();
  pendingJoins.set(invitationId, observable);
  const done = new Promise((resolve, reject) => {
    let last;
    let asked = 0;
    let complete;
    const completed = new Promise((wake) => (complete = wake));
    // The services keep an invitation for a moment after its end; only then can the driver try the same code again.
    const fail = (reason) => {
      const failing = () => reject(new Error(reason));
      withTimeout(completed, 1_000, 'the end').then(failing, failing);
    };
    observable.subscribe(
      (invitation) => {
        const state = nameOf(Invitation.State, invitation.state);
        if (state === last) {
          return;
        }
        last = state;
        void emit('invitation', { side: 'guest', invitationId, state });
        if (state === 'READY_FOR_AUTHENTICATION') {
          asked += 1;
          if (authCode !== undefined && asked === 1) {
            observable.authenticate(String(authCode)).catch((error) => fail(error.message));
          } else if (authCode !== undefined) {
            // The host asks again when the code was wrong.
            fail('the authentication code was refused');
            observable.cancel().catch((error) => console.error(error));
          }
        }
        if (state === 'SUCCESS') {
          resolve(invitation);
        } else if (TERMINAL.includes(state)) {
          fail(`invitation ended: ${state}`);
        }
      },
      (error) => {
        complete();
        void emit('invitation', { side: 'guest', invitationId, state: 'ERROR', error: error.message });
        fail(error.message);
      },
      () => {
        complete();
        if (last !== 'SUCCESS') {
          fail(`invitation ended: ${last}`);
        }
      },
    );
  });
  return withTimeout(done, timeoutMs, 'the invitation').finally(() => pendingJoins.delete(invitationId));
};

/**
 * Make the client forget an earlier try with the same code.
 *
 * It keeps an invitation that ended with an error for as long as it lives, and hands it out again, failed as it is,
 * whenever the same code is given to it: a second try would need a new process.
 */
const forget = (proxy, code) => {
  const { invitationId } = InvitationEncoder.decode(code);
  if (!pendingJoins.has(invitationId)) {
    proxy._acceptedUpdate.emit(proxy.accepted.get().filter((one) => one.get().invitationId !== invitationId));
    client.services.host.context.invitationsManager._acceptInvitations.delete(invitationId);
  }
};

const observableOf = ({ invitationId, code }) => {
  const wanted = invitationId ?? (code && InvitationEncoder.decode(code).invitationId);
  const created = client.spaces.get().flatMap((space) => space.invitations.get());
  const observable = [...pendingJoins.values(), ...created, ...client.halo.invitations.get()].find(
    (one) => one.get().invitationId === wanted,
  );
  if (!observable) {
    throw new Error(`no such invitation here: ${wanted}`);
  }
  return observable;
};

//
// Watching objects
//

/** Calls back for every object of the space that is there, comes, changes or goes. Gives a function that stops it. */
const watchObjects = (space, callback) => {
  const known = new Map();
  const stop = queryAll(space, { deleted: true }).subscribe(
    (query) => {
      for (const object of query.objects) {
        if (known.has(object.id) || isProperties(object)) {
          continue;
        }
        // A query tells of objects that come and go only, so each object is asked to tell of its own changes.
        known.set(object.id, getObjectCore(object).updates.on(() => callback(object)));
        callback(object);
      }
    },
    { fire: true },
  );
  return () => {
    stop();
    known.forEach((off) => off());
  };
};

const waitForObjects = (space, { id, match = {}, count, deleted, timeoutMs = 30_000 }) => {
  const found = new Map();
  const known = new Map();
  const wanted = count ?? 1;
  let stop;
  let timer;
  const done = new Promise((resolve) => {
    const look = (object) => {
      known.set(object.id, object);
      const core = getObjectCore(object);
      const fits =
        (id === undefined || object.id === id) &&
        (deleted === undefined ? !core.isDeleted() : core.isDeleted() === deleted) &&
        (Object.keys(match).length === 0 || matches(plainObject(object).data, match));
      if (fits) {
        found.set(object.id, object);
      } else {
        found.delete(object.id);
      }
      if (found.size >= wanted) {
        resolve();
      }
    };
    stop = watchObjects(space, look);
    // After a new epoch the client does change its objects but tells nobody of it. So those that are known are looked
    // at now and then. A query would be the wrong means: one that runs while objects arrive holds up their arrival.
    timer = setInterval(() => {
      known.forEach((object, id) => look(space.db.getObjectById(id, { deleted: true }) ?? object));
    }, 1_000);
  });
  return withTimeout(done, timeoutMs, `waitFor ${JSON.stringify({ id, match, count: wanted, deleted })}`)
    .catch((error) => {
      throw new Error(`${error.message}; found ${found.size}`);
    })
    .then(() => [...found.values()].map(plainObject))
    .finally(() => {
      clearInterval(timer);
      stop?.();
    });
};

//
// Commands
//

const JOIN_TIMEOUT_MS = 60_000;

const commands = {
  identity: async ({ name, timeoutMs = 30_000 }) => {
    const created = !client.halo.identity.get();
    const begin = performance.now();
    if (created) {
      await client.halo.createIdentity({ displayName: name });
    }
    const createMs = performance.now() - begin;
    await waitForIdentity(timeoutMs);
    await withTimeout(client.spaces.waitUntilReady(), timeoutMs, 'the default space');
    return { ...identityFields(), created, createMs };
  },

  createSpace: async ({ name }) => {
    const space = await client.spaces.create(name === undefined ? {} : { name });
    await space.waitUntilReady();
    return spaceFields(space);
  },

  spaces: async () => ({
    spaces: client.spaces.get().map((space) => ({
      ...spaceFields(space),
      isDefault: space.id === client.spaces._defaultSpaceId,
    })),
  }),

  waitReady: async (command) => {
    const { timeoutMs = 30_000 } = command;
    // A space that was just joined on another device of ours appears some time later.
    if (command.space !== 'default') {
      const isWanted = (space) => space.id === command.space || space.key.toHex() === command.space;
      await until(client.spaces, (spaces) => spaces.some(isWanted), timeoutMs, `the space ${command.space}`);
    }
    const space = spaceOf(command);
    await withTimeout(space.waitUntilReady(), timeoutMs, 'the space to be ready');
    return spaceFields(space);
  },

  openSpace: async (command) => {
    await spaceOf(command).open();
    return {};
  },

  closeSpace: async (command) => {
    await spaceOf(command).close();
    return {};
  },

  invite: async (command) => host(spaceOf(command).share(invitationOptions(command))),

  invitations: async (command) => ({
    invitations: spaceOf(command)
      .invitations.get()
      .map((observable) => observable.get())
      .map((invitation) => ({
        invitationId: invitation.invitationId,
        code: InvitationEncoder.encode(invitation),
        authCode: invitation.authCode ?? null,
        state: nameOf(Invitation.State, invitation.state),
      })),
  }),

  cancelInvitation: async (command) => {
    await observableOf(command).cancel();
    return {};
  },

  join: async (command) => {
    required(command, 'code');
    const { code, authCode, timeoutMs = JOIN_TIMEOUT_MS } = command;
    forget(client.spaces._invitationProxy, code);
    const begin = performance.now();
    const { spaceKey } = await guest(client.spaces.join(code), { authCode, timeoutMs });
    const handshakeMs = performance.now() - begin;
    const isWanted = (one) => one.key.equals(spaceKey);
    await until(client.spaces, (spaces) => spaces.some(isWanted), timeoutMs, 'the joined space');
    const space = client.spaces.get().find(isWanted);
    await withTimeout(space.waitUntilReady(), timeoutMs, 'the joined space to be ready');
    return { ...spaceFields(space), handshakeMs, readyMs: performance.now() - begin };
  },

  authenticate: async (command) => {
    required(command, 'authCode');
    const observable = observableOf(command);
    await observable.authenticate(String(command.authCode));
    return {};
  },

  shareDevice: async (command) => host(client.halo.share(invitationOptions(command))),

  joinDevice: async (command) => {
    required(command, 'code');
    const { code, authCode, label, timeoutMs = JOIN_TIMEOUT_MS } = command;
    forget(client.halo._invitationProxy, code);
    const begin = performance.now();
    await guest(client.halo.join(code, label === undefined ? undefined : { label }), { authCode, timeoutMs });
    const handshakeMs = performance.now() - begin;
    await waitForIdentity(timeoutMs);
    return { ...identityFields(), handshakeMs, readyMs: performance.now() - begin };
  },

  add: async (command) => {
    required(command, 'data');
    const space = spaceOf(command);
    const at = monotonicMs();
    const object = space.db.add(live(Expando, command.data));
    if (command.flush ?? true) {
      await space.db.flush();
    }
    return { objectId: object.id, at };
  },

  addMany: async (command) => {
    required(command, 'count', 'template');
    const space = spaceOf(command);
    const { count, template, first = 0 } = command;
    const at = monotonicMs();
    const objectIds = [];
    for (let i = first; i < first + count; i++) {
      objectIds.push(space.db.add(live(Expando, fill(template, i))).id);
    }
    if (command.flush ?? true) {
      await space.db.flush();
    }
    return { objectIds: command.ids === false ? [] : objectIds, count, at };
  },

  update: async (command) => {
    const space = spaceOf(command);
    const object = await objectOf(space, command.objectId);
    const at = monotonicMs();
    edit(object, command);
    if (command.flush ?? true) {
      await space.db.flush();
    }
    return { at };
  },

  // Registers a schema in the space and adds an object of it. Types of fields: string, number, boolean, strings, ref; with
  // a question mark the field is optional. A "ref" is given by the id of an object.
  addTyped: async (command) => {
    required(command, 'typename', 'version', 'fields', 'data');
    const space = spaceOf(command);
    const kinds = {
      string: Schema.String,
      number: Schema.Number,
      boolean: Schema.Boolean,
      strings: Schema.mutable(Schema.Array(Schema.String)),
      ref: Ref(Expando),
    };
    const fields = Object.entries(command.fields).map(([name, kind]) => {
      const found = kinds[kind.replace('?', '')];
      return [name, kind.endsWith('?') ? Schema.optional(found) : found];
    });
    const { typename, version } = command;
    const wanted = Schema.Struct(Object.fromEntries(fields)).pipe(EchoObject({ typename, version }));
    const [schema] = await space.db.schemaRegistry.register([wanted]);
    const data = Object.fromEntries(
      await Promise.all(
        Object.entries(command.data).map(async ([name, value]) =>
          command.fields[name].startsWith('ref') ? [name, Ref.make(await objectOf(space, value))] : [name, value],
        ),
      ),
    );
    const object = space.db.add(live(schema, data));
    await space.db.flush();
    return { objectId: object.id };
  },

  // The schemas that the space keeps, as this client understands them.
  schemas: async (command) => {
    const found = await spaceOf(command).db.schemaRegistry.query().run();
    return {
      schemas: found.map((one) => ({
        typename: one.typename,
        version: one.version,
        fields: one.getProperties().map((property) => String(property.name)),
        jsonSchema: JSON.parse(JSON.stringify(one.jsonSchema)),
      })),
    };
  },

  // The objects of one stored schema, and what the client says when these values are assigned. It has two kinds of
  // typed objects: of a schema in the space, whose type refers to it, and of a class of the application, whose type is
  // a name. So what is stored is made a class too, as an application would that knows the type.
  typed: async (command) => {
    required(command, 'typename', 'refused');
    const space = spaceOf(command);
    const [stored] = await space.db.schemaRegistry.query({ typename: command.typename }).run();
    const { $id, annotations, ...json } = JSON.parse(JSON.stringify(stored.jsonSchema));
    const known = client.graph.schemaRegistry.getSchema(command.typename);
    const named = known ?? toEffectSchema({ ...json, $id: `dxn:type:${command.typename}` });
    if (!known) {
      client.addTypes([named]);
    }
    const results = await Promise.all([stored, named].map((one) => space.db.query(Filter.type(one)).run()));
    const objects = results.flatMap((one) => one.objects);
    const errors = objects.map((object) =>
      Object.entries(command.refused).map(([name, value]) => {
        try {
          object[name] = value;
          return null;
        } catch (error) {
          return String(error.message);
        }
      }),
    );
    return { objects: objects.map(plainObject), errors };
  },

  updateMany: async (command) => {
    const space = spaceOf(command);
    const objects = await listObjects(space);
    const begin = performance.now();
    objects.forEach((object, i) => edit(object, fill({ set: command.set ?? {} }, i)));
    if (command.flush ?? true) {
      await space.db.flush();
    }
    // The time to find the objects is not part of the time to update them.
    return { count: objects.length, updateMs: performance.now() - begin };
  },

  remove: async (command) => {
    const space = spaceOf(command);
    space.db.remove(await objectOf(space, command.objectId));
    if (command.flush ?? true) {
      await space.db.flush();
    }
    return {};
  },

  get: async (command) => {
    const space = spaceOf(command);
    required(command, 'objectId');
    const objects = await listObjects(space, { deleted: true, properties: true });
    const object = objects.find((one) => one.id === command.objectId);
    return { object: object ? plainObject(object) : null };
  },

  query: async (command) => {
    const space = spaceOf(command);
    const { deleted = false, properties = false, match = {} } = command;
    const objects = (await listObjects(space, { deleted, properties })).map(plainObject);
    return { objects: objects.filter(({ data }) => matches(data, match)) };
  },

  count: async (command) => ({ count: (await listObjects(spaceOf(command), command)).length }),

  waitForCount: async (command) => {
    required(command, 'count');
    const { count, timeoutMs = 30_000 } = command;
    // The plainest subscription there is, so that the waiting costs as little as possible: for measuring.
    const query = queryAll(spaceOf(command));
    let stop;
    const done = new Promise((resolve) => {
      const look = ({ objects }) => {
        if (objects.length >= count && objects.filter((object) => !isProperties(object)).length >= count) {
          resolve();
        }
      };
      stop = query.subscribe(look, { fire: true });
    });
    await withTimeout(done, timeoutMs, `waitForCount ${count}`).finally(() => stop());
    return { count };
  },

  waitFor: async (command) => {
    const objects = await waitForObjects(spaceOf(command), { ...command, id: command.objectId });
    return command.full === false ? { count: objects.length } : { count: objects.length, objects };
  },

  watch: async (command) => {
    const space = spaceOf(command);
    const wanted = command.objectId;
    const stop = watchObjects(space, (object) => {
      if (wanted === undefined || object.id === wanted) {
        void emit('object', { spaceId: space.id, object: plainObject(object) });
      }
    });
    undoOnClose.add(stop);
    return {};
  },

  flush: async (command) => {
    await spaceOf(command).db.flush();
    return {};
  },

  exportArchive: async (command) => {
    required(command, 'path');
    const { filename, contents } = await spaceOf(command).internal.export();
    await fs.writeFile(command.path, contents);
    return { filename, bytes: contents.length };
  },

  importArchive: async (command) => {
    required(command, 'path');
    const { timeoutMs = 30_000 } = command;
    const contents = new Uint8Array(await fs.readFile(command.path));
    const space = await client.spaces.import({ filename: path.basename(command.path), contents });
    await withTimeout(space.waitUntilReady(), timeoutMs, 'the imported space to be ready');
    return spaceFields(space);
  },

  exportJson: async (command) => ({ data: await new Serializer().export(spaceOf(command).db) }),

  importJson: async (command) => {
    required(command, 'data');
    await importSpace(spaceOf(command).db, command.data);
    return {};
  },

  members: async (command) => ({
    members: spaceOf(command)
      .members.get()
      .map((member) => ({
        identityKey: hex(member.identity.identityKey),
        did: member.identity.did,
        displayName: member.identity.profile?.displayName ?? null,
        role: nameOf(HaloSpaceMember.Role, member.role),
        presence: nameOf(SpaceMember.PresenceState, member.presence),
      })),
  }),

  updateRole: async (command) => {
    required(command, 'identityKey', 'role');
    const memberKey = PublicKey.from(command.identityKey);
    await spaceOf(command).updateMemberRole({ memberKey, newRole: numberOf(HaloSpaceMember.Role, command.role, 'role') });
    return {};
  },

  updateProfile: async (command) => {
    required(command, 'name');
    await client.halo.updateProfile({ displayName: command.name });
    return {};
  },

  devices: async () => ({
    devices: client.halo.devices.get().map((device) => ({
      deviceKey: hex(device.deviceKey),
      kind: nameOf(DeviceKind, device.kind),
      label: device.profile?.label ?? null,
      type: nameOf(DeviceType, device.profile?.type),
      presence: nameOf(Device.PresenceState, device.presence),
    })),
  }),

  listen: async (command) => {
    required(command, 'channel');
    const space = spaceOf(command);
    const stop = space.listen(command.channel, ({ peerId, timestamp, payload }) => {
      void emit('message', {
        spaceId: space.id,
        channel: command.channel,
        peerKey: hex(peerId),
        timestamp: timestamp?.toISOString() ?? null,
        message: payload,
      });
    });
    undoOnClose.add(stop);
    return {};
  },

  postMessage: async (command) => {
    required(command, 'channel', 'message');
    await spaceOf(command).postMessage(command.channel, command.message);
    return {};
  },

  offline: async () => {
    await client.mesh.updateConfig(ConnectionState.OFFLINE);
    return {};
  },

  online: async () => {
    await client.mesh.updateConfig(ConnectionState.ONLINE);
    return {};
  },

  // A swarm of the JavaScript client connects to somebody new at most once in ten seconds, and forgets about it when
  // the news came too early: after a short absence it may stay alone for good. This asks all its swarms to look again.
  nudge: async () => {
    const { networkManager } = client.services.host.context;
    const swarms = networkManager.topics.map((topic) => networkManager.getSwarm(topic));
    for (const swarm of swarms) {
      swarm?._topology.forceUpdate?.();
    }
    return { swarms: swarms.length };
  },

  epoch: async (command) => {
    const space = spaceOf(command);
    const { Migration } = CreateEpochRequest;
    // Without a migration the client makes no epoch at all, and says nothing.
    const migration = numberOf(Migration, command.migration ?? 'prune_automerge_root_history', 'migration');
    await space.internal.createEpoch({ migration });
    return commands.epochs(command);
  },

  epochs: async (command) => ({
    epochs: (await spaceOf(command).internal.getEpochs()).map(({ subject: { assertion } }) => ({
      number: assertion.number,
      root: assertion.automergeRoot ?? null,
    })),
  }),

  // The root that the client's database works with: while it goes over to another there is none, and whatever one asks
  // of the database then is refused, "Database is not ready".
  root: async (command) => {
    const loader = spaceOf(command).db.coreDatabase._automergeDocLoader;
    return { root: loader.hasRootHandle ? loader.getSpaceRootDocHandle().url : null };
  },

  credentials: async (command) => ({
    credentials: (await spaceOf(command).internal.getCredentials()).map((credential) => ({
      credentialId: hex(credential.id),
      issuer: hex(credential.issuer),
      subject: hex(credential.subject.id),
      type: credential.subject.assertion['@type'],
    })),
  }),

  // What has been processed of the space's control feeds: how many blocks of each.
  timeframe: async (command) => ({
    feeds: Object.fromEntries(
      spaceOf(command)
        .internal.data.pipeline.currentControlTimeframe.frames()
        .map(([feedKey, index]) => [hex(feedKey), index]),
    ),
  }),

  status: async () => {
    const { swarm, signaling, connectionInfo } = client.mesh.networkStatus.get();
    return {
      swarm: nameOf(ConnectionState, swarm),
      signaling: (signaling ?? []).map(({ server, state }) => ({ server, state })),
      swarms: (connectionInfo ?? []).map(({ topic, connections, isActive }) => ({
        topic: hex(topic),
        isActive,
        connections: (connections ?? []).map((one) => ({ peerKey: hex(one.remotePeerId), state: one.state })),
      })),
    };
  },

  //
  // For the benchmark: each does something again and again, and says how long each time took.
  //

  edits: async (command) => {
    const space = spaceOf(command);
    const objects = await listObjects(space);
    const durableMs = [];
    for (let i = 0; i < command.count; i++) {
      const begin = performance.now();
      objects[i % objects.length].title = `Edited ${i}`;
      await space.db.flush();
      durableMs.push(performance.now() - begin);
    }
    return { durableMs };
  },

  // A query tells of objects that begin or end to match, so that is what the edits do.
  seen: async (command) => {
    const space = spaceOf(command);
    const [object] = await listObjects(space);
    const seenMs = [];
    let told = () => {};
    const stop = space.db.query(Filter._props({ watched: true })).subscribe(() => told(), { fire: true });
    for (let i = 0; i < command.count; i++) {
      const seen = new Promise((resolve) => (told = resolve));
      const begin = performance.now();
      object.watched = i % 2 === 0;
      await withTimeout(seen, 30_000, 'the subscriber');
      seenMs.push(performance.now() - begin);
      await space.db.flush();
    }
    stop();
    return { seenMs };
  },

  find: async (command) => {
    const space = spaceOf(command);
    const findMs = [];
    for (let i = 0; i < command.count; i++) {
      const begin = performance.now();
      const { objects } = await space.db.query(Filter._props({ [command.name]: i })).run({ timeout: 600_000 });
      findMs.push(performance.now() - begin);
      if (objects.length !== 1) {
        throw new Error(`${objects.length} objects have ${command.name} ${i}`);
      }
    }
    return { findMs };
  },

  // The client has no pages: `limit` is applied to all results, and there is no order.
  page: async (command) => {
    const space = spaceOf(command);
    const pageMs = [];
    for (let i = 0; i < command.count; i++) {
      const begin = performance.now();
      await space.db.query(Filter.everything(), { limit: command.limit }).run({ timeout: 600_000 });
      pageMs.push(performance.now() - begin);
    }
    return { pageMs };
  },

  // Many subscriptions. Kinds: of one object; of one query; of queries that differ and never find anything.
  follow: async (command) => {
    const space = spaceOf(command);
    const [object] = await listObjects(space);
    const queryOf = {
      same: () => Filter._props({ n: object.n }),
      others: (i) => Filter._props({ n: -1 - i }),
    }[command.kind];
    let told = 0;
    const begin = performance.now();
    const stops = [];
    for (let i = 0; i < command.count; i++) {
      stops.push(
        command.kind === 'object'
          ? getObjectCore(object).updates.on(() => told++)
          : space.db.query(queryOf(i)).subscribe(() => told++, { fire: true }),
      );
    }
    if (command.kind !== 'object') {
      // Asked after them all, so it is answered after them all.
      await space.db.query(Filter._props({ n: object.n })).run({ timeout: 600_000 });
    }
    const followMs = performance.now() - begin;
    const editMs = [];
    for (let i = 0; i < 2; i++) {
      const edited = performance.now();
      object.title = `${command.kind} ${i}`;
      await space.db.flush();
      editMs.push(performance.now() - edited);
    }
    stops.forEach((stop) => stop());
    return { followMs, editMs };
  },

  touch: async (command) => {
    const space = spaceOf(command);
    const objects = (await listObjects(space)).slice(0, command.count);
    objects.forEach((object) => edit(object, command));
    await space.db.flush();
    return { count: objects.length };
  },

  hold: async (command) => ({ count: (held = await listObjects(spaceOf(command))).length }),

  // Edits of a text: [index, characters that go, characters that come], so many in each turn.
  text: async (command) => {
    const space = spaceOf(command);
    const object = await objectOf(space, command.objectId);
    const { handle, path: place } = createDocAccessor(object, ['text']);
    for (let i = 0; i < command.edits.length; i += command.turn) {
      handle.change((doc) => {
        for (const [index, deleteCount, insert] of command.edits.slice(i, i + command.turn)) {
          Automerge.splice(doc, place.slice(), index, deleteCount, insert);
        }
      });
      await new Promise(setImmediate);
    }
    await space.db.flush();
    return { length: object.text.length };
  },

  // The longest time for which the event loop did nothing else, since the last such call.
  stall: async () => {
    if (!loopDelay) {
      loopDelay = monitorEventLoopDelay({ resolution: 1 });
      loopDelay.enable();
    }
    // The delay that is going on is noted with the next turn only.
    await new Promise((resolve) => setTimeout(resolve, 5));
    const stallMs = Math.max(0, loopDelay.max / 1e6 - 1);
    loopDelay.reset();
    return { stallMs };
  },

  reopen: async () => {
    await shut();
    const begin = performance.now();
    client = await openClient({ signal: options.signal, dataRoot: options.data });
    return { initializeMs: performance.now() - begin, ...identityFields() };
  },

  rss: async () => {
    // Garbage is collected only where node was started with --expose-gc; both figures are of interest.
    globalThis.gc?.();
    const { rss, heapUsed, external } = process.memoryUsage();
    return { rssBytes: rss, heapBytes: heapUsed, externalBytes: external, collected: Boolean(globalThis.gc) };
  },

  close: async () => {
    await shut();
    return {};
  },
};

const shut = async () => {
  for (const undo of undoOnClose) {
    await undo();
  }
  undoOnClose.clear();
  const closing = client;
  client = undefined;
  if (closing) {
    await closeClient(closing);
  }
};

//
// The loop
//

const answer = async (line) => {
  let command;
  try {
    command = JSON.parse(line);
  } catch {
    return printLine({ id: null, error: 'not JSON' });
  }
  const begin = performance.now();
  try {
    const run = Object.hasOwn(commands, command.do) ? commands[command.do] : undefined;
    if (!run) {
      throw new Error(`no such command: ${command.do}`);
    }
    const ok = await run(command);
    await printLine({ id: command.id, ok, ms: performance.now() - begin });
  } catch (error) {
    console.error(error);
    await printLine({ id: command.id, error: error?.message ?? String(error), ms: performance.now() - begin });
  }
  if (command.do === 'close') {
    process.exit(0);
  }
};

const loadedAt = performance.now();
client = await openClient({ signal: options.signal, dataRoot: options.data });
await emit('ready', {
  // Since the process began, so the loading of the client's code is in it.
  loadMs: loadedAt,
  initializeMs: performance.now() - loadedAt,
  ...identityFields(),
});

// Commands run side by side: a join waits for its authentication code, which is a command of its own.
const lines = readline.createInterface({ input: process.stdin });
lines.on('line', (line) => {
  if (line.trim()) {
    void answer(line);
  }
});

// A peer whose driver is gone must not stay behind.
const leave = async () => {
  setTimeout(() => process.exit(1), 5_000).unref();
  await shut().catch(() => {});
  process.exit(0);
};
lines.on('close', leave);
process.on('SIGTERM', leave);
process.on('SIGINT', leave);
