import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { noise } from '@chainsafe/libp2p-noise'
import { identify, type Identify } from '@libp2p/identify'
import type { ConnectionProtector, Libp2p, Libp2pEvents, PeerStore, PrivateKey, ServiceMap, TypedEventTarget } from '@libp2p/interface'
import { kadDHT, passthroughMapper, type KadDHT } from '@libp2p/kad-dht'
import { memory } from '@libp2p/memory'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { ping, type Ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { LevelDatastore } from 'datastore-level'
import type { Multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import {
  DHT_RECORDS_IN_MEMORY_MAX, DHT_RECORDS_MAX, STREAMS_PER_CONNECTION_MAX, STREAM_READ_BUFFER_BYTES_MAX, STREAM_WRITE_BUFFER_BYTES_MAX, ConfigError, KiB, MiB,
  asError, systemClock, systemRandom, type Clock, type Logger, type Random
} from '../base/index.ts'
import { CalmPeerStore } from './calm-peer-store.ts'
import { calmYamux } from './calm-yamux.ts'
import { loadIdentity } from './identity.ts'
import { limitedProtector, type LinkLimiter } from './link-limiter.ts'
import { MemoryDatastore } from './memory-datastore.ts'
import { componentLogger } from './network-logger.ts'
import { ProviderRecords } from './provider-records.ts'
import { checkSwarmKey } from './swarm-key.ts'
import { swarmKeyProtector } from './swarm-key-protector.ts'

/** Ours, so that no node of another network strays into the table. */
export const KAD_PROTOCOL = '/shoal/kad/1'

const HOUR_MS = 3_600_000
/**
 * libp2p forgets a peer's addresses after an hour and the peer after six, and then leaves it out of the answers about
 * what it provides, or fails to answer at all. Provider records live two days; a week also spans a long weekend.
 */
const PEER_MEMORY_MS = 7 * 24 * HOUR_MS
const STREAM_WINDOW_BYTES = 256 * KiB
const STREAM_WINDOW_BYTES_MAX = 2 * MiB

/** What is listened on in fact: libp2p itself tells only what it announces. */
export interface Listeners { addresses: () => Multiaddr[] }

export interface NetworkServices extends ServiceMap {
  peerStore: CalmPeerStore
  identify: Identify
  ping: Ping
  dht: KadDHT
  records: ProviderRecords
  listeners: Listeners
}

export type Network = Libp2p<NetworkServices>

/** Pings under way on one connection, each way; libp2p's own are one and two. */
const PING_STREAMS_MAX = 8

export interface NetworkInit {
  /** Holds identity.key and libp2p/ (peers and DHT records). Without it all is in memory and the identity is new. */
  dataDirectory?: string
  /** Instead of DIR/identity.key. */
  privateKey?: PrivateKey
  /** Multiaddrs. */
  listen: string[]
  /** Told to others instead of the ones listened on; empty or missing: those. */
  announceAddresses?: string[]
  transport: 'tcp' | 'memory'
  /** 32 bytes; required unless the swarm is open. */
  swarmKey?: Uint8Array
  openSwarm?: boolean
  maxConnections: number
  /** Connections taken from one address in a second. */
  inboundPerSecond: number
  logger: Logger
  clock?: Clock
  random?: Random
  linkLimiter?: LinkLimiter
}

/**
 * A libp2p host, not started: `start()` and `stop()` are libp2p's own. stop() leaves no timer, socket or open file, and
 * the host may be started again. Throws ConfigError (a bad key), DiskError.
 */
export async function createNetwork (init: NetworkInit): Promise<Network> {
  const clock = init.clock ?? systemClock
  const random = init.random ?? systemRandom
  const directory = init.dataDirectory
  if (directory !== undefined) await mkdir(join(directory, 'libp2p'), { recursive: true, mode: 0o700 })
  const privateKey = init.privateKey ?? await loadIdentity(directory)
  const records = new ProviderRecords({
    inner: directory === undefined ? new MemoryDatastore() : new LevelDatastore(join(directory, 'libp2p')),
    self: peerIdFromPrivateKey(privateKey),
    recordsMax: directory === undefined ? DHT_RECORDS_IN_MEMORY_MAX : DHT_RECORDS_MAX,
    random
  })
  const protector = protectorFor(init, clock, random)
  const network = await createLibp2p<NetworkServices>({
    start: false,
    privateKey,
    datastore: records,
    logger: componentLogger(init.logger),
    nodeInfo: { name: 'shoal', version: '1', userAgent: 'shoal' },
    addresses: { listen: init.listen, ...(init.announceAddresses === undefined || init.announceAddresses.length === 0 ? {} : { announce: init.announceAddresses }) },
    transports: [init.transport === 'memory' ? memory() : tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [calmYamux({
      maxInboundStreams: STREAMS_PER_CONNECTION_MAX,
      maxOutboundStreams: STREAMS_PER_CONNECTION_MAX,
      streamOptions: {
        initialStreamWindowSize: STREAM_WINDOW_BYTES,
        maxStreamWindowSize: STREAM_WINDOW_BYTES_MAX,
        maxReadBufferLength: STREAM_READ_BUFFER_BYTES_MAX,
        maxWriteBufferLength: STREAM_WRITE_BUFFER_BYTES_MAX
      }
    })],
    ...(protector === undefined ? {} : { connectionProtector: () => protector }),
    connectionManager: {
      maxConnections: init.maxConnections,
      inboundConnectionThreshold: init.inboundPerSecond,
      // Strangers who say nothing hold a place until the swarm key's deadline; a few of them must not fill it.
      maxIncomingPendingConnections: Math.max(128, init.inboundPerSecond * 10)
    },
    // A peer behind a full link answers late; the default of 5 s would cut connections that are only busy.
    connectionMonitor: { pingInterval: 30_000, pingTimeout: { minTimeout: 20_000 } },
    peerStore: { maxAddressAge: PEER_MEMORY_MS, maxPeerAge: PEER_MEMORY_MS },
    services: {
      // The first: those that follow find it in the place of libp2p's own.
      peerStore: ({ peerStore, events }: { peerStore: PeerStore, events: TypedEventTarget<Libp2pEvents> }) => new CalmPeerStore(peerStore, events, clock),
      identify: identify(),
      // The monitor of connections aborts one on which it may open no ping, and the DHT pings as well: on a full link both last long.
      ping: ping({ maxInboundStreams: PING_STREAMS_MAX, maxOutboundStreams: PING_STREAMS_MAX }),
      dht: kadDHT({
        protocol: KAD_PROTOCOL,
        clientMode: false,
        peerInfoMapper: passthroughMapper,
        // The first node of a swarm asks nobody and must not wait for that.
        allowQueryWithZeroPeers: true,
        // Our own records are never stored (provider-records.ts), so there is nothing to provide again.
        reprovide: { threshold: 0 }
      }),
      records: () => records,
      listeners: ({ transportManager }: { transportManager: { getAddrs: () => Multiaddr[] } }) => ({ addresses: () => transportManager.getAddrs() })
    }
  })
  network.peerStore = network.services.peerStore
  network.addEventListener('start', () => {
    // libp2p writes a node's own addresses to its peer store a second late, and until then the DHT cannot tell anyone where it is.
    const multiaddrs = network.getMultiaddrs().map(address => address.decapsulate('/p2p'))
    network.peerStore.patch(network.peerId, { multiaddrs }).catch(error => {
      init.logger.warn({ error: asError(error).message }, 'own addresses could not be kept')
    })
  })
  return network
}

function protectorFor (init: NetworkInit, clock: Clock, random: Random): ConnectionProtector | undefined {
  if (init.swarmKey === undefined && init.openSwarm !== true) throw new ConfigError('a swarm key is missing; give one, or set network.openSwarm for a swarm that anyone may join')
  if (init.swarmKey !== undefined && init.openSwarm === true) throw new ConfigError('an open swarm has no swarm key; give one or the other')
  const keyed = init.swarmKey === undefined ? undefined : swarmKeyProtector({ key: checkSwarmKey(init.swarmKey), clock, random })
  return init.linkLimiter === undefined ? keyed : limitedProtector(init.linkLimiter, keyed)
}
