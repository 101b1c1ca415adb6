import type { PolicyRecord } from '../../src/replication/types.ts'
import { modelIndexOf, shardOf, type Key, type SimModel } from './types.ts'

/** Since when content is bad; right content has none of it. */
const RIGHT = Infinity

/** What survives a crash: shards with right or wrong content, and what save() and savePolicies() made durable. */
export class Disk {
  readonly capacity: number
  used = 0
  /** Taken by others on the same volume. */
  foreign = 0
  /** What it has promised; in the ledger. */
  readonly committed = new Set<Key>()
  /** A user removed these; the ledger still has them, because it could not be written then. */
  readonly stale = new Set<Key>()
  /** Models that the store knows, also when nothing of them is left. */
  readonly models = new Set<number>()
  /** What came for the swarm, and when: not what a user loads, which is the user's. */
  readonly pulled = new Map<Key, number>()
  /** The ledger says since when this volume is suspect. */
  suspectSince: number | undefined
  /** Models this node published or pinned: all of each stays. */
  readonly kept = new Set<number>()
  readonly policies = new Map<string, PolicyRecord>()
  /** The ledger was lost, and is not rebuilt yet. */
  ledgerLostAt: number | undefined
  /** What it had promised then: others count on it, and it is still here. */
  readonly lostPromises = new Set<Key>()
  readonly #rottenSince = new Map<Key, number>()
  /** Where the first bad block of each is, as a share of the whole. */
  readonly #badAt = new Map<Key, number>()
  /** What was kept, and right, when all was lost. */
  #before: ReadonlySet<Key> = new Set()

  constructor (capacity: number) { this.capacity = capacity }

  get free (): number { return Math.max(0, this.capacity - this.used - this.foreign) }

  has (key: Key): boolean { return this.#rottenSince.has(key) }
  keys (): IterableIterator<Key> { return this.#rottenSince.keys() }

  /** Content is what it should be, or was at `since` and later. */
  right (key: Key, since = RIGHT): boolean {
    const rotten = this.#rottenSince.get(key)
    return rotten !== undefined && rotten >= since
  }

  /** To be kept for good. */
  keeps (key: Key): boolean { return this.committed.has(key) || this.lostPromises.has(key) || this.kept.has(modelIndexOf(key)) }

  /** Since when its content is wrong; Infinity: it is right; undefined: it is not there. */
  rottenSince (key: Key): number | undefined { return this.#rottenSince.get(key) }

  write (key: Key, bytes: number): void {
    if (!this.has(key)) this.used += bytes
    this.models.add(modelIndexOf(key))
    this.#rottenSince.set(key, RIGHT)
  }

  /** `at`: from this share of it on; 0: all of it. */
  rot (key: Key, now: number, at = 0): void {
    if (!this.right(key)) return
    this.#rottenSince.set(key, now)
    this.#badAt.set(key, at)
  }

  /** Where its first bad block is, as a share of the whole; undefined: it has none. */
  badAt (key: Key): number | undefined { return this.right(key) ? undefined : this.#badAt.get(key) ?? 0 }

  remove (key: Key, bytes: number): void {
    this.pulled.delete(key)
    this.lostPromises.delete(key)
    if (this.#rottenSince.delete(key)) this.used -= bytes
  }

  /** A user removed the model: the store knows it no more. */
  forget (model: number): void {
    this.kept.delete(model)
    this.models.delete(model)
  }

  /** A user opens the model: what came of it for the swarm is the user's from now on. */
  open (model: number): void {
    for (const key of this.pulled.keys()) if (modelIndexOf(key) === model) this.pulled.delete(key)
  }

  /** What the ledger says is all that a start knows: a promise holds again, unless its model was removed. */
  restart (): void {
    for (const key of this.stale) if (this.models.has(modelIndexOf(key))) { this.stale.delete(key); this.committed.add(key) }
  }

  /** Before it lost everything it had this for good: so others believe until they notice. */
  keptBefore (key: Key): boolean { return this.#before.has(key) }

  wipe (): void {
    this.#before = new Set([...this.keys()].filter(key => this.keeps(key) && this.right(key)))
    this.used = 0
    this.committed.clear()
    this.stale.clear()
    this.models.clear()
    this.pulled.clear()
    this.suspectSince = undefined
    this.kept.clear()
    this.policies.clear()
    this.ledgerLostAt = undefined
    this.lostPromises.clear()
    this.#rottenSince.clear()
  }

  /** The file is gone or damaged, the blocks and the store's own catalog are not. */
  loseLedger (now: number): void {
    for (const key of this.committed) if (this.has(key)) this.lostPromises.add(key)
    this.committed.clear()
    this.stale.clear()
    this.policies.clear()
    this.pulled.clear()
    this.suspectSince = undefined
    this.ledgerLostAt = now
  }

  heldOf (model: SimModel): number[] {
    const held = []
    for (const key of this.keys()) if (modelIndexOf(key) === model.index) held.push(shardOf(key))
    return held.sort((a, b) => a - b)
  }
}

/** Stands in for BLAKE3 over nonce and ranges: differs by nonce and shard, and is wrong for wrong content. */
export function digestOf (key: Key, nonce: Uint8Array, right: boolean): Uint8Array {
  let h = Math.imul(key + 1, 0x9e3779b1) ^ (right ? 0 : 0x5bd1e995)
  for (let i = 0; i < nonce.length; i++) h = Math.imul(h ^ (nonce[i] as number), 0x01000193)
  const digest = new Uint8Array(32)
  for (let i = 0; i < 32; i += 4) {
    h = Math.imul(h ^ (h >>> 15), 0x85ebca6b) + i | 0
    digest[i] = h; digest[i + 1] = h >>> 8; digest[i + 2] = h >>> 16; digest[i + 3] = h >>> 24
  }
  return digest
}
