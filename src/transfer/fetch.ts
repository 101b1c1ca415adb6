import {
  AbortError, Emitter, InvalidFileIndexError, ModelNotFoundError, UsageError, asError, throwIfAborted, type AbortOptions, type Clock, type Logger, type Random
} from '../base/index.ts'
import { blockAt } from '../storage/index.ts'
import type { Slot } from '../storage/slots.ts'
import type { ModelStore, StoredFile, StoredModel } from '../storage/store.ts'
import { BlockMap, type Place } from './block-map.ts'
import { hashOf } from './fetch-peer.ts'
import { FetchPeers, type FetchPeersComponents } from './fetch-peers.ts'
import { PlaceWaiters, type Take } from './place-waiters.ts'
import { RateMeter } from './rate.ts'
import { Scheduler } from './scheduler.ts'
import type { ModelFetch, ModelFetchEvents, ModelFetchInit, ModelFetchStats } from './types.ts'
import { WantedPlaces } from './wanted.ts'

export interface FetchComponents extends FetchPeersComponents { store: ModelStore, clock: Clock, random: Random, logger: Logger }

export interface FetchSettings { requestTimeoutMs: number, peersMax: number }

export interface FetchHooks {
  /** A peer broke the rules. */
  violation: (peerId: string, reason: string) => void
  /** Bytes that somebody waits for. */
  awaited: (bytes: number) => void
  /** Told once. */
  ended: (fetch: RunningFetch) => void
}

const TICK_MS = 100
const PROGRESS_MS = 100
const STARVED_MS = 1_000

/**
 * Fetches what a model lacks. The scheduler decides, the peers carry out, this class keeps the books: what is wanted,
 * written, recorded, and who waits for what. A block goes: slot filled and verified -> written -> (the store syncs and
 * records) -> `blocks:present` -> counted as done.
 */
export class RunningFetch implements ModelFetch {
  readonly events: Emitter<ModelFetchEvents>
  readonly done: Promise<void>
  readonly model: StoredModel
  readonly #components: FetchComponents
  readonly #hooks: FetchHooks
  readonly #map: BlockMap
  readonly #scheduler: Scheduler
  readonly #wanted: WantedPlaces
  readonly #peers: FetchPeers
  readonly #rate: RateMeter
  /** What was asked for: positions in the model, and bytes of each. */
  readonly #positions = new Map<number, number>()
  readonly #waiters = new PlaceWaiters()
  /** Those who will want more, however little is missing now. */
  #holds = 0
  readonly #written = new Set<number>()
  readonly #off: Array<() => void>
  readonly #settle: PromiseWithResolvers<void>
  #fetchedBytes = 0
  #duplicateBytes = 0
  #writing = 0
  #flushing = false
  #planning = false
  #starvedAt: number | undefined
  #progressAt = -Infinity
  #cancelProgress: (() => void) | undefined
  #cancelTick: () => void = () => undefined
  #ended: Error | true | undefined

  constructor (components: FetchComponents, settings: FetchSettings, init: ModelFetchInit, hooks: FetchHooks) {
    const { store, clock, random, logger, network } = components
    this.#components = components
    this.#hooks = hooks
    this.model = init.model
    this.events = new Emitter(error => { logger.error({ error: asError(error).message }, 'a listener of a fetch threw') })
    this.#settle = Promise.withResolvers()
    this.done = this.#settle.promise
    this.done.catch(() => undefined) // whoever does not await it has other ways to learn
    this.#rate = new RateMeter(clock.monotonic())
    const map = this.#map = new BlockMap(init.model)
    const { requestTimeoutMs, peersMax } = settings
    const scheduler = this.#scheduler = new Scheduler({ sizes: map.sizes, order: init.order ?? 'rarest', random, self: hashOf(network.peerId.toString()), requestTimeoutMs })
    this.#wanted = new WantedPlaces(map)
    this.#peers = new FetchPeers(components, { model: init.model, map, scheduler, requestTimeoutMs, peersMax, isBackground: init.isBackground ?? (() => false) }, {
      changed: () => { this.#planSoon() },
      received: bytes => {
        this.#rate.add(bytes, clock.monotonic())
        if (init.isBackground?.() !== true) hooks.awaited(bytes)
      },
      verified: (block, slot) => { this.#verified(block, slot) },
      wasted: bytes => { this.#duplicateBytes += bytes },
      otherSize: (block, size) => { this.#end(wrongIndex(map, block, size)) },
      left: (peerId, reason) => { this.events.emit('peer:left', { peerId, reason }) },
      violation: hooks.violation
    })
    this.#off = [
      store.events.on('blocks:present', ({ file, blocks }) => { this.#recorded(file, blocks) }),
      store.events.on('blocks:lost', ({ file, blocks }) => { this.#lost(file, blocks) }),
      store.events.on('model:removed', ({ cid }) => { if (cid === this.model.cid) this.#end(new ModelNotFoundError(`${cid} was removed while it was loaded`)) })
    ]
    this.addFiles(init.files ?? init.model.files.map((_, position) => position), { onDemand: init.onDemand ?? false })
    this.#tick()
  }

  get ended (): boolean { return this.#ended !== undefined }

  addPeer (peerId: string): void {
    if (this.#ended === undefined && peerId !== this.#components.network.peerId.toString()) this.#peers.add(peerId)
  }

  expectPeer (peerId: string): void {
    if (this.#ended === undefined && peerId !== this.#components.network.peerId.toString()) this.#peers.expect(peerId)
  }

  /** For a peer that was banned. */
  dropPeer (peerId: string, reason: string): void { this.#peers.drop(peerId, reason) }

  addFiles (positions: number[], { onDemand = false } = {}): void {
    if (this.#ended !== undefined) return
    for (const position of positions) {
      const file = this.#fileAt(position)
      const stored = this.#map.files[file]
      this.#positions.set(position, stored?.index.size ?? 0)
      if (!onDemand) this.#want(file, 0, (stored?.present.length ?? 0) - 1)
    }
    this.#planSoon()
    // Not at once: whoever made this fetch has not looked at it yet.
    queueMicrotask(() => { this.#checkDone() })
  }

  hold (): () => void {
    this.#holds++
    let held = true
    return () => {
      if (!held) return
      held = false
      this.#holds--
      this.#checkDone()
    }
  }

  async want (position: number, offset: number, length: number, options: AbortOptions = {}): Promise<void> {
    await this.#whenHere(position, offset, length, options)
  }

  async read (position: number, offset: number, into: Uint8Array, options: AbortOptions = {}): Promise<void> {
    /** What of `into` is filled: [from, to), apart from each other. */
    const filled: Array<[number, number]> = []
    const take = (fileOffset: number, bytes: Uint8Array): void => {
      const from = Math.max(fileOffset, offset)
      const to = Math.min(fileOffset + bytes.length, offset + into.length)
      if (from >= to) return
      into.set(bytes.subarray(from - fileOffset, to - fileOffset), from - offset)
      filled.push([from - offset, to - offset])
    }
    await this.#whenHere(position, offset, into.length, { ...options, take })
    const file = this.#map.files[this.#fileAt(position)] as StoredFile
    let at = 0
    for (const [from, to] of [...filled.sort((a, b) => a[0] - b[0]), [into.length, into.length]] as Array<[number, number]>) {
      // Was on disk already, or on its way there.
      if (at < from) await this.#components.store.readRange(file, offset + at, from - at, into.subarray(at, from))
      at = Math.max(at, to)
    }
  }

  async #whenHere (position: number, offset: number, length: number, options: AbortOptions & { take?: Take }): Promise<void> {
    throwIfAborted(options.signal)
    const file = this.#fileAt(position)
    const { index, offsets } = this.#map.files[file] as StoredFile
    if (offset < 0 || length < 0 || offset + length > index.size) throw new UsageError(`bytes ${offset} to ${offset + length} of a file of ${index.size}`)
    if (length === 0) return
    const first = blockAt(offsets, offset)
    const last = blockAt(offsets, offset + length - 1)
    if (this.#ended === undefined) this.#want(file, first, last)
    const places = this.#lacking(file, first, last)
    const numbers = places.map(place => this.#map.blockAt(place))
    this.#scheduler.urge(numbers)
    this.#planSoon()
    try {
      await this.#wait(places, options)
    } finally {
      this.#scheduler.calm(numbers)
    }
  }

  giveUp (reason: Error): void { this.#waiters.rejectAll(reason) }

  async complete (positions: Iterable<number>): Promise<void> {
    const places: number[] = []
    for (const file of new Set(Array.from(positions, position => this.#fileAt(position)))) {
      const blocks = this.#map.files[file]?.present.length ?? 0
      for (const place of this.#lacking(file, 0, blocks - 1)) places.push(place)
    }
    await this.#wait(places, {})
  }

  stats (): ModelFetchStats {
    const now = this.#components.clock.monotonic()
    let bytesTotal = 0
    let bytesDone = 0
    for (const [position, size] of this.#positions) {
      bytesTotal += size
      bytesDone += this.model.files[position]?.presentBytes ?? 0
    }
    return {
      bytesTotal,
      bytesDone,
      missingBlocks: this.#wanted.missing,
      fetchedBytes: this.#fetchedBytes,
      peers: this.#peers.delivered(),
      duplicateBytes: this.#duplicateBytes,
      rate: this.#rate.rate(now),
      activePeers: this.#peers.active(now),
      readyPeers: this.#peers.ready
    }
  }

  async stop (): Promise<void> {
    this.#end(new AbortError('the fetch was stopped; what has arrived stays'))
    await this.done.catch(() => undefined)
  }

  #fileAt (position: number): number {
    const file = this.#map.fileAt(position)
    if (file === undefined) throw new UsageError(`${this.model.cid} has ${this.model.files.length} files; there is no number ${position}`)
    return file
  }

  #want (file: number, first: number, last: number): void {
    for (const place of this.#wanted.want(file, first, last)) this.#scheduler.want(this.#map.blockAt(place))
  }

  /** Places of these blocks that are not recorded. */
  #lacking (file: number, first: number, last: number): number[] {
    const { present } = this.#map.files[file] as StoredFile
    const lacking: number[] = []
    for (let block = first; block <= last; block++) if (!present.has(block)) lacking.push(this.#map.placeAt(file, block))
    return lacking
  }

  async #wait (places: number[], options: AbortOptions & { take?: Take }): Promise<void> {
    if (places.length > 0 && this.#ended !== undefined) throw this.#ended === true ? new AbortError('the fetch has ended') : this.#ended
    await this.#waiters.wait(places, { ...options, isWritten: place => this.#written.has(place), flush: () => { this.#flush() } })
  }

  #verified (block: number, slot: Slot): void {
    const places = this.#map.places(block).filter(({ file, block: at }) => !file.present.has(at))
    this.#fetchedBytes += this.#map.sizes[block] ?? 0
    if (this.#ended !== undefined) { slot.release(); return }
    for (const { place, offset } of places) this.#waiters.verified(place, offset, slot.bytes)
    this.#writing++
    this.#write(places, slot).then(() => { this.#afterWrite(places) }, error => { this.#end(asError(error)) }).finally(() => {
      this.#writing--
      this.#checkEnded()
    })
    this.#planSoon()
  }

  /** The slot is laid out for the first place; for the others its bytes are moved within it. */
  async #write (places: Place[], slot: Slot): Promise<void> {
    try {
      for (const { file, block, offset, size } of places) {
        const from = slot.lead
        slot.prepare(offset, size)
        if (slot.lead !== from) slot.slab.copyWithin(slot.lead, from, from + size)
        await this.#components.store.writeBlock(file, block, slot)
      }
    } finally {
      slot.release()
    }
  }

  #afterWrite (places: Place[]): void {
    let awaited = false
    for (const { place, file, block } of places) {
      if (file.present.has(block)) continue // its sync overtook us
      this.#written.add(place)
      if (this.#waiters.written(place)) awaited = true
    }
    // Somebody waits for just these, or they are the last: do not wait for a larger batch.
    if (awaited || (this.#scheduler.missing === 0 && this.#writing === 1)) this.#flush()
  }

  #flush (): void {
    if (this.#flushing || this.#ended !== undefined) return
    this.#flushing = true
    this.#components.store.flush().then(() => {
      this.#flushing = false
      // Blocks that were written meanwhile and are all somebody waits for.
      if (this.#scheduler.missing === 0 && this.#writing === 0 && this.#written.size > 0 && this.#wanted.missing > 0) this.#flush()
    }, error => { this.#end(asError(error)) })
  }

  #recorded (file: StoredFile, blocks: number[]): void {
    const at = this.#map.fileOf(file)
    if (at === undefined || this.#ended !== undefined) return
    for (const block of blocks) {
      const place = this.#map.placeAt(at, block)
      this.#written.delete(place)
      this.#wanted.record(place)
      const number = this.#map.blockAt(place)
      // Here by another way than this fetch (another model's, a copy): not to be fetched if that was its only place.
      if (!this.#scheduler.isHere(number) && this.#map.places(number).every(other => other.file.present.has(other.block))) this.#scheduler.here(number)
      this.#waiters.recorded(place)
    }
    this.#planSoon()
    this.#progress()
    this.#checkDone()
  }

  #lost (file: StoredFile, blocks: number[]): void {
    const at = this.#map.fileOf(file)
    if (at === undefined || this.#ended !== undefined) return
    for (const block of blocks) {
      const place = this.#map.placeAt(at, block)
      this.#written.delete(place)
      const number = this.#map.blockAt(place)
      // Also what was verified and written, and lost before it was recorded.
      if (!this.#wanted.lose(place) && !(this.#wanted.isWanted(place) && this.#scheduler.isHere(number))) continue
      this.#scheduler.lost(number)
      this.#scheduler.want(number)
    }
    this.#planSoon()
  }

  #planSoon (): void {
    if (this.#planning || this.#ended !== undefined) return
    this.#planning = true
    queueMicrotask(() => {
      this.#planning = false
      if (this.#ended === undefined) this.#peers.act(this.#scheduler.plan(this.#components.clock.monotonic()))
    })
  }

  #tick (): void {
    const { clock } = this.#components
    this.#cancelTick = clock.setTimeout(() => {
      const now = clock.monotonic()
      this.#peers.tick(now)
      this.#peers.act(this.#scheduler.plan(now))
      this.#checkStarved(now)
      if (this.#ended === undefined) this.#tick()
    }, TICK_MS)
  }

  /** Told when it has lasted for a while, and again as often. */
  #checkStarved (now: number): void {
    if (!this.#scheduler.starved || this.#peers.opening) { this.#starvedAt = undefined; return }
    this.#starvedAt ??= now - STARVED_MS / 2
    if (now - this.#starvedAt < STARVED_MS) return
    this.#starvedAt = now
    this.events.emit('starved', { missingBlocks: this.#scheduler.missing })
  }

  #progress (): void {
    if (this.#cancelProgress !== undefined) return
    const { clock } = this.#components
    const waitMs = this.#progressAt + PROGRESS_MS - clock.monotonic()
    const tell = (): void => {
      this.#cancelProgress = undefined
      this.#progressAt = clock.monotonic()
      this.events.emit('progress', this.stats())
    }
    if (waitMs <= 0) tell()
    else this.#cancelProgress = clock.setTimeout(tell, waitMs)
  }

  #checkDone (): void {
    if (this.#ended === undefined && this.#wanted.missing === 0 && this.#holds === 0) this.#end(true)
  }

  /** `true`: everything wanted is recorded. */
  #end (how: Error | true): void {
    if (this.#ended !== undefined) return
    this.#ended = how
    this.#cancelTick()
    this.#cancelProgress?.()
    for (const off of this.#off) off()
    this.#peers.stop()
    this.#waiters.rejectAll(how === true ? new AbortError('the fetch has ended') : how)
    this.#hooks.ended(this)
    this.#checkEnded()
  }

  /** Over when no write is under way any more: nothing touches a slot or the store after `done`. */
  #checkEnded (): void {
    if (this.#ended === undefined || this.#writing > 0) return
    if (this.#ended === true) this.#settle.resolve()
    else this.#settle.reject(this.#ended)
  }
}

/** Proven by bytes that match their CID, so nobody can ever give what the index asks for. */
function wrongIndex (map: BlockMap, block: number, size: number): Error {
  const { file, size: claimed } = map.place(block)
  return new InvalidFileIndexError(`${file.key} is a false file index: it gives ${map.cid(block).toString()} ${claimed} bytes, and it has ${size}. Whoever published it has to publish it again; remove what is here with: shoal rm`)
}
