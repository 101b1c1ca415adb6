import type { Slot, SlotPool } from '../storage/slots.ts'

type Take = (slot: Slot) => void

/**
 * Hands the slots of serving out by peers, and not by how many streams each has. A peer may hold more than its share as long as a slot
 * is left for everybody who holds none; of those who wait the one that holds least is next, and then who has waited for longest.
 */
export class ServeSlots {
  readonly #pool: SlotPool
  /** Peers with something to be sent. */
  readonly #peers = new Set<PeerSlots>()
  /** Peers that wait for a slot, in turn. */
  readonly #line: PeerSlots[] = []

  constructor (pool: SlotPool) { this.#pool = pool }

  get free (): number { return this.#pool.free }
  /** Of each peer that has something to be sent. */
  get share (): number { return Math.max(1, Math.floor(this.#pool.size / Math.max(1, this.#peers.size))) }

  /** Who waits and gets the next slot. */
  get next (): PeerSlots | undefined {
    let next: PeerSlots | undefined
    for (const peer of this.#line) if (next === undefined || peer.held < next.held) next = peer
    return next
  }

  peer (): PeerSlots { return new PeerSlots(this) }

  /** The rest is for PeerSlots only. */
  tryAcquire (peer: PeerSlots): Slot | undefined {
    if (this.#line.length > 0 || !this.#may(peer)) return undefined
    const slot = this.#pool.tryAcquire()
    if (slot !== undefined) peer.held++
    return slot
  }

  /** Puts it into the line, or out of it, as it waits or does not. */
  queue (peer: PeerSlots): void {
    const at = this.#line.indexOf(peer)
    if (peer.waiting.length > 0 && at < 0) this.#line.push(peer)
    if (peer.waiting.length === 0 && at >= 0) this.#line.splice(at, 1)
  }

  release (peer: PeerSlots, slot: Slot): void {
    peer.held--
    slot.release()
    this.#toTheEnd(peer)
    this.serve()
  }

  setWanting (peer: PeerSlots, wanting: boolean): void {
    if (wanting) { this.#peers.add(peer); return }
    this.#peers.delete(peer)
    this.serve()
  }

  serve (): void {
    for (;;) {
      const peer = this.next
      if (peer === undefined || !this.#may(peer)) return
      const slot = this.#pool.tryAcquire()
      const take = peer.waiting.shift()
      if (slot === undefined || take === undefined) return
      peer.held++
      this.#toTheEnd(peer)
      this.queue(peer)
      take(slot)
    }
  }

  /** Who has a slot, or had one just now, waits for another behind all who wait already. */
  #toTheEnd (peer: PeerSlots): void {
    const at = this.#line.indexOf(peer)
    if (at >= 0) this.#line.push(...this.#line.splice(at, 1))
  }

  /** Who goes from one block to the next holds none for a moment, which must not cost it its turn: the slot is left to it. */
  #may (peer: PeerSlots): boolean {
    if (this.#pool.free === 0) return false
    if (peer.held < this.share) return true
    let without = 0
    for (const { held } of this.#peers) if (held === 0) without++
    return this.#pool.free > without
  }
}

/** The slots of one peer. */
export class PeerSlots {
  held = 0
  readonly waiting: Take[] = []
  readonly #slots: ServeSlots
  #wanting = 0

  constructor (slots: ServeSlots) { this.#slots = slots }

  /** A stream has something to be sent now that a slot is of use for, or has not any more. */
  want (wants: boolean): void {
    const before = this.#wanting
    this.#wanting += wants ? 1 : -1
    if (before === 0 || this.#wanting === 0) this.#slots.setWanting(this, wants)
  }

  /** One that is left over, if nobody waits. */
  tryAcquire (): Slot | undefined { return this.#slots.tryAcquire(this) }

  /** Calls `then` with a slot, at once or when it is its turn. The returned function gives up waiting. */
  acquire (then: Take): () => void {
    const slot = this.#slots.tryAcquire(this)
    if (slot !== undefined) { then(slot); return () => undefined }
    this.waiting.push(then)
    this.#slots.queue(this)
    this.#slots.serve()
    return () => {
      const at = this.waiting.indexOf(then)
      if (at < 0) return
      this.waiting.splice(at, 1)
      this.#slots.queue(this)
    }
  }

  release (slot: Slot): void { this.#slots.release(this, slot) }
}
