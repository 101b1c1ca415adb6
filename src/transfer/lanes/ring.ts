import { KiB, MiB } from '../../base/index.ts'

/** Of what a peer sends to this side: a lane that receives blocks, and one that receives requests. */
export const RECEIVE_RING_BYTES = 1 * MiB
export const REQUEST_RING_BYTES = 256 * KiB
/** With less room than this nothing more is read: records that are decrypted already come all the same, 64 KiB of them at most. */
const MARGIN_BYTES = 128 * KiB
/** No TLS record is longer. */
const PIECE_BYTES = 16 * KiB
const HEAD_BYTES = 8
const CONSUMED = 0
const WAITING = 1

/** Bytes of a ring: where they lie, and how far the ring is used when they are. */
export interface Piece { at: number, length: number, upto: number }

/**
 * Memory that one thread fills and another empties, for bytes of one lane. It holds a head of two numbers: how far it is emptied, and
 * whether the filler waits for room. Pieces are told of by message, in their order; a piece never runs over the end.
 */
class Ring {
  readonly memory: SharedArrayBuffer
  protected readonly state: Int32Array
  protected readonly bytes: Uint8Array

  constructor (memory: SharedArrayBuffer) {
    this.memory = memory
    this.state = new Int32Array(memory, 0, HEAD_BYTES / 4)
    this.bytes = new Uint8Array(memory, HEAD_BYTES)
  }

  protected get size (): number { return this.bytes.length }
}

export class RingFiller extends Ring {
  /** How far it is filled, counted on and on in 32 bits. */
  #upto = 0
  #at = 0

  constructor (bytes: number) { super(new SharedArrayBuffer(HEAD_BYTES + bytes)) }

  /** Where the next bytes may be put, a record of TLS at least; undefined when it is full. */
  place (): Uint8Array | undefined {
    if (this.size - this.#at < PIECE_BYTES) this.#skip()
    const length = Math.min(this.size - this.#at, this.#room)
    return length < PIECE_BYTES ? undefined : this.bytes.subarray(this.#at, this.#at + length)
  }

  /** So many bytes lie where place() said. */
  fill (length: number): Piece {
    const at = this.#at
    this.#at += length
    this.#upto = (this.#upto + length) | 0
    return { at, length, upto: this.#upto }
  }

  /** False: no more for now. Whoever empties it will tell when it is emptier: ask again then, and not before. */
  mayRead (): boolean {
    if (this.#room >= MARGIN_BYTES) return true
    Atomics.store(this.state, WAITING, 1)
    // It may have been emptied between the two: then it tells nobody.
    return this.#room >= MARGIN_BYTES && Atomics.exchange(this.state, WAITING, 0) === 1
  }

  get #room (): number { return this.size - ((this.#upto - Atomics.load(this.state, CONSUMED)) | 0) }

  #skip (): void {
    this.#upto = (this.#upto + this.size - this.#at) | 0
    this.#at = 0
  }
}

export class RingEmptier extends Ring {
  view ({ at, length }: Piece): Uint8Array { return this.bytes.subarray(at, at + length) }

  /** The piece is read. True: the filler waits for room and should be told. */
  empty ({ upto }: Piece): boolean {
    Atomics.store(this.state, CONSUMED, upto)
    return Atomics.load(this.state, WAITING) === 1 && Atomics.exchange(this.state, WAITING, 0) === 1
  }
}
