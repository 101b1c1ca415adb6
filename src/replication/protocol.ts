import type { Connection, Libp2p, Stream } from '@libp2p/interface'
import {
  NodeStoppedError, PEERS_TRACKED_MAX, ProtocolError, REPLICA_INBOUND_BURST, REPLICA_INBOUND_BYTES_BURST, REPLICA_INBOUND_BYTES_PER_SECOND, REPLICA_INBOUND_PER_SECOND,
  REPLICA_MESSAGE_BYTES_MAX, REPLICA_STREAMS_PER_PEER_MAX, asError, type Clock, type Logger, type Random
} from '../base/index.ts'
import { TokenBucket, encodeFrame, framesOver, type FrameStream } from '../transfer/index.ts'
import { decodeMessage, encodeMessage } from './messages.ts'
import { MESSAGE, Outbox, PING, PONG, REPLICA_PROTOCOL } from './outbox.ts'
import type { ReplicaMessage } from './types.ts'

export interface ReplicaProtocolComponents {
  network: Libp2p
  clock: Clock
  random: Random
  logger: Logger
  isBanned: (peerId: string) => boolean
}

export interface ReplicaProtocolSettings {
  /** A watched peer that was not heard for most of this time is pinged. */
  pingMs: number
}

const NOTHING = new Uint8Array(0)
/** Between two calls of awake() that come each second. */
const STALL_MS = 3_000
const FRAME_BYTES = { [MESSAGE]: REPLICA_MESSAGE_BYTES_MAX, [PING]: 0 }

/** Streams that a peer opened, and what it may still send. */
interface Inbox {
  /** Each with what closes it. */
  readonly streams: Map<FrameStream, () => void>
  readonly messages: TokenBucket
  readonly bytes: TokenBucket
}

/**
 * `/shoal/replica/2`: each side opens one stream for what it has to say. Frames as in transfer/wire.ts: MESSAGE with a
 * body of canonical DAG-CBOR, PING without one, and PONG back on the same stream. Any frame is a sign of life.
 */
export class ReplicaProtocol {
  readonly #components: ReplicaProtocolComponents
  readonly #settings: ReplicaProtocolSettings
  readonly #received: (from: string, message: ReplicaMessage) => void
  readonly #outboxes = new Map<string, Outbox>()
  readonly #inboxes = new Map<string, Inbox>()
  /** In the order of hearing: the first is the one that is silent longest. */
  readonly #heardAt = new Map<string, number>()
  readonly #stopping = new AbortController()
  #watched: ReadonlySet<string> = new Set()
  #cancelTick: () => void = () => undefined
  #awakeAt: number | undefined
  #messagesSent = 0
  #bytesSent = 0

  constructor (components: ReplicaProtocolComponents, settings: ReplicaProtocolSettings, received: (from: string, message: ReplicaMessage) => void) {
    this.#components = components
    this.#settings = settings
    this.#received = received
  }

  get messagesSent (): number { return this.#messagesSent }
  get bytesSent (): number { return this.#bytesSent }

  async start (): Promise<void> {
    await this.#components.network.handle(REPLICA_PROTOCOL, (stream, connection) => { this.#accept(stream, connection) }, {
      maxInboundStreams: REPLICA_STREAMS_PER_PEER_MAX * 2,
      maxOutboundStreams: REPLICA_STREAMS_PER_PEER_MAX * 2
    })
    this.#tick()
  }

  async stop (): Promise<void> {
    if (this.#stopping.signal.aborted) return
    this.#stopping.abort(new NodeStoppedError('the node is stopping'))
    this.#cancelTick()
    for (const outbox of this.#outboxes.values()) outbox.close()
    for (const { streams } of this.#inboxes.values()) for (const close of streams.values()) close()
    this.#outboxes.clear()
    this.#inboxes.clear()
    await this.#components.network.unhandle(REPLICA_PROTOCOL)
  }

  /** Best effort: what cannot be sent now or soon is dropped. */
  send (to: string, message: ReplicaMessage): void {
    let body: Uint8Array
    try {
      body = encodeMessage(message)
    } catch (error) {
      this.#components.logger.error({ peerId: to, type: message.type, error: asError(error).message }, 'a message to a replicator was too large and is not sent')
      return
    }
    this.#messagesSent++
    this.#outbox(to)?.send(body)
  }

  heardAt (peerId: string): number | undefined { return this.#heardAt.get(peerId) }

  /**
   * To be called each second. When it was not, this process did not run (it was stopped, or the machine slept or was
   * overloaded), and so could hear nobody: that time is nobody's silence.
   */
  awake (): void {
    const now = this.#components.clock.monotonic()
    const stalledMs = now - (this.#awakeAt ?? now)
    this.#awakeAt = now
    if (stalledMs < STALL_MS) return
    this.#components.logger.warn({ stalledMs: Math.round(stalledMs) }, 'this node did not run for a while')
    for (const [peerId, at] of this.#heardAt) this.#heardAt.set(peerId, Math.min(now, at + stalledMs))
    for (const outbox of this.#outboxes.values()) outbox.stalled(stalledMs)
  }

  watch (peerIds: ReadonlySet<string>): void { this.#watched = new Set(peerIds) }

  #tick (): void {
    const { clock, random } = this.#components
    const { pingMs } = this.#settings
    this.#cancelTick = clock.setTimeout(() => {
      this.awake()
      const now = clock.monotonic()
      for (const peerId of this.#watched) {
        if (now - (this.#heardAt.get(peerId) ?? -Infinity) >= 0.8 * pingMs) this.#outbox(peerId)?.ping()
      }
      for (const [peerId, outbox] of this.#outboxes) {
        outbox.tick(now)
        if (this.#watched.has(peerId) || !outbox.idle(now)) continue
        outbox.close()
        this.#outboxes.delete(peerId)
      }
      this.#tick()
    }, pingMs * (0.8 + 0.4 * random.next()))
  }

  #outbox (peerId: string): Outbox | undefined {
    const { network, clock, logger, isBanned } = this.#components
    if (this.#stopping.signal.aborted || peerId === network.peerId.toString() || isBanned(peerId)) return undefined
    let outbox = this.#outboxes.get(peerId)
    if (outbox === undefined) {
      if (this.#outboxes.size >= PEERS_TRACKED_MAX) return undefined
      outbox = new Outbox(peerId, { network, clock, logger, signal: this.#stopping.signal }, {
        heard: () => { this.#heard(peerId) },
        sent: bytes => { this.#bytesSent += bytes }
      })
      this.#outboxes.set(peerId, outbox)
    }
    return outbox
  }

  #heard (peerId: string): void {
    this.#heardAt.delete(peerId)
    this.#heardAt.set(peerId, this.#components.clock.monotonic())
    this.#outboxes.get(peerId)?.heard()
    if (this.#heardAt.size <= PEERS_TRACKED_MAX) return
    for (const oldest of this.#heardAt.keys()) {
      if (this.#watched.has(oldest)) continue
      this.#heardAt.delete(oldest)
      break
    }
  }

  #accept (stream: Stream, connection: Connection): void {
    const { isBanned, logger, clock } = this.#components
    const peerId = connection.remotePeer.toString()
    const inbox = this.#inbox(peerId)
    if (this.#stopping.signal.aborted || isBanned(peerId) || inbox === undefined) {
      stream.abort(new ProtocolError(`a stream of ${stream.protocol} that is not accepted from ${peerId}`))
      return
    }
    // A peer that came back opens a new one while its old one is not known to be dead.
    for (const [oldest, close] of inbox.streams) {
      if (inbox.streams.size < REPLICA_STREAMS_PER_PEER_MAX) break
      close()
      inbox.streams.delete(oldest)
    }
    let cancelResume = (): void => undefined
    const frames: FrameStream = framesOver(stream)({ bodyBytesMax: type => (type === MESSAGE || type === PING ? FRAME_BYTES[type] : undefined) }, {
      frame: (type, body) => {
        this.#heard(peerId)
        const waitMs = pay(inbox, body.length, clock.monotonic())
        if (waitMs > 0) {
          frames.hold()
          cancelResume = clock.setTimeout(() => { frames.resume() }, waitMs)
        }
        if (type === PING) {
          if (!frames.blocked) frames.send(encodeFrame(PONG, NOTHING))
          return
        }
        this.#received(peerId, decodeMessage(body))
      },
      data: () => { throw new ProtocolError('data on a replica stream') },
      drained: () => undefined,
      closed: error => {
        cancelResume()
        inbox.streams.delete(frames)
        if (error instanceof ProtocolError) logger.warn({ peerId, error: error.message }, 'a peer broke the replica protocol; its stream is closed')
      }
    })
    inbox.streams.set(frames, () => {
      cancelResume()
      frames.close()
    })
  }

  /** What a peer may send is remembered while it may matter: a new stream is no new budget. */
  #inbox (peerId: string): Inbox | undefined {
    const known = this.#inboxes.get(peerId)
    if (known !== undefined) return known
    if (this.#inboxes.size >= PEERS_TRACKED_MAX) {
      for (const [other, { streams }] of this.#inboxes) if (streams.size === 0) { this.#inboxes.delete(other); break }
      if (this.#inboxes.size >= PEERS_TRACKED_MAX) return undefined
    }
    const now = this.#components.clock.monotonic()
    const inbox: Inbox = {
      streams: new Map(),
      messages: new TokenBucket(REPLICA_INBOUND_PER_SECOND, REPLICA_INBOUND_BURST, now),
      bytes: new TokenBucket(REPLICA_INBOUND_BYTES_PER_SECOND, REPLICA_INBOUND_BYTES_BURST, now)
    }
    this.#inboxes.set(peerId, inbox)
    return inbox
  }
}

/** How long to read no more from this peer. */
function pay ({ messages, bytes }: Inbox, length: number, now: number): number {
  messages.take(1, now)
  bytes.take(length, now)
  return Math.max(messages.waitMs(now), bytes.waitMs(now))
}
