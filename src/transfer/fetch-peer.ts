import type { Libp2p } from '@libp2p/interface'
import { HashMismatchError, PeerGoneError, PeerTimeoutError, ProtocolError, asError, type Clock } from '../base/index.ts'
import type { Slot } from '../storage/slots.ts'
import type { StoredModel } from '../storage/store.ts'
import type { BlockMap } from './block-map.ts'
import { openStream } from './dial.ts'
import { framesOver } from './frame-stream.ts'
import { PeerInventory } from './inventory-client.ts'
import { INVENTORY_PROTOCOL, type InventoryPeer } from './messages.ts'
import type { PeerLink } from './peer-link.ts'
import type { Lease, PeerLinks } from './peer-links.ts'
import { withdrew, type PeerRecord } from './peer-records.ts'
import type { FailReason } from './reception.ts'
import type { Scheduler } from './scheduler.ts'

export interface FetchPeerComponents { network: Libp2p, clock: Clock, links: PeerLinks }

/** What the peers of one fetch share. */
export interface FetchPeerInit {
  model: StoredModel
  map: BlockMap
  scheduler: Scheduler
  requestTimeoutMs: number
  /** Nobody waits for what is fetched now. */
  isBackground: () => boolean
}

export interface FetchPeerHooks {
  /** What it has, or what the scheduler knows, changed: plan anew. */
  changed: () => void
  received: (bytes: number) => void
  /** The slot is the callee's. */
  verified: (block: number, slot: Slot) => void
  wasted: (bytes: number) => void
  /** The block's true size, which is not the one in the file index. */
  otherSize: (block: number, size: number) => void
  /** The peer names others who load the same model. */
  introduced: (peers: InventoryPeer[]) => void
  /** Told once, also when it could not be reached; not after close(). */
  left: (error: Error) => void
}

/** What a peer said it lacks it is not asked for again so soon, whatever it tells of it: it could say both without end. */
const WITHHELD_MS = 10_000

/**
 * One peer of one fetch: its inventory, told to the scheduler, and the way from the scheduler's requests to the link.
 * Known to the scheduler from when both streams are open.
 */
export class FetchPeer {
  readonly peerId: string
  readonly record: PeerRecord
  /** The scheduler's number for it, once it has one. */
  handle: number | undefined
  /** Verified block bytes it delivered. */
  bytes = 0
  /** Bytes that came of what it was asked for. */
  receivedBytes = 0
  /** When bytes last came from it. */
  activeAt: number
  inventory: PeerInventory | undefined
  readonly #components: FetchPeerComponents
  readonly #init: FetchPeerInit
  readonly #hooks: FetchPeerHooks
  readonly #closing = new AbortController()
  /** Blocks that it was asked for, and over which link: a lane may have taken the stream's place since. */
  readonly #requests = new Map<number, { link: PeerLink, id: number }>()
  /** Blocks that it said it lacks, and from when on it is believed to have them; each falls due after those before it. */
  readonly #withheld = new Map<number, number>()
  #lease: Lease | undefined
  #leasing = false
  #cancelDeadline = (): void => undefined

  constructor (peerId: string, record: PeerRecord, components: FetchPeerComponents, init: FetchPeerInit, hooks: FetchPeerHooks) {
    this.peerId = peerId
    this.record = record
    this.#components = components
    this.#init = init
    this.#hooks = hooks
    this.activeAt = components.clock.monotonic()
    this.#open().catch(error => { this.#leave(asError(error)) })
  }

  /** It has told what it has. */
  get ready (): boolean { return this.handle !== undefined }
  /** It has something, and the way to it is being opened. */
  get leasing (): boolean { return this.#leasing && this.#lease === undefined && !this.#closing.signal.aborted }
  get link (): PeerLink | undefined { return this.#lease?.link }
  /** This side does not listen to it. */
  get held (): boolean { return this.#lease?.held !== false }
  /** When anything last came from it. */
  get heardAt (): number { return this.#lease?.heardAt ?? -Infinity }

  request (block: number): void {
    const { link } = this
    const { scheduler, map } = this.#init
    const { handle } = this
    if (link === undefined || handle === undefined) return
    const { clock } = this.#components
    const { offset, size } = map.place(block)
    const id = link.requestBlock({
      cid: map.cid(block),
      size,
      fileOffset: offset,
      started: () => { scheduler.started(handle, block, clock.monotonic()) },
      received: (bytes, now) => {
        this.activeAt = this.record.servedAt = now
        this.receivedBytes += bytes
        scheduler.received(handle, block, bytes, this.activeAt)
        this.#hooks.received(bytes)
      },
      verified: slot => {
        this.#requests.delete(block)
        const now = clock.monotonic()
        this.record.score.good(now)
        this.bytes += size
        this.activeAt = now
        scheduler.completed(handle, block)
        scheduler.here(block) // also when the peer has left while the block was checked
        this.#hooks.verified(block, slot)
      },
      failed: reason => { this.#failed(block, reason) },
      otherSize: actual => {
        this.#requests.delete(block)
        scheduler.failed(handle, block)
        this.#hooks.otherSize(block, actual)
      },
      wasted: bytes => { this.#hooks.wasted(bytes) }
    }, this.#init.isBackground())
    this.#requests.set(block, { link, id })
  }

  cancel (block: number): void {
    const request = this.#requests.get(block)
    this.#requests.delete(block)
    request?.link.cancel(request.id)
  }

  /** Asks it again for what it had lacked a while ago, and says it has. */
  readmit (now: number): void {
    for (const [block, until] of this.#withheld) {
      if (until > now) return
      this.#withheld.delete(block)
      if (this.handle !== undefined && this.#hasAnywhere(block)) this.#init.scheduler.setBlock(this.handle, block, true)
    }
  }

  /** Ends its part in this fetch as if it had gone; whoever else uses the way to it keeps it. */
  giveUp (error: Error): void { this.#leave(error) }

  /** Ends both streams from this side. */
  close (): void {
    if (this.#closing.signal.aborted) return
    this.#closing.abort(new PeerGoneError('the fetch let the peer go'))
    this.#end()
  }

  async #open (): Promise<void> {
    const { network, clock } = this.#components
    const { model, requestTimeoutMs } = this.#init
    const { signal } = this.#closing
    const stream = await openStream(network, this.peerId, INVENTORY_PROTOCOL, { clock, timeoutMs: requestTimeoutMs, signal })
    if (signal.aborted) { stream.abort(new PeerGoneError('the fetch let the peer go')); return }
    this.inventory = new PeerInventory(framesOver(stream), model, clock, {
      state: known => { this.#state(known) },
      changed: (position, blocks, present) => { this.#changed(position, blocks, present) },
      peers: peers => { this.#hooks.introduced(peers) },
      closed: error => { this.#leave(error) }
    })
    // Who says nothing of what it has could have anything: a load must not wait for it for ever.
    this.#cancelDeadline = clock.setTimeout(() => {
      this.#leave(new PeerTimeoutError(`${this.peerId} did not say within ${requestTimeoutMs} ms what it has`))
    }, requestTimeoutMs)
  }

  #state (known: boolean): void {
    this.#cancelDeadline()
    if (this.handle !== undefined) this.#tellAll(this.handle)
    else if (known && !this.#leasing) this.#lend()
    this.#hooks.changed()
  }

  #lend (): void {
    this.#leasing = true
    const { links, clock } = this.#components
    links.lease(this.peerId, error => { this.#leave(error) }, this.#closing.signal).then(lease => {
      if (this.#closing.signal.aborted) { lease.release(); return }
      this.#lease = lease
      this.handle = this.#init.scheduler.addPeer(hashOf(this.peerId), clock.monotonic())
      this.#tellAll(this.handle)
      this.#hooks.changed()
    }, error => { this.#leave(asError(error)) })
  }

  /** Makes the scheduler know what the inventory knows. */
  #tellAll (handle: number): void {
    const { scheduler, map, model } = this.#init
    const { inventory } = this
    scheduler.clearBlocks(handle)
    if (inventory === undefined) return
    if (inventory.all) {
      scheduler.fillBlocks(handle)
      for (const block of this.#withheld.keys()) scheduler.setBlock(handle, block, false)
      return
    }
    for (const { position, blocks } of inventory.present()) {
      const file = map.fileAt(position)
      if (file === undefined || position >= model.files.length) continue
      for (const block of blocks) {
        const number = map.blockAt(map.placeAt(file, block))
        if (!this.#withheld.has(number)) scheduler.setBlock(handle, number, true)
      }
    }
  }

  #changed (position: number, blocks: number[], present: boolean): void {
    const { scheduler, map } = this.#init
    const file = map.fileAt(position)
    if (this.handle === undefined || file === undefined) return
    for (const block of blocks) {
      const number = map.blockAt(map.placeAt(file, block))
      if (present ? !this.#withheld.has(number) : !this.#hasAnywhere(number)) scheduler.setBlock(this.handle, number, present)
    }
    this.#hooks.changed()
  }

  /** Blocks that stand in several places are lost when the last of them is. */
  #hasAnywhere (number: number): boolean {
    const { map } = this.#init
    return map.places(number).some(({ file, block }) => this.inventory?.has(map.positionOf(file), block) ?? false)
  }

  #failed (block: number, reason: FailReason): void {
    this.#requests.delete(block)
    const { scheduler, map } = this.#init
    if (this.handle === undefined) return
    scheduler.failed(this.handle, block)
    const now = this.#components.clock.monotonic()
    if (reason === 'not-here' || reason === 'withdrawn') {
      for (const place of map.places(block)) this.inventory?.correct(map.positionOf(place.file), place.block)
      scheduler.setBlock(this.handle, block, false)
      this.#withheld.delete(block) // to the end of the line
      this.#withheld.set(block, now + WITHHELD_MS)
    }
    // What it had sent of the block is lost, as it is when a peer stops in the middle.
    if (reason === 'slow' || reason === 'withdrawn') this.record.score.fault('timeout', now)
    else if (reason === 'not-here') this.record.score.fault('not-here', now)
    if (reason === 'withdrawn' && withdrew(this.record, now)) {
      this.#leave(new ProtocolError('it sends blocks in part and then says that it does not have them'))
      return
    }
    this.#hooks.changed()
  }

  #leave (error: Error): void {
    if (this.#closing.signal.aborted) return
    this.#closing.abort(error)
    this.#end()
    this.#hooks.left(error)
  }

  #end (): void {
    this.#cancelDeadline()
    if (this.handle !== undefined) this.#init.scheduler.removePeer(this.handle)
    this.handle = undefined
    for (const block of this.#requests.keys()) this.cancel(block)
    this.inventory?.close()
    this.#lease?.release()
  }
}

/** Did the peer break the rules, so that it is not to be asked again? */
export function isViolation (error: Error): boolean {
  return error instanceof ProtocolError || error instanceof HashMismatchError
}

/** FNV-1a of a peer id: the number by which all nodes rank it (scheduler.ts). */
export function hashOf (peerId: string): number {
  let hash = 0x811c_9dc5
  for (let i = 0; i < peerId.length; i++) hash = Math.imul(hash ^ peerId.charCodeAt(i), 0x0100_0193)
  return hash >>> 0
}
