import type { Libp2p } from '@libp2p/interface'
import {
  HashMismatchError, NodeStoppedError, PeerGoneError, ProtocolError, throwIfAborted, withSignal, type Clock, type Logger
} from '../base/index.ts'
import type { SlotPool } from '../storage/slots.ts'
import type { BlockChecks } from './block-checks.ts'
import { openConnection, openStream } from './dial.ts'
import { framesOver, type OpenFrames } from './frame-stream.ts'
import { BLOCK_PROTOCOL } from './messages.ts'
import type { Lanes } from './lanes/lanes.ts'
import { PeerLink } from './peer-link.ts'
import type { TransportKind } from './types.ts'
import { TokenBucket } from './rate.ts'
import { SEND_BYTES_MAX } from './wire.ts'

export interface PeerLinksComponents { network: Libp2p, lanes: Lanes, slots: SlotPool, checks?: BlockChecks | undefined, clock: Clock, logger: Logger }
export interface PeerLinksSettings { requestTimeoutMs: number, downloadBytesPerSecond: number | undefined, peerBytesPerSecond?: number | undefined }

export interface PeerLinksHooks {
  received: (peerId: string, bytes: number) => void
  opened: (peerId: string, transport: TransportKind) => void
  /** The peer broke the protocol or sent wrong bytes. */
  violation: (peerId: string, reason: string) => void
}

/** The right to use a link until `release`. `closed` is told once if the link ends before. */
export interface Lease {
  readonly link: PeerLink
  release: () => void
}

interface Entry {
  readonly opening: Promise<PeerLink>
  link: PeerLink | undefined
  readonly users: Set<(error: Error) => void>
  /** Its own cap. */
  readonly cap: TokenBucket | undefined
  cancelIdle: () => void
}

/** An unused link stays open this long: file indexes are asked for one after the other, and a fetch follows. */
const IDLE_MS = 5_000
const TICK_MS = 500

/** One link to each peer that something is fetched from, whatever and however much that is. */
export class PeerLinks {
  readonly #components: PeerLinksComponents
  readonly #settings: PeerLinksSettings
  readonly #hooks: PeerLinksHooks
  readonly #entries = new Map<string, Entry>()
  readonly #stopping = new AbortController()
  readonly #download: TokenBucket | undefined
  #cancelTick: (() => void) | undefined

  constructor (components: PeerLinksComponents, settings: PeerLinksSettings, hooks: PeerLinksHooks) {
    this.#components = components
    this.#settings = settings
    this.#hooks = hooks
    this.#download = this.#capOf(settings.downloadBytesPerSecond)
  }

  get open (): number { return this.#entries.size }

  /** Opens the link if there is none. Throws when the peer cannot be reached or the signal fires. */
  async lease (peerId: string, closed: (error: Error) => void, signal: AbortSignal): Promise<Lease> {
    throwIfAborted(signal)
    throwIfAborted(this.#stopping.signal)
    const entry = this.#entries.get(peerId) ?? this.#create(peerId)
    entry.cancelIdle()
    entry.users.add(closed)
    const release = (): void => {
      if (entry.users.delete(closed) && entry.users.size === 0) this.#idle(peerId, entry)
    }
    try {
      const link = await withSignal(entry.opening, signal)
      if (link.closed) throw new PeerGoneError(`the connection to ${peerId} ended`)
      return { link, release }
    } catch (error) {
      release()
      throw error
    }
  }

  /** Ends the link to a peer; its users are told. */
  drop (peerId: string, error: Error): void {
    const entry = this.#entries.get(peerId)
    if (entry === undefined) return
    entry.link?.abort(error)
    this.#ended(peerId, entry, error)
  }

  stop (): void {
    const error = new NodeStoppedError('the node is stopping')
    this.#stopping.abort(error)
    for (const peerId of this.#entries.keys()) this.drop(peerId, error)
    this.#cancelTick?.()
  }

  #create (peerId: string): Entry {
    const opening = this.#frames(peerId).then(({ frames, transport, abort }) => {
      // Dropped (banned, stopped) while it was dialled.
      if (this.#entries.get(peerId) !== entry) {
        const error = new PeerGoneError(`${peerId} was let go`)
        abort(error)
        throw error
      }
      this.#hooks.opened(peerId, transport)
      return entry.link = new PeerLink(peerId, frames, this.#components, {
        received: bytes => this.#received(peerId, bytes, entry.cap),
        wrong: error => { this.#hooks.violation(peerId, error.message) },
        closed: error => {
          if (transport === 'lane') this.#components.lanes.ended(peerId, entry.link?.delivered === true)
          this.#ended(peerId, entry, error)
          if (error instanceof ProtocolError || error instanceof HashMismatchError) this.#hooks.violation(peerId, error.message)
        }
      })
    })
    const entry: Entry = { opening, link: undefined, users: new Set(), cap: this.#capOf(this.#settings.peerBytesPerSecond), cancelIdle: () => undefined }
    this.#entries.set(peerId, entry)
    opening.catch(() => { if (this.#entries.get(peerId) === entry) this.#entries.delete(peerId) })
    this.#tickSoon()
    return entry
  }

  /** A lane where one can be had, else a stream. */
  async #frames (peerId: string): Promise<{ frames: OpenFrames, transport: TransportKind, abort: (error: Error) => void }> {
    const { network, lanes, clock } = this.#components
    const { signal } = this.#stopping
    const dial = { clock, timeoutMs: this.#settings.requestTimeoutMs, signal }
    await openConnection(network, peerId, dial) // a lane stands beside one
    const lane = await lanes.open(peerId, signal)
    if (lane !== undefined) return { frames: lane.open, transport: 'lane', abort: lane.abort }
    const stream = await openStream(network, peerId, BLOCK_PROTOCOL, dial)
    return { frames: framesOver(stream), transport: 'stream', abort: error => { stream.abort(error) } }
  }

  /** Under a download cap: for how long to take no more. */
  #received (peerId: string, bytes: number, cap: TokenBucket | undefined): number {
    this.#hooks.received(peerId, bytes)
    if (this.#download === undefined && cap === undefined) return 0
    const now = this.#components.clock.monotonic()
    this.#download?.take(bytes, now)
    cap?.take(bytes, now)
    return Math.max(this.#download?.waitMs(now) ?? 0, cap?.waitMs(now) ?? 0)
  }

  #capOf (bytesPerSecond: number | undefined): TokenBucket | undefined {
    return bytesPerSecond === undefined ? undefined : new TokenBucket(bytesPerSecond, SEND_BYTES_MAX, this.#components.clock.monotonic())
  }

  #idle (peerId: string, entry: Entry): void {
    if (this.#entries.get(peerId) !== entry) return
    entry.cancelIdle()
    entry.cancelIdle = this.#components.clock.setTimeout(() => {
      if (this.#entries.get(peerId) !== entry || entry.users.size > 0) return
      this.#entries.delete(peerId)
      entry.link?.close()
    }, IDLE_MS)
  }

  #ended (peerId: string, entry: Entry, error: Error): void {
    if (this.#entries.get(peerId) === entry) this.#entries.delete(peerId)
    entry.cancelIdle()
    const users = [...entry.users]
    entry.users.clear()
    for (const closed of users) closed(error)
  }

  /** While somebody waits for a slot, one that is filled too slowly is given up for it. */
  #tickSoon (): void {
    if (this.#cancelTick !== undefined || this.#stopping.signal.aborted) return
    const { clock, slots } = this.#components
    this.#cancelTick = clock.setTimeout(() => {
      this.#cancelTick = undefined
      const now = clock.monotonic()
      for (const { link } of this.#entries.values()) {
        if (slots.waiting === 0) break
        link?.giveUpSlowSlot(now)
      }
      if (this.#entries.size > 0) this.#tickSoon()
    }, TICK_MS)
  }
}
