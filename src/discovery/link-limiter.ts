import type { ConnectionProtector, MessageStream } from '@libp2p/interface'
import type { SendResult } from '@libp2p/utils'
import { KiB, LINK_BUFFER_BYTES_MAX, UsageError, type Clock } from '../base/index.ts'
import { RelayedStream, type Bytes, type Chunk } from './relayed-stream.ts'

/** Bytes a second, each way, of everything a node sends and receives: what its network interface would do. */
export interface LinkLimiter {
  readonly send: TokenBucket
  readonly receive: TokenBucket
}

export interface LinkLimiterInit {
  sendBytesPerSecond: number
  receiveBytesPerSecond: number
  clock: Clock
}

/** One for each node: all its connections share it. For tests and benches; see NodeInit.linkLimiter. */
export function createLinkLimiter (init: LinkLimiterInit): LinkLimiter {
  return {
    send: new TokenBucket(init.sendBytesPerSecond, init.clock),
    receive: new TokenBucket(init.receiveBytesPerSecond, init.clock)
  }
}

/** Saved up while idle, in seconds of the rate: too little to show in anything measured over seconds. */
const BURST_SECONDS = 0.05
/** On a link that was full so recently, as much is made good: it does not lose what a busy process or a late timer held up. */
const ARREARS_SECONDS = 1
const BURST_BYTES_MIN = 64 * KiB
/** Handed on at once at most, so that connections that share a bucket take turns. */
const SLICE_BYTES = 64 * KiB

/**
 * Tokens are bytes. Taking may run it into debt by one slice; nobody takes until the debt is paid, so the rate holds
 * on average whatever the slices' sizes. Those who wait get their turn in the order they came.
 */
export class TokenBucket {
  readonly #rate: number
  readonly #burst: number
  readonly #clock: Clock
  readonly #waiting = new Set<() => void>()
  #tokens: number
  #filledAt: number
  #fullAt = Number.NEGATIVE_INFINITY
  #cancel: (() => void) | undefined

  constructor (bytesPerSecond: number, clock: Clock) {
    if (!(bytesPerSecond > 0)) throw new UsageError(`a rate must be above zero bytes a second, not ${bytesPerSecond}`)
    this.#rate = bytesPerSecond
    this.#burst = Math.max(BURST_BYTES_MIN, bytesPerSecond * BURST_SECONDS)
    this.#clock = clock
    this.#tokens = this.#burst
    this.#filledAt = clock.monotonic()
  }

  /** Takes `bytes` unless the bucket is in debt or others wait before; says whether it did. */
  tryTake (bytes: number): boolean {
    if (this.#waiting.size > 0) return false
    return this.#take(bytes)
  }

  /** Takes even into debt: for bytes that are on their way already. Says whether there is anything left. */
  force (bytes: number): boolean {
    this.#fill()
    this.#tokens -= bytes
    return this.#tokens > 0 && this.#waiting.size === 0
  }

  /** Calls `turn` once, when it may take again: it then takes with `takeTurn`. The returned function gives the turn up. */
  wait (turn: () => void): () => void {
    this.#waiting.add(turn)
    this.#arm()
    return () => {
      this.#waiting.delete(turn)
      if (this.#waiting.size === 0) this.#disarm()
    }
  }

  #take (bytes: number): boolean {
    this.#fill()
    if (this.#tokens <= 0) return false
    this.#tokens -= bytes
    return true
  }

  #fill (): void {
    const now = this.#clock.monotonic()
    if (this.#waiting.size > 0) this.#fullAt = now
    const most = now - this.#fullAt < ARREARS_SECONDS * 1000 ? Math.max(this.#burst, this.#rate * ARREARS_SECONDS) : this.#burst
    this.#tokens = Math.min(most, this.#tokens + (now - this.#filledAt) / 1000 * this.#rate)
    this.#filledAt = now
  }

  #arm (): void {
    if (this.#cancel !== undefined || this.#waiting.size === 0) return
    this.#fill()
    const waitMs = Math.max(0, Math.ceil((1 - this.#tokens) / this.#rate * 1000))
    this.#cancel = this.#clock.setTimeout(() => {
      this.#cancel = undefined
      this.#serve()
    }, waitMs)
  }

  #disarm (): void {
    this.#cancel?.()
    this.#cancel = undefined
  }

  #serve (): void {
    this.#fill()
    // Those who come to wait again during their turn are behind the others, and not served in this round.
    for (const turn of Array.from(this.#waiting)) {
      if (this.#tokens <= 0) break
      this.#waiting.delete(turn)
      turn()
      this.#fill()
    }
    this.#arm()
  }
}

/** Lays the cap under `protector`, or under nothing. */
export function limitedProtector (limiter: LinkLimiter, protector: ConnectionProtector | undefined): ConnectionProtector {
  return {
    protect: async (connection, options) => {
      const limited = new LimitedStream(connection, limiter)
      return await protector?.protect(limited, options) ?? limited
    }
  }
}

class LimitedStream extends RelayedStream {
  readonly #limiter: LinkLimiter
  readonly #held: Uint8Array[] = []
  #cancelSend: (() => void) | undefined
  #cancelReceive: (() => void) | undefined

  constructor (inner: MessageStream, limiter: LinkLimiter) {
    super(inner)
    this.#limiter = limiter
    this.maxMessageSize = SLICE_BYTES
    // The memory transport cannot be made to pause: what its peer sends ahead of time waits here, within the streams' windows.
    inner.maxReadBufferLength = LINK_BUFFER_BYTES_MAX
    this.maxReadBufferLength = LINK_BUFFER_BYTES_MAX
    inner.addEventListener('message', event => { this.#receive(event.data) })
    inner.addEventListener('drain', () => { if (this.#cancelSend === undefined) this.safeDispatchEvent('drain') })
  }

  override sendData (data: Bytes): SendResult {
    const sentBytes = data.byteLength
    const room = this.inner.send(data.subarray())
    const allowed = this.#limiter.send.force(sentBytes)
    if (!allowed) {
      this.#cancelSend ??= this.#limiter.send.wait(() => {
        this.#cancelSend = undefined
        if (!this.inner.writableNeedsDrain) this.safeDispatchEvent('drain')
      })
    }
    return { sentBytes, canSendMore: room && allowed }
  }

  #receive (data: Chunk): void {
    const bytes = data.subarray()
    for (let at = 0; at < bytes.length; at += SLICE_BYTES) this.#held.push(bytes.subarray(at, at + SLICE_BYTES))
    if (this.#cancelReceive === undefined) this.#handOn()
  }

  /** Hands on what there are tokens for; while something is held back, the inner stream is paused. */
  #handOn (): void {
    for (let next = this.#held[0]; next !== undefined; next = this.#held[0]) {
      if (!this.#limiter.receive.tryTake(next.length)) {
        this.flow(false)
        this.#cancelReceive = this.#limiter.receive.wait(() => {
          this.#cancelReceive = undefined
          const turn = this.#held.shift()
          if (turn !== undefined) {
            this.#limiter.receive.force(turn.length)
            this.onData(turn)
          }
          this.#handOn()
        })
        return
      }
      this.#held.shift()
      this.onData(next)
    }
    this.flow(this.readStatus !== 'paused')
  }

  override sendResume (): void { this.flow(this.#held.length === 0) }

  protected override beforeEnd (): void {
    this.#cancelSend?.()
    this.#cancelReceive?.()
    for (const bytes of this.#held.splice(0)) this.onData(bytes)
  }
}
