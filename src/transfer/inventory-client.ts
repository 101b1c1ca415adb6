import { Bitfield, MiB, ProtocolError, type Clock } from '../base/index.ts'
import type { StoredModel } from '../storage/store.ts'
import type { FrameStream, OpenFrames } from './frame-stream.ts'
import { CHANGE, PEERS, STATE, decodeChange, decodeField, decodePeers, decodeState, encodeOpen, inventoryClientRules, type InventoryPeer } from './messages.ts'
import { TokenBucket } from './rate.ts'

export interface InventoryHandler {
  /** The peer has said whether it knows the model, anew or for the first time; what it has is told after this. */
  state: (known: boolean, complete: boolean) => void
  /** Blocks of a file (by its position in the model) that it has now, or no longer has. */
  changed: (position: number, blocks: number[], present: boolean) => void
  /** Others who asked the peer about this model. */
  peers: (peers: InventoryPeer[]) => void
  /** Told once; not after close(). ProtocolError when the peer broke the rules. */
  closed: (error: Error) => void
}

/** Bytes of inventory a peer may send beyond what one full telling takes, and a second. */
const SLACK_BYTES = 1 * MiB
const BYTES_PER_SECOND_MAX = 256 * 1024

/**
 * What one peer has of one model, as far as it told. Everything is checked against the file indexes, which this node
 * has verified: a peer that names blocks that do not exist breaks the protocol.
 */
export class PeerInventory {
  readonly #model: StoredModel
  readonly #handler: InventoryHandler
  readonly #frames: FrameStream
  readonly #clock: Clock
  readonly #budget: TokenBucket
  /** Bytes of bitfields for all files: what telling everything anew makes this side do. */
  readonly #whole: number
  /** By position; missing while nothing is set. A complete peer has none until it loses something. */
  #fields = new Map<number, Bitfield>()
  #wasTold = false
  #introduced = false
  #known = false
  #complete = false
  #presentBytes = 0

  constructor (open: OpenFrames, model: StoredModel, clock: Clock, handler: InventoryHandler) {
    this.#model = model
    this.#handler = handler
    this.#clock = clock
    const whole = this.#whole = model.files.reduce((bytes, file) => bytes + 32 + file.present.bytes.length, 0)
    this.#budget = new TokenBucket(BYTES_PER_SECOND_MAX, 4 * whole + SLACK_BYTES, clock.monotonic())
    this.#frames = open(inventoryClientRules, {
      frame: (type, body) => { this.#told(type, body) },
      data: () => { throw new ProtocolError('block data on an inventory stream') },
      drained: () => undefined,
      closed: error => { handler.closed(error) }
    })
    this.#frames.send(encodeOpen(model.manifest.cid))
  }

  /** It has said whether it knows the model. */
  get told (): boolean { return this.#wasTold }
  get known (): boolean { return this.#known }
  /** It said that it has everything, instead of what it has. */
  get all (): boolean { return this.#complete }
  get complete (): boolean { return this.#complete || (this.#known && this.#presentBytes === this.#model.bytes) }
  get presentBytes (): number { return this.#complete ? this.#model.bytes : this.#presentBytes }

  has (position: number, block: number): boolean {
    return this.#complete || (this.#fields.get(position)?.has(block) ?? false)
  }

  /** What it has, file by file, unless it has `all`. */
  * present (): Generator<{ position: number, blocks: Iterable<number> }> {
    for (const [position, blocks] of this.#fields) yield { position, blocks }
  }

  /** The peer said that it does not have this after all. */
  correct (position: number, block: number): void { this.#set(position, block, false) }

  close (): void { this.#frames.close() }
  abort (error: Error): void { this.#frames.abort(error) }

  #told (type: number, body: Uint8Array): void {
    const now = this.#clock.monotonic()
    this.#budget.take(body.length + 8, now)
    if (this.#budget.waitMs(now) > 0) throw new ProtocolError('a flood of inventory')
    if (type === STATE) this.#newState(body)
    else if (type === PEERS) this.#introduce(body)
    else if (!this.#known) throw new ProtocolError('inventory of a model that the peer says it does not know')
    else if (type === CHANGE) this.#change(body)
    else this.#field(body)
  }

  /** Once a stream, as servers do: each name costs a place in the peer store. */
  #introduce (body: Uint8Array): void {
    if (this.#introduced) throw new ProtocolError('a second list of peers')
    this.#introduced = true
    this.#handler.peers(decodePeers(body))
  }

  #newState (body: Uint8Array): void {
    const { known, complete } = decodeState(body)
    this.#budget.take(this.#whole, this.#clock.monotonic())
    this.#wasTold = true
    this.#known = known
    this.#complete = complete
    this.#fields = new Map()
    this.#presentBytes = 0
    this.#handler.state(known, complete)
  }

  #change (body: Uint8Array): void {
    const { file, have, lost } = decodeChange(body)
    const { index } = this.#file(file)
    for (const block of [...have, ...lost]) if (block >= index.blocks.length) throw new ProtocolError(`block ${block} of a file with ${index.blocks.length}`)
    const gained = have.filter(block => this.#set(file, block, true))
    const gone = lost.filter(block => this.#set(file, block, false))
    if (gained.length > 0) this.#handler.changed(file, gained, true)
    if (gone.length > 0) this.#handler.changed(file, gone, false)
  }

  #field (body: Uint8Array): void {
    const { file, offset, bytes } = decodeField(body)
    const { length } = this.#file(file).index.blocks
    const whole = Math.ceil(length / 8)
    const atEnd = offset + bytes.length === whole
    if (offset + bytes.length > whole) throw new ProtocolError(`a bitfield of ${offset + bytes.length} bytes where the file has ${length} blocks`)
    if (atEnd && (length & 7) !== 0 && ((bytes.at(-1) ?? 0) >> (length & 7)) !== 0) throw new ProtocolError('a bitfield with bits past its end')
    const gained: number[] = []
    const gone: number[] = []
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at] ?? 0
      const first = (offset + at) * 8
      for (let bit = 0; bit < 8 && first + bit < length; bit++) {
        const present = (byte & (1 << bit)) !== 0
        if (this.#set(file, first + bit, present)) (present ? gained : gone).push(first + bit)
      }
    }
    if (gained.length > 0) this.#handler.changed(file, gained, true)
    if (gone.length > 0) this.#handler.changed(file, gone, false)
  }

  #file (position: number): StoredModel['files'][number] {
    const file = this.#model.files[position]
    if (file === undefined) throw new ProtocolError(`file ${position} of a model with ${this.#model.files.length}`)
    return file
  }

  /** Says whether that changed anything. */
  #set (position: number, block: number, present: boolean): boolean {
    if (this.#complete) {
      if (present) return false
      this.#spellOut()
    }
    let field = this.#fields.get(position)
    if (field === undefined) {
      if (!present) return false
      this.#fields.set(position, field = new Bitfield(this.#file(position).index.blocks.length))
    }
    if (!field.set(block, present)) return false
    const size = this.#file(position).index.sizes[block] ?? 0
    this.#presentBytes += present ? size : -size
    return true
  }

  /** "All of it" as bitfields, because it is about to lose something. */
  #spellOut (): void {
    this.#complete = false
    this.#model.files.forEach((file, position) => { this.#fields.set(position, Bitfield.full(file.index.blocks.length)) })
    this.#presentBytes = this.#model.bytes
  }
}
