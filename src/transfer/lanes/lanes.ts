import type { Connection, Libp2p, Stream } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import {
  LANELESS_PEERS_MAX, LANE_ASK_STREAMS_PER_PEER_MAX, LANE_HANDSHAKE_MS, PeerGoneError, PeerTimeoutError, asError, throwIfAborted, type Clock, type Logger, type Random
} from '../../base/index.ts'
import { framesOver, type OpenFrames } from '../frame-stream.ts'
import type { LinkLimiter } from '../../discovery/index.ts'
import { BufferPool } from './buffer-pool.ts'
import { createLaneCertificate, type LaneCertificate } from './certificate.ts'
import { openLane } from './lane-client.ts'
import { LaneServer, type AcceptLane } from './lane-server.ts'
import type { LaneInput, LaneSocket } from './lane-socket.ts'
import { LaneStream, type LaneShared } from './lane-stream.ts'
import { LaneThreads } from './lane-threads.ts'
import { LANE, LANE_PROTOCOL, decodeAsk, decodeLane, encodeAsk, encodeLane, encodeNoLane, laneClientRules, laneServerRules, type LaneOffer } from './messages.ts'

export interface LanesComponents { network: Libp2p, clock: Clock, random: Random, logger: Logger, linkLimiter?: LinkLimiter | undefined }

export interface LaneSettings {
  /** False: this node offers no lanes and asks for none. */
  enabled: boolean
  /** TCP port for lanes; undefined: the one after the first TCP port that is listened on. One that is taken, or 0: any free one. */
  port: number | undefined
  /** Threads that keep the sockets of lanes; 0 or undefined: the main one does. */
  threads?: number | undefined
  /** The multiaddrs that libp2p was told to listen on: lanes listen on the same hosts. */
  listen: string[]
}

export interface LanesHooks {
  accept: AcceptLane
  /** A peer that is not to have a lane. */
  isBanned: (peerId: string) => boolean
}

/** A lane that does not open within this and four round trips of its offer is not waited for: the stream serves until it opens. */
const PATIENCE_MS = 500
/** An offer that was long in coming says that one of both is busy: so many times as long is waited. A stream would be no sooner there. */
const PATIENCE_OFFERS = 2
const PATIENCE_MS_MAX = 3_000
/** One that has not opened by then, or by so many times what its offer took, will not. */
const OPEN_MS = 5_000
const OPEN_OFFERS = 20
const OPEN_MS_MAX = 20_000
/** A peer without a lane is asked again after this, doubled each time in a row up to the longest. */
const RETRY_MS = 30_000
const RETRY_MS_MAX = 10 * 60_000

/** One that is open, and how to end it before anybody uses it. */
export interface Lane { open: OpenFrames, abort: () => void }

/** One that is being opened. */
export interface OpeningLane {
  /** Undefined when none can be had, which is remembered for a while. Rejects with the signal's reason only. */
  lane: Promise<Lane | undefined>
  /** Resolves when it is not to be waited for: the stream may serve until it opens. */
  slow: Promise<void>
}

interface Laneless { until: number, forMs: number }

/**
 * Lanes to and from other nodes: TCP connections of their own beside libp2p's, under TLS, for the bytes of blocks alone
 * (docs/decisions/0007-lanes.md). A lane speaks for a peer because both ends learnt over the authenticated connection
 * which certificates to expect, and it ends with that connection.
 */
export class Lanes {
  readonly #components: LanesComponents
  readonly #settings: LaneSettings
  readonly #shared: LaneShared
  readonly #hooks: LanesHooks
  readonly #laneless = new Map<string, Laneless>()
  /** Those this side opened. */
  readonly #opened = new Map<string, Set<LaneSocket>>()
  #certificate: LaneCertificate | undefined
  #server: LaneServer | undefined
  #threads: LaneThreads | undefined

  constructor (components: LanesComponents, settings: LaneSettings, hooks: LanesHooks) {
    this.#components = components
    this.#settings = settings
    this.#shared = { pool: new BufferPool({ shared: (settings.threads ?? 0) > 0 }), clock: components.clock, limiter: components.linkLimiter }
    this.#hooks = hooks
  }

  /** Where lanes come in; 0: nowhere. */
  get port (): number { return this.#server?.port ?? 0 }

  /** Never throws for want of a lane. The network is started by now. */
  async start (): Promise<void> {
    const { network } = this.#components
    const { hosts, port } = listenedOn(this.#settings.listen)
    if (!this.#settings.enabled || hosts.length === 0) return
    const certificate = this.#certificate = createLaneCertificate()
    const threads = this.#settings.threads ?? 0
    this.#threads = threads > 0 ? new LaneThreads(threads, certificate, this.#components.logger) : undefined
    this.#server = new LaneServer({ ...this.#components, certificate, shared: this.#shared, threads: this.#threads }, { hosts, port: this.#settings.port ?? (port === 0 ? 0 : port + 1) }, (peerId, open) => this.#isConnected(peerId) && this.#hooks.accept(peerId, open))
    await this.#server.start()
    await network.handle(LANE_PROTOCOL, (stream, connection) => { this.#asked(stream, connection) }, {
      maxInboundStreams: LANE_ASK_STREAMS_PER_PEER_MAX, maxOutboundStreams: LANE_ASK_STREAMS_PER_PEER_MAX
    })
    network.addEventListener('peer:disconnect', this.#onDisconnect)
  }

  async stop (): Promise<void> {
    const { network } = this.#components
    network.removeEventListener('peer:disconnect', this.#onDisconnect)
    if (this.#server === undefined) return
    await network.unhandle(LANE_PROTOCOL)
    for (const peerId of this.#opened.keys()) this.drop(peerId)
    await this.#server.stop()
    await this.#threads?.stop()
  }

  /** Whether a lane to this peer is worth asking for now: it can be reached by TCP, and has not refused lately. */
  mayOpen (peerId: string): boolean {
    if (this.#certificate === undefined) return false
    const known = this.#laneless.get(peerId)
    return (known === undefined || known.until <= this.#components.clock.monotonic()) && this.#way(peerId) !== undefined
  }

  /** A lane to a peer that there is a connection to. It opens or fails in 40 seconds at most, and on quiet hosts in five. */
  open (peerId: string, signal: AbortSignal): OpeningLane {
    const { clock } = this.#components
    const late = new AbortController()
    const slow = Promise.withResolvers<undefined>()
    const wait = (patienceMs: number, openMs: number): () => void => {
      const cancels = [
        clock.setTimeout(() => { slow.resolve(undefined) }, patienceMs),
        clock.setTimeout(() => { late.abort(new PeerTimeoutError(`no lane within ${openMs} ms`)) }, openMs)
      ]
      return () => { for (const cancel of cancels) cancel() }
    }
    const askedAt = clock.monotonic()
    let cancel = wait(PATIENCE_MS_MAX, OPEN_MS_MAX)
    const offered = (roundTripMs: number): void => {
      cancel()
      const offerMs = clock.monotonic() - askedAt
      cancel = wait(
        Math.min(PATIENCE_MS_MAX, Math.max(PATIENCE_MS + 4 * roundTripMs, PATIENCE_OFFERS * offerMs)),
        Math.min(OPEN_MS_MAX, Math.max(OPEN_MS, OPEN_OFFERS * offerMs))
      )
    }
    const lane = this.#open(peerId, AbortSignal.any([signal, late.signal]), offered).catch(error => {
      throwIfAborted(signal)
      this.#none(peerId, asError(error))
      return undefined
    }).finally(() => { cancel() })
    return { lane, slow: slow.promise }
  }

  /** Undefined: it is not worth trying. Throws what opening throws. */
  async #open (peerId: string, signal: AbortSignal, offered: (roundTripMs: number) => void): Promise<Lane | undefined> {
    const certificate = this.#certificate
    const way = this.mayOpen(peerId) ? this.#way(peerId) : undefined
    if (certificate === undefined || way === undefined) return undefined
    const { connection, host } = way
    const offer = await this.#ask(connection, certificate, signal)
    if (offer === undefined) throw new PeerGoneError('the peer has no lanes')
    offered(connection.rtt ?? 0)
    const { socket, attach } = await this.#connect(host, offer, certificate, signal)
    this.#keep(peerId, socket)
    const open: OpenFrames = (rules, handler) => {
      const lane = new LaneStream(socket, this.#shared, rules, handler)
      attach(lane)
      return lane
    }
    return { open, abort: () => { socket.destroy() } }
  }

  async #connect (host: string, offer: LaneOffer, certificate: LaneCertificate, signal: AbortSignal): Promise<{ socket: LaneSocket, attach: (input: LaneInput) => void }> {
    if (this.#threads === undefined) return await openLane({ host, offer, certificate, signal })
    const socket = await this.#threads.open(host, offer, signal)
    return { socket, attach: input => { socket.attach(input) } }
  }

  #way (peerId: string): { connection: Connection, host: string } | undefined {
    const connection = this.#components.network.getConnections(peerIdFromString(peerId)).find(({ limits, status }) => limits === undefined && status === 'open')
    const host = connection === undefined ? undefined : hostOf(connection)
    return connection === undefined || host === undefined ? undefined : { connection, host }
  }

  /**
   * A lane to this peer ended from the other side, or because it was too slow. One that delivered nothing is as good as
   * none: the stream may serve. But a peer may be only busy, where a stream would be slower still: it may be slow once.
   */
  ended (peerId: string, { delivered, slow }: { delivered: boolean, slow: boolean }): void {
    if (delivered) this.#laneless.delete(peerId)
    else if (slow && !this.#laneless.has(peerId)) this.#remember(peerId, { until: this.#components.clock.monotonic(), forMs: RETRY_MS / 2 })
    else this.#none(peerId, new PeerGoneError('it ended before anything had come over it'))
  }

  #none (peerId: string, error: Error): void {
    const { clock, logger } = this.#components
    const known = this.#laneless.get(peerId)
    const forMs = known === undefined ? RETRY_MS : Math.min(RETRY_MS_MAX, 2 * known.forMs)
    logger.info({ peerId, error: error.message, againInMs: forMs }, 'no lane to this peer; its stream serves')
    this.#remember(peerId, { until: clock.monotonic() + forMs, forMs })
  }

  #remember (peerId: string, laneless: Laneless): void {
    const [oldest] = this.#laneless.size >= LANELESS_PEERS_MAX ? this.#laneless.keys() : []
    if (oldest !== undefined) this.#laneless.delete(oldest)
    this.#laneless.delete(peerId)
    this.#laneless.set(peerId, laneless)
  }

  /** Ends all lanes to and from a peer; whoever uses them is told. */
  drop (peerId: string): void {
    this.#server?.drop(peerId)
    for (const socket of this.#opened.get(peerId) ?? []) socket.destroy()
  }

  readonly #onDisconnect = (event: CustomEvent<{ toString: () => string }>): void => { this.drop(event.detail.toString()) }

  #keep (peerId: string, socket: LaneSocket): void {
    const sockets = this.#opened.get(peerId) ?? new Set()
    this.#opened.set(peerId, sockets.add(socket))
    socket.once('close', () => {
      sockets.delete(socket)
      if (sockets.size === 0 && this.#opened.get(peerId) === sockets) this.#opened.delete(peerId)
    })
    // It may have ended while the lane was opened.
    if (!this.#isConnected(peerId)) socket.destroy()
  }

  #isConnected (peerId: string): boolean { return this.#components.network.getConnections(peerIdFromString(peerId)).length > 0 }

  async #ask (connection: Connection, certificate: LaneCertificate, signal: AbortSignal): Promise<LaneOffer | undefined> {
    const stream = await connection.newStream(LANE_PROTOCOL, { signal })
    return await new Promise((resolve, reject) => {
      const onAbort = (): void => {
        frames.abort(asError(signal.reason))
        reject(asError(signal.reason))
      }
      const settle = (answer: () => void): void => {
        signal.removeEventListener('abort', onAbort)
        frames.close()
        answer()
      }
      const frames = framesOver(stream)(laneClientRules, {
        frame: (type, body) => {
          const offer = type === LANE ? decodeLane(body) : undefined
          settle(() => { resolve(offer) })
        },
        data: () => undefined,
        drained: () => undefined,
        closed: error => { settle(() => { reject(error) }) }
      })
      signal.addEventListener('abort', onAbort, { once: true })
      if (signal.aborted) { onAbort(); return }
      frames.send(encodeAsk(certificate.fingerprint))
    })
  }

  #asked (stream: Stream, connection: Connection): void {
    const peerId = connection.remotePeer.toString()
    const cancel = this.#components.clock.setTimeout(() => { frames.abort(new PeerTimeoutError(`${peerId} opened a stream and asked nothing`)) }, LANE_HANDSHAKE_MS)
    let answered = false
    const frames = framesOver(stream)(laneServerRules, {
      frame: (_type, body) => {
        const fingerprint = decodeAsk(body)
        if (answered) return
        answered = true
        const offer = this.#hooks.isBanned(peerId) ? undefined : this.#server?.offer(peerId, fingerprint)
        frames.send(offer === undefined ? encodeNoLane() : encodeLane(offer))
      },
      data: () => undefined,
      drained: () => undefined,
      closed: cancel // the asker closes it, having read the answer
    })
  }
}

/** The hosts of TCP addresses, and the first one's port. */
function listenedOn (addresses: string[]): { hosts: string[], port: number } {
  const found = addresses.flatMap(address => {
    const [host, transport] = multiaddr(address).getComponents()
    return (host?.name === 'ip4' || host?.name === 'ip6') && transport?.name === 'tcp' ? [{ host: host.value ?? '', port: Number(transport.value) }] : []
  })
  return { hosts: [...new Set(found.map(({ host }) => host))], port: found[0]?.port ?? 0 }
}

/** Where the other end of a TCP connection is; undefined for a relay, or in memory. */
function hostOf (connection: Connection): string | undefined {
  const [network, transport, ...rest] = connection.remoteAddr.getComponents()
  const isDirect = transport?.name === 'tcp' && rest.every(({ name }) => name === 'p2p')
  return isDirect && network !== undefined && /^(ip4|ip6|dns|dns4|dns6)$/.test(network.name) ? network.value : undefined
}
