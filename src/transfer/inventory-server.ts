import type { CID } from 'multiformats/cid'
import { INVENTORY_PEERS_MAX, INVENTORY_STREAMS_MAX, INVENTORY_STREAMS_PER_PEER_MAX, NodeStoppedError, ProtocolError, asError, type Clock, type Logger } from '../base/index.ts'
import type { ModelStore, StoredFile, StoredModel } from '../storage/store.ts'
import type { FrameStream, OpenFrames } from './frame-stream.ts'
import { CHANGES_PER_FRAME, FIELD_BYTES_MAX, decodeOpen, encodeChange, encodeField, encodePeers, encodeState, inventoryServerRules, type InventoryPeer } from './messages.ts'
import { joinFrames } from './wire.ts'

export interface InventoryServerComponents { store: ModelStore, clock: Clock, logger: Logger, addressesOf: (peerId: string) => Promise<Uint8Array[]> }

export interface InventoryServerHooks {
  /** A peer asked for the inventory of this model. */
  interested: (model: string, peerId: string) => void
  violation: (peerId: string, reason: string) => void
}

/** Between two updates of one stream. The first after a quiet time goes out at once. */
const UPDATE_MS = 250
/** While a stream waits for a model that is not here: how often it is looked for. */
const LOOK_MS = 500
/** Changes that may gather for a reader that does not read; beyond it the whole inventory is told anew. */
const PENDING_MAX = 16_384
/** Frames are joined up to about this many bytes a send. */
const BATCH_BYTES = 64 * 1024

/** Tells peers what this node has recorded of the models they ask about, and goes on telling while they listen. */
export class InventoryServer {
  readonly #components: InventoryServerComponents
  readonly #hooks: InventoryServerHooks
  readonly #streams = new Set<ToldStream>()
  readonly #byPeer = new Map<string, Set<ToldStream>>()
  readonly #off: Array<() => void>
  #cancelLook: (() => void) | undefined
  #stopped = false

  constructor (components: InventoryServerComponents, hooks: InventoryServerHooks) {
    this.#components = components
    this.#hooks = hooks
    const { events } = components.store
    this.#off = [
      events.on('blocks:present', ({ file, blocks }) => { for (const stream of this.#streams) stream.changed(file, blocks) }),
      events.on('blocks:lost', ({ file, blocks }) => { for (const stream of this.#streams) stream.changed(file, blocks) }),
      events.on('model:removed', ({ cid }) => { for (const stream of this.#streams) stream.removed(cid) })
    ]
  }

  get open (): number { return this.#streams.size }

  /** False when there are too many streams, of this peer or of all. */
  accept (peerId: string, open: OpenFrames): boolean {
    if (this.#stopped || this.#streams.size >= INVENTORY_STREAMS_MAX) return false
    let own = this.#byPeer.get(peerId)
    if ((own?.size ?? 0) >= INVENTORY_STREAMS_PER_PEER_MAX) return false
    if (own === undefined) this.#byPeer.set(peerId, own = new Set())
    const stream = new ToldStream(peerId, open, this.#components, {
      opened: model => {
        this.#hooks.interested(model.toString(), peerId)
        this.#introduce(stream, model.toString()).catch(error => { this.#components.logger.debug({ peerId, error: asError(error).message }, 'a peer was not told of others') })
      },
      unknown: () => { this.#lookSoon() },
      closed: (closed, error) => {
        this.#forget(closed)
        if (error instanceof ProtocolError) this.#hooks.violation(peerId, error.message)
      }
    })
    own.add(stream)
    this.#streams.add(stream)
    return true
  }

  drop (peerId: string, error: Error): void {
    for (const stream of this.#byPeer.get(peerId) ?? []) {
      stream.abort(error)
      this.#forget(stream)
    }
  }

  stop (): void {
    this.#stopped = true
    for (const off of this.#off) off()
    this.#cancelLook?.()
    for (const peerId of this.#byPeer.keys()) this.drop(peerId, new NodeStoppedError('the node is stopping'))
  }

  /** Tells a newcomer of others who listen to the same model, so that those who load together find each other at once. */
  async #introduce (stream: ToldStream, model: string): Promise<void> {
    const ids = new Set<string>()
    // The latest are the likeliest to be loading still.
    for (const other of [...this.#streams].reverse()) {
      if (other.peerId !== stream.peerId && other.model === model && ids.add(other.peerId).size === INVENTORY_PEERS_MAX) break
    }
    if (ids.size === 0) return
    stream.introduce(await Promise.all([...ids].map(async id => ({ id, addresses: await this.#components.addressesOf(id) }))))
  }

  #forget (stream: ToldStream): void {
    this.#streams.delete(stream)
    const own = this.#byPeer.get(stream.peerId)
    own?.delete(stream)
    if (own?.size === 0) this.#byPeer.delete(stream.peerId)
  }

  /** A model that was asked about before it was here: the store tells of blocks, not of models, so it is looked for. */
  #lookSoon (): void {
    if (this.#cancelLook !== undefined || this.#stopped) return
    this.#cancelLook = this.#components.clock.setTimeout(() => {
      this.#cancelLook = undefined
      let waiting = false
      for (const stream of this.#streams) waiting = stream.look() || waiting
      if (waiting) this.#lookSoon()
    }, LOOK_MS)
  }
}

interface ToldHooks {
  opened: (model: CID) => void
  /** Its model is not here: look() is to be called now and then. */
  unknown: () => void
  closed: (stream: ToldStream, error: Error) => void
}

/** One listener: a model, and what it has not been told yet. */
class ToldStream {
  readonly peerId: string
  readonly #components: InventoryServerComponents
  readonly #hooks: ToldHooks
  readonly #frames: FrameStream
  #key: string | undefined
  #model: StoredModel | undefined
  /** Where each file stands in the model, by the file's key. */
  #positions = new Map<string, number[]>()
  /** Blocks of each position that changed; what they are now is looked up when it is told. */
  readonly #pending = new Map<number, Set<number>>()
  #pendingBlocks = 0
  /** The next update tells everything. */
  #anew = false
  #toldAt = -Infinity
  #cancelTell: (() => void) | undefined
  #closed = false

  constructor (peerId: string, open: OpenFrames, components: InventoryServerComponents, hooks: ToldHooks) {
    this.peerId = peerId
    this.#components = components
    this.#hooks = hooks
    this.#frames = open(inventoryServerRules, {
      frame: (_type, body) => { this.#opened(decodeOpen(body)) },
      data: () => { throw new ProtocolError('data on an inventory stream') },
      drained: () => { this.#tellSoon() },
      closed: error => { this.#forget(); this.#hooks.closed(this, error) }
    })
  }

  /** The CID of the model that is listened to. */
  get model (): string | undefined { return this.#key }

  introduce (peers: InventoryPeer[]): void {
    if (!this.#closed) this.#frames.send(encodePeers(peers))
  }

  changed (file: StoredFile, blocks: number[]): void {
    const positions = this.#positions.get(file.key)
    if (positions === undefined || this.#anew) return
    for (const position of positions) {
      let pending = this.#pending.get(position)
      if (pending === undefined) this.#pending.set(position, pending = new Set())
      for (const block of blocks) pending.add(block)
      this.#pendingBlocks += blocks.length
    }
    if (this.#pendingBlocks > PENDING_MAX) this.#tellAnew()
    this.#tellSoon()
  }

  removed (cid: string): void {
    if (this.#key !== cid || this.#model === undefined) return
    this.#tellAnew()
    this.#tellSoon()
  }

  /** Has a model come that was not here? True while one is still awaited. */
  look (): boolean {
    if (this.#closed || this.#key === undefined || this.#model !== undefined) return false
    if (this.#components.store.model(this.#key) === undefined) return true
    this.#tellAnew()
    this.#tellSoon()
    return false
  }

  abort (error: Error): void {
    if (this.#closed) return
    this.#frames.abort(error)
    this.#forget()
  }

  #opened (model: CID): void {
    if (this.#key !== undefined) throw new ProtocolError('a second model on one inventory stream')
    this.#key = model.toString()
    this.#tellAnew()
    this.#tell()
    this.#hooks.opened(model)
  }

  #tellAnew (): void {
    this.#anew = true
    this.#pending.clear()
    this.#pendingBlocks = 0
  }

  #tellSoon (): void {
    if (this.#cancelTell !== undefined || this.#closed || (!this.#anew && this.#pending.size === 0)) return
    const { clock } = this.#components
    this.#cancelTell = clock.setTimeout(() => {
      this.#cancelTell = undefined
      this.#tell()
    }, Math.max(0, this.#toldAt + UPDATE_MS - clock.monotonic()))
  }

  #tell (): void {
    // A reader that does not read is told when it does: drained() comes back here.
    if (this.#closed || this.#frames.blocked) return
    this.#toldAt = this.#components.clock.monotonic()
    const batch = new Batch(this.#frames)
    if (this.#anew) {
      this.#anew = false
      this.#everything(batch)
    } else {
      for (const [position, blocks] of this.#pending) changes(position, this.#model?.files[position], blocks, batch)
      this.#pending.clear()
      this.#pendingBlocks = 0
    }
    batch.flush()
  }

  #everything (batch: Batch): void {
    const model = this.#model = this.#key === undefined ? undefined : this.#components.store.model(this.#key)
    const complete = model?.complete ?? false
    this.#positions = new Map()
    batch.add(encodeState({ known: model !== undefined, complete }))
    if (model === undefined) { this.#hooks.unknown(); return }
    model.files.forEach((file, position) => {
      const positions = this.#positions.get(file.key)
      if (positions === undefined) this.#positions.set(file.key, [position])
      else positions.push(position)
      if (complete || file.present.count === 0) return
      const { bytes } = file.present
      for (let at = 0; at < bytes.length; at += FIELD_BYTES_MAX) batch.add(encodeField({ file: position, offset: at, bytes: bytes.subarray(at, at + FIELD_BYTES_MAX) }))
    })
  }

  #forget (): void {
    this.#closed = true
    this.#cancelTell?.()
    this.#positions = new Map()
    this.#pending.clear()
  }
}

function changes (position: number, file: StoredFile | undefined, blocks: Set<number>, batch: Batch): void {
  const have: number[] = []
  const lost: number[] = []
  for (const block of blocks) (file?.present.has(block) === true ? have : lost).push(block)
  for (let at = 0; at < have.length; at += CHANGES_PER_FRAME) batch.add(encodeChange({ file: position, have: have.slice(at, at + CHANGES_PER_FRAME), lost: [] }))
  for (let at = 0; at < lost.length; at += CHANGES_PER_FRAME) batch.add(encodeChange({ file: position, have: [], lost: lost.slice(at, at + CHANGES_PER_FRAME) }))
}

/** Joins frames into sends of a useful size. */
class Batch {
  readonly #stream: FrameStream
  #frames: Uint8Array[] = []
  #bytes = 0

  constructor (stream: FrameStream) { this.#stream = stream }

  add (frame: Uint8Array): void {
    this.#frames.push(frame)
    this.#bytes += frame.length
    if (this.#bytes >= BATCH_BYTES) this.flush()
  }

  flush (): void {
    if (this.#frames.length === 0) return
    this.#stream.send(joinFrames(this.#frames))
    this.#frames = []
    this.#bytes = 0
  }
}
