import { MINUTE, shardOf, type Key } from './types.ts'
import type { World } from './world.ts'

/** The last proof from before the cut has run out (an hour), and what came of that has been worked off (45 minutes); half an hour has passed at the end. */
const AFTER_MS = 75 * MINUTE
/** Who lets go of a shard does so once an hour at most. */
const WATCHED_MS = 120 * MINUTE
/** Who is told late may bring something back once. */
const TAKEN_MAX = 1

/**
 * Beside a cut that stays all comes to rest as well: nobody takes what others let go of, again and again. It costs no bytes, as they stay
 * cached, and so no other check sees it.
 */
export class Churn {
  readonly #world: World
  readonly #taken = new Map<Key, number>()
  #watching = false

  constructor (world: World) { this.#world = world }

  /** After the end, where a cut stays. */
  watch (): void {
    const { queue, endAt, nodes, checks } = this.#world
    if (!nodes.some(node => node.halfDeaf && node.works)) return
    const run = (until: number): void => { while (checks.violation === undefined && queue.step(until)) { /* the queue does it */ } }
    run(endAt + AFTER_MS)
    this.#watching = true
    run(endAt + AFTER_MS + WATCHED_MS)
    if (checks.violation === undefined) checks.atRest()
  }

  taken (key: Key): void {
    if (!this.#watching) return
    const times = (this.#taken.get(key) ?? 0) + 1
    this.#taken.set(key, times)
    if (times > TAKEN_MAX) this.#world.checks.fail('beside a cut that stays all comes to rest', `${this.#world.modelAt(key).cid}/${shardOf(key)} was promised ${times} times within ${Math.round((this.#world.now - this.#world.endAt - AFTER_MS) / MINUTE)} minutes, hours after the last fault`, key)
  }
}
