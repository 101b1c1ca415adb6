import { BLOCK_BYTES_MAX, PAGE_BYTES } from '../base/index.ts'

const SLOT_BYTES = BLOCK_BYTES_MAX + PAGE_BYTES

/**
 * Room for one block. `prepare` lays the view out so that the block sits at the same offset modulo 4 KiB as in its
 * file, which lets the aligned inside go out with O_DIRECT straight from here.
 */
export class Slot {
  /** The whole page-aligned slab. */
  readonly slab: Uint8Array
  /** The block's own bytes within the slab; empty until `prepare`. */
  bytes: Uint8Array
  /** Where `bytes` starts in the slab: file offset modulo 4 KiB. */
  lead = 0
  readonly #release: (slot: Slot) => void
  #held = false

  constructor (slab: Uint8Array, release: (slot: Slot) => void) {
    this.slab = slab
    this.bytes = slab.subarray(0, 0)
    this.#release = release
  }

  prepare (fileOffset: number, length: number): Uint8Array {
    if (length > BLOCK_BYTES_MAX) throw new RangeError(`a slot holds ${BLOCK_BYTES_MAX} bytes, not ${length}`)
    this.lead = Math.trunc(fileOffset % PAGE_BYTES) // trunc: offsets come as doubles, and the field is a small integer
    this.bytes = this.slab.subarray(this.lead, this.lead + length)
    return this.bytes
  }

  /** Called by the pool only. */
  take (): void { this.#held = true }

  /** Gives the slot back, once: the next to be handed it is a new holder, whose slot a second call would take away. */
  release (): void {
    if (!this.#held) return
    this.#held = false
    this.#release(this)
  }
}

interface Waiter { take: (slot: Slot) => void, yields: () => boolean }

/**
 * A fixed number of page-aligned block slots: the bound on block memory. The slabs lie in one WebAssembly.Memory, whose
 * buffer is page-aligned; pages are touched, and so paid for, only when first used, and the most recently used slot is
 * handed out first, so that a light load stays within a few of them. Once half of them are out the rest is touched too:
 * it would be, sooner or later, and a process's memory does not then depend on how long it loads.
 */
export class SlotPool {
  readonly size: number
  readonly #free: Slot[] = []
  readonly #waiting: Waiter[] = []
  #touched = false

  /** `shared`: other threads can be given the slabs without a copy. File I/O and hashing work on either kind. */
  constructor (size: number, options: { shared?: boolean } = {}) {
    if (!Number.isInteger(size) || size < 1) throw new RangeError(`a slot pool has at least one slot, not ${size}`)
    this.size = size
    const pages = Math.ceil(size * SLOT_BYTES / 65536)
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: options.shared ?? false })
    for (let i = size - 1; i >= 0; i--) {
      this.#free.push(new Slot(new Uint8Array(memory.buffer, i * SLOT_BYTES, SLOT_BYTES), slot => { this.#give(slot) }))
    }
  }

  get free (): number { return this.#free.length }
  /** How many wait for a slot. */
  get waiting (): number { return this.#waiting.length }

  tryAcquire (): Slot | undefined {
    const slot = this.#free.pop()
    slot?.take()
    if (!this.#touched && this.#free.length <= this.size / 2) this.#touch()
    return slot
  }

  /**
   * Calls `then` with a slot, at once if one is free, else in turn. The returned function gives up waiting. While it `yields`, others come
   * before it and free slots are left to them; when that may have ended, call serve().
   */
  acquire (then: (slot: Slot) => void, yields = (): boolean => false): () => void {
    const slot = yields() ? undefined : this.tryAcquire()
    if (slot !== undefined) { then(slot); return () => undefined }
    const waiter: Waiter = { take: then, yields }
    this.#waiting.push(waiter)
    return () => {
      const at = this.#waiting.indexOf(waiter)
      if (at >= 0) this.#waiting.splice(at, 1)
    }
  }

  /** Gives free slots to who yields no more. */
  serve (): void {
    while (this.#free.length > 0) {
      const next = this.#next()
      const slot = next === undefined ? undefined : this.tryAcquire()
      if (slot === undefined) return
      next?.take(slot)
    }
  }

  #touch (): void {
    this.#touched = true
    for (const { slab } of this.#free) slab.fill(0)
  }

  #give (slot: Slot): void {
    const next = this.#next()
    if (next === undefined) { this.#free.push(slot); return }
    slot.take()
    next.take(slot)
  }

  /** Takes the first in turn that does not yield out of the line. */
  #next (): Waiter | undefined {
    const at = this.#waiting.findIndex(waiter => !waiter.yields())
    return at < 0 ? undefined : this.#waiting.splice(at, 1)[0]
  }
}
