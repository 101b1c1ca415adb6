import { MiB, NodeStoppedError, ProtocolError, SERVE_SLOTS, STREAMS_PER_PEER_MAX, type Clock, type Logger } from '../base/index.ts'
import { SlotPool } from '../storage/slots.ts'
import type { ModelStore } from '../storage/store.ts'
import type { OpenFrames } from './frame-stream.ts'
import { TokenBucket } from './rate.ts'
import { ServedStream } from './served-stream.ts'
import { SEND_BYTES_MAX } from './wire.ts'

export interface BlockServerComponents { store: ModelStore, clock: Clock, logger: Logger }

export interface BlockServerSettings {
  serverRequestsPerPeer: number
  requestTimeoutMs: number
  uploadBytesPerSecond: number | undefined
}

export interface BlockServerHooks {
  sent: (peerId: string, bytes: number) => void
  /** A peer broke the protocol. */
  violation: (peerId: string, reason: string) => void
}

interface ServedPeer {
  readonly streams: Set<ServedStream>
  /** Streams that can send, in turn. */
  readonly ready: ServedStream[]
}

const TICK_MS = 250
/** Sent in one go before the event loop gets its turn. */
const PUMP_BYTES_MAX = 1 * MiB

/**
 * Serves blocks and metadata to all peers. Peers take turns, one piece each, so they share by bytes and not by how
 * many streams or requests they have; slots are given out in the order they were asked for, one a stream. The slots are
 * its own: serving waits for serving only.
 */
export class BlockServer {
  readonly #components: BlockServerComponents & { slots: SlotPool }
  readonly #settings: BlockServerSettings
  readonly #hooks: BlockServerHooks
  readonly #peers = new Map<string, ServedPeer>()
  /** Peers with something to send, in turn. */
  readonly #ring: ServedPeer[] = []
  readonly #upload: TokenBucket | undefined
  #pumping = false
  #cancelPump: () => void = () => undefined
  #cancelTick: (() => void) | undefined
  #stopped = false

  constructor (components: BlockServerComponents, settings: BlockServerSettings, hooks: BlockServerHooks) {
    this.#components = { ...components, slots: new SlotPool(SERVE_SLOTS) }
    this.#settings = settings
    this.#hooks = hooks
    const { uploadBytesPerSecond } = settings
    if (uploadBytesPerSecond !== undefined) this.#upload = new TokenBucket(uploadBytesPerSecond, SEND_BYTES_MAX, components.clock.monotonic())
  }

  /** Requests that are not answered in full. */
  get open (): number {
    let open = 0
    for (const { streams } of this.#peers.values()) for (const stream of streams) open += stream.open
    return open
  }

  get slotsFree (): number { return this.#components.slots.free }

  /** Serves what comes on a stream that `peerId` opened. False when it has too many. */
  accept (peerId: string, open: OpenFrames): boolean {
    if (this.#stopped) return false
    let peer = this.#peers.get(peerId)
    if (peer === undefined) this.#peers.set(peerId, peer = { streams: new Set(), ready: [] })
    if (peer.streams.size >= STREAMS_PER_PEER_MAX) return false
    const stream = new ServedStream(peerId, open, this.#settings.serverRequestsPerPeer, this.#components, {
      ready: ready => { this.#ready(ready) },
      closed: (closed, error) => { this.#closed(closed, error) }
    })
    peer.streams.add(stream)
    this.#tickSoon()
    return true
  }

  /** Ends all streams of a peer. */
  drop (peerId: string, error: Error): void {
    for (const stream of this.#peers.get(peerId)?.streams ?? []) {
      stream.abort(error)
      this.#closed(stream, error)
    }
  }

  stop (): void {
    this.#stopped = true
    for (const peerId of this.#peers.keys()) this.drop(peerId, new NodeStoppedError('the node is stopping'))
    this.#cancelPump()
    this.#cancelTick?.()
  }

  #ready (stream: ServedStream): void {
    const peer = this.#peers.get(stream.peerId)
    if (peer === undefined || peer.ready.includes(stream)) return
    if (peer.ready.push(stream) === 1) this.#ring.push(peer)
    if (this.#pumping) return
    this.#pumping = true
    // Not from within the caller: it may be in the middle of a frame.
    queueMicrotask(() => { this.#pump() })
  }

  #pump (): void {
    const { clock } = this.#components
    let left = PUMP_BYTES_MAX
    while (!this.#stopped) {
      const peer = this.#ring[0]
      if (peer === undefined) break
      const waitMs = this.#upload?.waitMs(clock.monotonic()) ?? 0
      if (waitMs > 0) { this.#cancelPump = clock.setTimeout(() => { this.#pump() }, waitMs); return }
      if (left <= 0) {
        const turn = setImmediate(() => { this.#pump() })
        this.#cancelPump = () => { clearImmediate(turn) }
        return
      }
      this.#ring.shift()
      left -= this.#turn(peer)
    }
    this.#pumping = false
  }

  #turn (peer: ServedPeer): number {
    const stream = peer.ready.shift()
    if (stream === undefined) return 0
    const bytes = stream.turn()
    if (stream.canSend && !peer.ready.includes(stream)) peer.ready.push(stream)
    if (peer.ready.length > 0 && !this.#ring.includes(peer)) this.#ring.push(peer)
    if (bytes === 0) return 0
    this.#upload?.take(bytes, this.#components.clock.monotonic())
    this.#hooks.sent(stream.peerId, bytes)
    return bytes
  }

  #closed (stream: ServedStream, error: Error): void {
    const peer = this.#peers.get(stream.peerId)
    if (peer === undefined || !peer.streams.delete(stream)) return
    const at = peer.ready.indexOf(stream)
    if (at >= 0) peer.ready.splice(at, 1)
    if (peer.streams.size === 0) this.#peers.delete(stream.peerId)
    if (error instanceof ProtocolError) this.#hooks.violation(stream.peerId, error.message)
  }

  /** Ends stalled readers, and moves slots from slow ones to those who wait. Runs only while somebody is connected. */
  #tickSoon (): void {
    if (this.#cancelTick !== undefined || this.#stopped) return
    this.#cancelTick = this.#components.clock.setTimeout(() => {
      this.#cancelTick = undefined
      this.#tick()
      if (this.#peers.size > 0) this.#tickSoon()
    }, TICK_MS)
  }

  #tick (): void {
    const { clock, slots } = this.#components
    const now = clock.monotonic()
    for (const { streams } of this.#peers.values()) {
      for (const stream of streams) {
        stream.checkStalled(now, this.#settings.requestTimeoutMs)
        // Whoever waits has the slot when giveUpSlot returns. A stream has two at most.
        if (slots.waiting > 0 && stream.giveUpSlot(now) && slots.waiting > 0) stream.giveUpSlot(now)
      }
    }
  }
}
