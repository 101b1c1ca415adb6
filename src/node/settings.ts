import { MiB, SERVER_REQUESTS_PER_PEER_MAX, SLOTS_DEFAULT } from '../base/index.ts'
import { defaultReplication } from '../replication/settings.ts'
import type { PartialSettings } from './init.ts'
import type { NodeSettings } from './types.ts'

const HOUR_MS = 3_600_000

/** What a node does when nothing is set. The same keys, explained for operators, stand in config/default.jsonc. */
export const defaultSettings: NodeSettings = {
  listen: ['/ip4/0.0.0.0/tcp/4108'],
  announceAddresses: [],
  join: [],
  labels: {},
  storage: {
    quota: undefined,
    // What is given is given to be used: a node that was not asked gives nothing.
    donate: 0,
    directIo: 'auto',
    slots: SLOTS_DEFAULT,
    // A sync costs a flush of the drive: often enough that others can soon fetch from a loading node, rarely enough to be free.
    syncBytes: 64 * MiB,
    syncIntervalMs: 250
  },
  announce: {
    mode: 'adaptive',
    // Records live 48 h (libp2p's Kademlia specification); refreshing at 22 h survives one missed round.
    periodMs: 22 * HOUR_MS,
    concurrency: 4
  },
  transfer: {
    providerTimeoutMs: 15_000,
    stallTimeoutMs: 60_000,
    requestTimeoutMs: 10_000,
    peersMax: 16,
    serverRequestsPerPeer: SERVER_REQUESTS_PER_PEER_MAX,
    uploadBytesPerSecond: undefined,
    downloadBytesPerSecond: undefined,
    peerBytesPerSecond: undefined,
    backgroundRates: [],
    hashThreads: undefined
  },
  lane: { enabled: true, port: undefined, threads: undefined },
  replication: defaultReplication,
  network: { maxConnections: 300, inboundPerSecond: 5, openSwarm: false },
  origin: { upstream: undefined }
}

/** The defaults with what is given laid over them, section by section. An explicit undefined means "the default". */
export function resolveSettings (given: PartialSettings = {}): NodeSettings {
  return {
    listen: given.listen ?? defaultSettings.listen,
    announceAddresses: given.announceAddresses ?? defaultSettings.announceAddresses,
    join: given.join ?? defaultSettings.join,
    labels: given.labels ?? defaultSettings.labels,
    storage: overlay(defaultSettings.storage, given.storage),
    announce: overlay(defaultSettings.announce, given.announce),
    transfer: overlay(defaultSettings.transfer, given.transfer),
    lane: overlay(defaultSettings.lane, given.lane),
    replication: overlay(defaultSettings.replication, given.replication),
    network: overlay(defaultSettings.network, given.network),
    origin: overlay(defaultSettings.origin, given.origin)
  }
}

function overlay<T extends object> (base: T, given: Partial<T> | undefined): T {
  const result = { ...base }
  for (const key of Object.keys(given ?? {}) as Array<keyof T>) {
    const value = given?.[key]
    if (value !== undefined) result[key] = value
  }
  return result
}
