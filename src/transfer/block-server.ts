import {
  KiB, MiB, NodeStoppedError, PEERS_TRACKED_MAX, ProtocolError, SERVER_USELESS_REQUESTS_MAX, SERVER_USELESS_REQUESTS_PER_SECOND, SERVE_SLOTS, STREAMS_PER_PEER_MAX, type Clock, type Logger
} from '../base/index.ts'
import { SlotPool } from '../storage/slots.ts'
import type { ModelStore } from '../storage/store.ts'
import type { OpenFrames } from './frame-stream.ts'
import { RateMeter, TokenBucket, rateAt, type RateWindow } from './rate.ts'
import { ServeSlots, type PeerSlots } from './serve-slots.ts'
import { LATER_SHARE, ServedStream } from './served-stream.ts'
import { SEND_BYTES_MAX } from './wire.ts'

export interface BlockServerComponents { store: ModelStore, clock: Clock, logger: Logger }

export interface BlockServerSettings {
  serverRequestsPerPeer: number
  requestTimeoutMs: number
  uploadBytesPerSecond: number | undefined
  peerBytesPerSecond?: number | undefined
  backgroundRates?: RateWindow[]
}

export interface BlockServerHooks {
  sent: (peerId: string, bytes: number) => void
  /** A peer broke the protocol. */
  violation: (peerId: string, reason: string) => void
}

/** What a peer has used up. It outlives its streams, or hanging up would be a way around every cap. */
interface Account {
  /** Its own cap. */
  readonly cap: TokenBucket | undefined
  readonly useless: TokenBucket
  leftAt: number
}

interface ServedPeer {
  readonly slots: PeerSlots
  readonly account: Account
  readonly streams: Set<ServedStream>
  /** Streams that can send, in turn. */
  readonly ready: ServedStream[]
}

/** A peer, where it stands in a ring, and how long caps hold it back. */
interface Turn { ring: ServedPeer[], at: number, peer: ServedPeer, waitMs: number }

const TICK_MS = 250
/** While those who wait are sent this much, who does not wait gets one byte of thirty-two: each of them costs the others more than itself where two cores serve all. */
const FOREGROUND_BYTES_PER_SECOND = 32 * MiB
/** After this without any of them there is nobody left to disturb, however fast it was. */
const FOREGROUND_OVER_MS = 300
/** And it may have this in each tick when nobody is ready who waits, so that it does not look like a dead peer. */
const LATER_BYTES_PER_TICK = 256 * KiB
/** By then a bucket is full again, or was emptied by somebody with a cap of nearly nothing. */
const ACCOUNT_KEPT_MS = 60_000
/** A piece is no more than a cap lets through in this time, but this much: its frame's head and the turn cost something, too. */
const PIECE_MS = 250
const PIECE_BYTES_MIN = 16 * KiB
/** Sent in one go before the event loop gets its turn. */
const PUMP_BYTES_MAX = 1 * MiB

/**
 * Serves blocks and metadata to all peers. Peers take turns, one piece each, so they share by bytes and not by how
 * many streams or requests they have, and so they do slots (serve-slots.ts). The slots are
 * its own: serving waits for serving only.
 */
export class BlockServer {
  readonly #components: BlockServerComponents & { slots: ServeSlots }
  readonly #settings: BlockServerSettings
  readonly #hooks: BlockServerHooks
  readonly #peers = new Map<string, ServedPeer>()
  /** Of peers that have gone, those who went first at first. */
  readonly #accounts = new Map<string, Account>()
  /** Peers with something to send, in turn. */
  readonly #ring: ServedPeer[] = []
  /** Peers for whom nobody waits, in turn: they have their share of what those in the ring get, and what is left. */
  readonly #laterRing: ServedPeer[] = []
  readonly #foreground: RateMeter
  /** When bytes last went to, or came for, somebody who waits. */
  #foregroundAt = -Infinity
  /** The share of those who can wait of what went to others: above 0 it is their turn, whoever else is ready. */
  #laterCredit = 0
  /** What else may go to them in this tick while others are served well. */
  #laterBytes = LATER_BYTES_PER_TICK
  readonly #upload: TokenBucket | undefined
  /** What may go to those who can wait at this time of day. */
  readonly #background: TokenBucket
  #pumping = false
  #cancelPump: () => void = () => undefined
  #cancelTick: (() => void) | undefined
  #stopped = false

  constructor (components: BlockServerComponents, settings: BlockServerSettings, hooks: BlockServerHooks) {
    this.#components = { ...components, slots: new ServeSlots(new SlotPool(SERVE_SLOTS)) }
    this.#settings = settings
    this.#hooks = hooks
    this.#foreground = new RateMeter(components.clock.monotonic())
    this.#upload = this.#capOf(settings.uploadBytesPerSecond)
    this.#background = new TokenBucket(0, SEND_BYTES_MAX, components.clock.monotonic())
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
    if (peer === undefined) this.#peers.set(peerId, peer = { slots: this.#components.slots.peer(), account: this.#account(peerId), streams: new Set(), ready: [] })
    if (peer.streams.size >= STREAMS_PER_PEER_MAX) return false
    const stream = new ServedStream(peerId, open, { requestsMax: this.#settings.serverRequestsPerPeer, useless: peer.account.useless }, { ...this.#components, slots: peer.slots }, {
      ready: ready => { this.#ready(ready) },
      laterMay: () => this.#backgroundMs(this.#components.clock.monotonic()) === 0,
      closed: (closed, error) => { this.#closed(closed, error) }
    })
    peer.streams.add(stream)
    this.#tickSoon()
    return true
  }

  /** This node moves bytes that somebody waits for: those who can wait do so as while it serves such. */
  busy (bytes: number): void {
    this.#noteForeground(bytes, this.#components.clock.monotonic())
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
    if (peer === undefined) return
    if (!peer.ready.includes(stream)) peer.ready.push(stream)
    else if (stream.later) return
    else this.#promote(peer, stream)
    this.#queue(peer)
    this.#pumpSoon()
  }

  #pumpSoon (): void {
    if (this.#pumping) return
    this.#cancelPump() // who is ready now may be under no cap
    this.#pumping = true
    // Not from within the caller: it may be in the middle of a frame.
    queueMicrotask(() => { this.#pump() })
  }

  #pump (): void {
    const { clock } = this.#components
    let left = PUMP_BYTES_MAX
    while (!this.#stopped) {
      const next = this.#whoseTurn(clock.monotonic())
      if (next === undefined) break
      if (next.waitMs > 0) { this.#cancelPump = clock.setTimeout(() => { this.#pumpSoon() }, next.waitMs); break }
      if (left <= 0) {
        const turn = setImmediate(() => { this.#pump() })
        this.#cancelPump = () => { clearImmediate(turn) }
        return
      }
      next.ring.splice(next.at, 1)
      left -= this.#turn(next.peer)
    }
    this.#pumping = false
  }

  #whoseTurn (now: number): Turn | undefined {
    const uploadMs = this.#upload?.waitMs(now) ?? 0
    const waits = this.#firstOf(this.#ring, uploadMs, now)
    const isTheirShare = this.#laterCredit > 0
    if (this.#laterRing.length === 0 || (waits?.waitMs === 0 && !isTheirShare) || !this.#laterMay(now)) return waits
    const canWait = this.#firstOf(this.#laterRing, Math.max(uploadMs, this.#backgroundMs(now)), now)
    if (waits === undefined || canWait === undefined) return waits ?? canWait
    if (waits.waitMs === canWait.waitMs) return isTheirShare ? canWait : waits
    return waits.waitMs < canWait.waitMs ? waits : canWait
  }

  /** The first that no cap holds back, or else the one that is held back least. */
  #firstOf (ring: ServedPeer[], ringMs: number, now: number): Turn | undefined {
    let soonest: Turn | undefined
    for (const [at, peer] of ring.entries()) {
      const waitMs = Math.max(ringMs, peer.account.cap?.waitMs(now) ?? 0)
      if (soonest === undefined || waitMs < soonest.waitMs) soonest = { ring, at, peer, waitMs }
      if (waitMs === 0) break
    }
    return soonest
  }

  #account (peerId: string): Account {
    const kept = this.#accounts.get(peerId)
    this.#accounts.delete(peerId)
    return kept ?? {
      cap: this.#capOf(this.#settings.peerBytesPerSecond),
      useless: new TokenBucket(SERVER_USELESS_REQUESTS_PER_SECOND, SERVER_USELESS_REQUESTS_MAX, this.#components.clock.monotonic()),
      leftAt: 0
    }
  }

  #keepAccount (peerId: string, account: Account): void {
    const now = this.#components.clock.monotonic()
    for (const [id, { leftAt }] of this.#accounts) {
      if (now - leftAt < ACCOUNT_KEPT_MS && this.#accounts.size < PEERS_TRACKED_MAX) break
      this.#accounts.delete(id)
    }
    if (account.useless.isFull(now) && account.cap?.isFull(now) !== false) return
    account.leftAt = now
    this.#accounts.set(peerId, account)
  }

  /** How long those who can wait are held back by the hour. */
  #backgroundMs (now: number): number {
    const rate = this.#backgroundRate()
    if (rate === undefined) return 0
    this.#background.setRate(rate, now)
    return this.#background.waitMs(now)
  }

  #backgroundRate (): number | undefined {
    return rateAt(this.#settings.backgroundRates ?? [], this.#components.clock.now())
  }

  #capOf (bytesPerSecond: number | undefined): TokenBucket | undefined {
    return bytesPerSecond === undefined ? undefined : new TokenBucket(bytesPerSecond, SEND_BYTES_MAX, this.#components.clock.monotonic())
  }

  #turn (peer: ServedPeer): number {
    const stream = peer.ready.shift()
    if (stream === undefined) return 0
    const { later, sendsLater } = stream
    const backgroundRate = sendsLater ? this.#backgroundRate() : undefined
    const bytes = stream.turn(this.#pieceBytesMax(backgroundRate))
    if (stream.canSend && !peer.ready.includes(stream)) peer.ready.push(stream)
    this.#queue(peer)
    if (bytes === 0) return 0
    const now = this.#components.clock.monotonic()
    this.#upload?.take(bytes, now)
    peer.account.cap?.take(bytes, now)
    if (backgroundRate !== undefined) this.#background.take(bytes, now)
    if (later) {
      // What was left costs one piece of the share at most: it was nobody else's.
      this.#laterCredit = Math.max(0, this.#laterCredit) - bytes
      this.#laterBytes -= bytes
    } else {
      this.#noteForeground(bytes, now)
      this.#laterCredit = Math.min(LATER_BYTES_PER_TICK, this.#laterCredit + bytes * LATER_SHARE)
    }
    this.#hooks.sent(stream.peerId, bytes)
    return bytes
  }

  /** Under a low cap a whole piece keeps it for seconds, and with a few peers each would seem to be dead between two of its own. */
  #pieceBytesMax (backgroundRate = Infinity): number {
    const { uploadBytesPerSecond = Infinity, peerBytesPerSecond = Infinity } = this.#settings
    return Math.max(PIECE_BYTES_MIN, Math.trunc(Math.min(uploadBytesPerSecond, peerBytesPerSecond, backgroundRate) * PIECE_MS / 1000))
  }

  /** Somebody waits for what one of the peer's streams has now. */
  #promote (peer: ServedPeer, stream: ServedStream): void {
    const at = this.#laterRing.indexOf(peer)
    if (at < 0) return
    this.#laterRing.splice(at, 1)
    peer.ready.splice(peer.ready.indexOf(stream), 1)
    peer.ready.unshift(stream)
  }

  /** Puts a peer into the ring where its next stream belongs. */
  #queue (peer: ServedPeer): void {
    const [next] = peer.ready
    if (next === undefined || this.#ring.includes(peer) || this.#laterRing.includes(peer)) return
    if (next.later) this.#laterRing.push(peer)
    else this.#ring.push(peer)
  }

  #noteForeground (bytes: number, now: number): void {
    this.#foreground.add(bytes, now)
    this.#foregroundAt = now
  }

  /** A load that runs well is not to be disturbed; one that is slow is slow for other reasons. */
  #laterMay (now: number): boolean {
    return this.#laterCredit > 0 || this.#laterBytes > 0 || now - this.#foregroundAt > FOREGROUND_OVER_MS || this.#foreground.rate(now) < FOREGROUND_BYTES_PER_SECOND
  }

  #closed (stream: ServedStream, error: Error): void {
    const peer = this.#peers.get(stream.peerId)
    if (peer === undefined || !peer.streams.delete(stream)) return
    const at = peer.ready.indexOf(stream)
    if (at >= 0) peer.ready.splice(at, 1)
    if (peer.streams.size === 0) {
      this.#peers.delete(stream.peerId)
      this.#keepAccount(stream.peerId, peer.account)
    }
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
    const now = this.#components.clock.monotonic()
    this.#laterBytes = LATER_BYTES_PER_TICK
    if (this.#laterRing.length > 0) this.#pumpSoon()
    for (const { streams } of this.#peers.values()) for (const stream of streams) stream.checkStalled(now, this.#settings.requestTimeoutMs)
    if (this.#components.slots.next === undefined) return
    for (const peer of this.#peers.values()) for (const stream of peer.streams) this.#takeSlots(peer, stream, now)
  }

  /** Whoever waits has the slot when giveUpSlot returns. A stream is asked for two at most: it may wait for the next one by then. */
  #takeSlots ({ slots: own }: ServedPeer, stream: ServedStream, now: number): void {
    const { slots } = this.#components
    for (let i = 0; i < 2; i++) {
      const waits = slots.next
      if (waits === undefined || (waits !== own && waits.held >= own.held)) return
      const from = waits === own ? 'itself' : own.held > slots.share && waits.held < slots.share ? 'any' : 'more'
      if (!stream.giveUpSlot(now, from)) return
    }
  }
}
