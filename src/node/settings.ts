import { MiB, SERVER_REQUESTS_PER_PEER_MAX, SLOTS_DEFAULT } from '../base/index.ts'
import { defaultReplication } from '../replication/settings.ts'
import type { ReplicationSettings } from '../replication/types.ts'
import type { RateWindow } from '../transfer/rate.ts'

/**
 * What a node goes by; createNode() takes any part of it. config/default.jsonc explains them to operators. Times in milliseconds, sizes in bytes.
 */
export interface NodeSettings {
  listen: string[]
  /** Addresses told to others instead of the ones listened on. */
  announceAddresses: string[]
  /** Multiaddrs (with /p2p/<id>) dialled at start and again while no peer is connected. */
  join: string[]
  labels: Record<string, string>
  storage: { quota: number | undefined, donate: number, directIo: 'auto' | 'on' | 'off', slots: number, syncBytes: number, syncIntervalMs: number }
  announce: { mode: 'adaptive' | 'all' | 'shards', periodMs: number, concurrency: number }
  transfer: {
    /** How long a load looks for a first provider. */
    providerTimeoutMs: number
    /** How long a load that has begun waits while no known peer has what it lacks. */
    stallTimeoutMs: number
    requestTimeoutMs: number
    peersMax: number
    serverRequestsPerPeer: number
    uploadBytesPerSecond: number | undefined
    downloadBytesPerSecond: number | undefined
    /** To each single peer, and from each. */
    peerBytesPerSecond: number | undefined
    /** Caps by time of day on what nobody waits for: repairs, and what is sent to them. */
    backgroundRates: RateWindow[]
    /** Threads that compare blocks with their CIDs. Undefined: as many as help (transfer/block-checks.ts), none for a node in memory. */
    hashThreads: number | undefined
  }
  /** How bytes of blocks travel beside libp2p: see transfer/lanes. */
  lane: {
    enabled: boolean
    port: number | undefined
    /** Threads that keep the sockets of lanes. Undefined: as many as help (transfer/lanes/lane-threads.ts), none for a node in memory. */
    threads: number | undefined
  }
  /** `donateBytes` comes from `storage.donate`. */
  replication: Omit<ReplicationSettings, 'donateBytes'>
  network: { maxConnections: number, inboundPerSecond: number, openSwarm: boolean }
  /** `upstream`: a Hub from which models come that nobody in the swarm has. */
  origin: { upstream: string | undefined }
}

export type PartialSettings = { [K in keyof NodeSettings]?: NodeSettings[K] extends unknown[] | Record<string, string> ? NodeSettings[K] : Partial<NodeSettings[K]> }

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
