import { oldestFirst } from '../../src/replication/swarm-cache.ts'
import type { SimNode } from './node.ts'
import { shardOf, type Key } from './types.ts'
import type { World } from './world.ts'

interface Released { key: Key, bytes: number, at: number }

/** Shards that came to a node for the swarm and were let go of: they go one by one, as in swarm-cache.ts, as the real replicator says. */
export class Parts {
  readonly #world: World
  readonly #node: SimNode

  constructor (world: World, node: SimNode) {
    this.#world = world
    this.#node = node
  }

  /** What is promised and what was let go of fit into the donation, or as much of it as nobody needs has gone. Before each pull. */
  fit (): void {
    const { replicator, settings } = this.#node
    if (replicator === undefined) return
    const released = this.#released()
    const over = replicator.promisedBytes + released.reduce((sum, { bytes }) => sum + bytes, 0) - settings.donateBytes
    this.#evict(released, over)
  }

  /** Room for so many bytes. */
  free (bytes: number): void { this.#evict(this.#released(), bytes) }

  #released (): Released[] {
    const { disk, replicator } = this.#node
    const released: Released[] = []
    for (const [key, at] of disk.pulled) {
      const { cid, shardBytes } = this.#world.modelAt(key)
      if (replicator?.spare(cid, shardOf(key)) === true) released.push({ key, bytes: shardBytes[shardOf(key)] ?? 0, at })
    }
    return released
  }

  #evict (released: Released[], bytes: number): void {
    let freed = 0
    for (const each of oldestFirst(released)) {
      if (freed >= bytes) break
      this.#world.checks.evicts(this.#node, each.key)
      this.#node.loses(each.key, 'makes room')
      freed += each.bytes
    }
  }
}
