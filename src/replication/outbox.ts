import type { Libp2p } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { PeerTimeoutError, ProtocolError, REPLICA_QUEUE_BYTES_MAX, REPLICA_QUEUE_MESSAGES_MAX, asError, type Clock, type Logger } from '../base/index.ts'
import { encodeFrame, framesOver, openStream, type FrameStream } from '../transfer/index.ts'

/** Of the one stream that this node opens to a peer: messages and pings go out, answers to pings come back. */
export const MESSAGE = 1
export const PING = 2
export const PONG = 3
export const REPLICA_PROTOCOL = '/shoal/replica/2'

const TIMEOUT_MS = 10_000
/** Between two attempts to reach a peer. */
const RETRY_MS = 5_000
/** An unused stream to a peer that nobody watches is closed after this. */
const IDLE_MS = 60_000
const NOTHING = new Uint8Array(0)
const PING_FRAME = encodeFrame(PING, NOTHING)

export interface OutboxComponents { network: Libp2p, clock: Clock, logger: Logger, signal: AbortSignal }

export interface OutboxHooks {
  heard: () => void
  sent: (bytes: number) => void
}

/**
 * What goes to one peer: a bounded queue and one stream, opened when there is something to send and kept. A message that
 * could not be sent is gone; it will be said again if it is still true.
 */
export class Outbox {
  readonly peerId: string
  readonly #components: OutboxComponents
  readonly #hooks: OutboxHooks
  #queue: Uint8Array[] = []
  #queueBytes = 0
  #frames: FrameStream | undefined
  #opening = false
  #pingedAt: number | undefined
  #usedAt: number
  #retryAt = -Infinity
  /** Attempts that ran into their deadline, one after the other. */
  #timeouts = 0

  constructor (peerId: string, components: OutboxComponents, hooks: OutboxHooks) {
    this.peerId = peerId
    this.#components = components
    this.#hooks = hooks
    this.#usedAt = components.clock.monotonic()
  }

  send (body: Uint8Array): void {
    this.#push(encodeFrame(MESSAGE, body))
  }

  /** Not while an earlier one is unanswered. */
  ping (): void {
    if (this.#pingedAt !== undefined || this.#queue.includes(PING_FRAME)) return
    this.#push(PING_FRAME)
  }

  /** Nothing is waiting and nothing was sent for long. */
  idle (now: number): boolean {
    return !this.#opening && this.#queue.length === 0 && now - this.#usedAt > IDLE_MS
  }

  /** A peer that takes in what is sent and never answers a ping has a dead stream. */
  tick (now: number): void {
    if (this.#pingedAt === undefined || now - this.#pingedAt < TIMEOUT_MS) return
    this.#timedOut()
    this.#frames?.abort(new PeerTimeoutError(`${this.peerId} did not answer a ping within ${TIMEOUT_MS} ms`))
    this.#closed()
  }

  /** It is there: no reason to wait before it is tried again. */
  heard (): void {
    this.#timeouts = 0
    this.#retryAt = -Infinity
  }

  /** For so long this process could not have read an answer. */
  stalled (ms: number): void {
    if (this.#pingedAt !== undefined) this.#pingedAt += ms
  }

  close (): void {
    this.#frames?.close()
    this.#closed()
  }

  #push (frame: Uint8Array): void {
    const now = this.#components.clock.monotonic()
    if (this.#frames === undefined && !this.#opening && now < this.#retryAt) return
    this.#usedAt = now
    this.#queue.push(frame)
    this.#queueBytes += frame.length
    while (this.#queue.length > REPLICA_QUEUE_MESSAGES_MAX || this.#queueBytes > REPLICA_QUEUE_BYTES_MAX) this.#queueBytes -= this.#queue.shift()?.length ?? 0
    this.#pump()
  }

  #pump (): void {
    const frames = this.#frames
    if (frames === undefined) {
      if (!this.#opening && this.#queue.length > 0) void this.#open()
      return
    }
    while (this.#queue.length > 0 && this.#frames === frames && !frames.blocked) {
      const frame = this.#queue.shift() ?? NOTHING
      this.#queueBytes -= frame.length
      if (frame === PING_FRAME) this.#pingedAt = this.#components.clock.monotonic()
      this.#hooks.sent(frame.length)
      frames.send(frame === PING_FRAME ? frame.slice() : frame)
    }
  }

  async #open (): Promise<void> {
    const { network, clock, logger, signal } = this.#components
    this.#opening = true
    try {
      const stream = await openStream(network, this.peerId, REPLICA_PROTOCOL, { clock, timeoutMs: TIMEOUT_MS, signal })
      if (signal.aborted) { stream.abort(asError(signal.reason)); return }
      this.#frames = framesOver(stream)({ bodyBytesMax: type => (type === PONG ? 0 : undefined) }, {
        frame: () => { this.#pong() },
        data: () => { throw new ProtocolError('data on a replica stream') },
        drained: () => { this.#pump() },
        closed: error => {
          logger.debug({ peerId: this.peerId, error: error.message }, 'the replica stream ended')
          this.#closed()
        }
      })
      this.#opening = false
      this.#pump()
    } catch (error) {
      this.#opening = false
      if (signal.aborted) return
      logger.debug({ peerId: this.peerId, error: asError(error).message }, 'a peer was not reached')
      if (asError(error) instanceof PeerTimeoutError || signalled(error)) this.#timedOut()
      this.#closed()
    }
  }

  #pong (): void {
    if (this.#pingedAt === undefined) throw new ProtocolError('an answer to a ping that was not sent')
    this.#pingedAt = undefined
    this.#hooks.heard()
  }

  #closed (): void {
    this.#frames = undefined
    this.#pingedAt = undefined
    this.#queue = []
    this.#queueBytes = 0
    this.#retryAt = this.#components.clock.monotonic() + RETRY_MS
  }

  /**
   * A connection that is dead without either side knowing (a cut cable, a partition) would be used again and again: after
   * the second deadline in a row it is given up, and the next attempt dials.
   */
  #timedOut (): void {
    if (++this.#timeouts < 2) return
    this.#timeouts = 0
    const { network, logger } = this.#components
    logger.info({ peerId: this.peerId }, 'a connection that answers nothing is given up')
    try {
      for (const connection of network.getConnections(peerIdFromString(this.peerId))) connection.abort(new PeerTimeoutError(`${this.peerId} does not answer`))
    } catch (error) {
      logger.debug({ peerId: this.peerId, error: asError(error).message }, 'a connection could not be given up')
    }
  }
}

function signalled (error: unknown): boolean {
  return ['AbortError', 'TimeoutError'].includes(asError(error).name)
}
