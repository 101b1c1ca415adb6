import { distance, inOne, pullTimeoutMs, type Need, type ShardLook } from './planner.ts'
import { Own, type ModelView } from './model-view.ts'
import type { Holding } from './holding.ts'
import type { Context } from './context.ts'
import type { Peer } from './peer-table.ts'

/** A donor that moves shards away goes on until so much less of its space is used: without that it would move one and take one for ever. */
const HYSTERESIS = 0.05
/** Who takes a shard has so many times the free space of who gives it, afterwards too. So it can never move back by itself. */
const MUCH_MORE = 2
/** For a proof, and the promises of the others. */
const BREAK_MS = 10 * 60_000
/** Every shard is looked at more often than that. */
const CRAMPED_MS = 20 * 60_000

/**
 * Replicas that would be better elsewhere: all of a shard in one zone or rack while there are others, and those of a donor
 * that is nearly full while another has far more space. Make before break: one more is made there, and when it is
 * proven one of those that it makes redundant is let go (handover.ts), never below target.
 */
export class Rebalance {
  readonly #context: Context
  readonly #holding: Holding
  /** What this node moves away, one at a time. */
  #move: { view: ModelView, shard: number, until: number } | undefined
  #moving = false
  /** When it last saw a shard whose replicas are all in one domain, while it knows of nobody in another. */
  #crampedAt = -Infinity
  #lookAt = -Infinity
  #lookedAt = -Infinity
  #measuredAt = -Infinity
  /** Whether there is somebody elsewhere, by level, at that tick: thousands of shards ask about thousands of peers. */
  readonly #elsewhere = new Map<number, boolean>()
  #elsewhereAt = -Infinity

  constructor (context: Context, holding: Holding) {
    this.#context = context
    this.#holding = holding
  }

  /** Who came since is worth a question. */
  get isCramped (): boolean { return this.#context.now - this.#crampedAt < CRAMPED_MS }

  /** One more of a shard that has its target, for a better place. */
  need (view: ModelView, shard: number, seen: ShardLook, offered: number): Need | undefined {
    const { settled, peers, draining, now } = this.#context
    const state = view.states[shard]
    if (state === undefined || !settled || peers.brake || draining || view.policy.max <= view.policy.target) return undefined
    // Below target nothing is too much; and what is too much in that very domain was not made for a better place.
    if (seen.replicas < view.policy.target || (seen.replicas > view.policy.target && state.crowded !== undefined && this.#isCrowded(state.crowded, seen))) state.crowded = undefined
    if (seen.replicas !== view.policy.target || seen.missing.length > 0 || seen.claimed.length > 0 || seen.proven.length === 0) return undefined
    // Remembered also while nobody elsewhere is known here: another holder may find somebody, and this node hears of it when the copy is made.
    state.crowded = [1, 0].find(level => this.#isCrowded(level, seen))
    if (seen.pending.length > 0 || offered > 0) return undefined
    if (this.#moves(view, shard)) this.#move = undefined // nobody took it
    if (state.crowded !== undefined && this.#isRoomElsewhere(state.crowded)) return seen.proven.some(peer => peer.id < this.#context.self.id) ? undefined : { why: 'spread', wanted: 1, dueAt: now, fits: (peer, holders) => distance(peer, holders) >= 2 }
    return this.#roomNeed(view, shard, seen)
  }

  /** This node's own replica became redundant by what was made; `level`: of the domain in which another has to be. */
  redundant (view: ModelView, shard: number, seen: ShardLook): { level: number | undefined } | undefined {
    if (view.kept || seen.replicas <= view.policy.target) return undefined
    if (this.#moves(view, shard)) return { level: undefined }
    const { self } = this.#context
    for (let level = 0; level <= (view.states[shard]?.crowded ?? -1); level++) {
      const near = seen.proven.filter(peer => peer.domains[level] === self.domains[level]).length
      if (near > 0 && near < seen.proven.length) return { level }
    }
    return undefined
  }

  released (view: ModelView, shard: number): void {
    const state = view.states[shard]
    if (state !== undefined) state.crowded = undefined
    if (this.#moves(view, shard)) this.#move = undefined
  }

  /** All replicas are in one zone (0) or rack (1). Who is in one rack is in one zone, too. */
  #isCrowded (level: number, seen: ShardLook): boolean { return inOne(level, [this.#context.self, ...seen.proven]) }

  /** Somebody who could take a replica is in another domain at one of the levels up to this one. */
  #isRoomElsewhere (crowded: number): boolean {
    const { self, peers, strangers, now } = this.#context
    if (now !== this.#elsewhereAt) this.#elsewhere.clear()
    this.#elsewhereAt = now
    for (let level = 0; level <= crowded; level++) {
      let found = this.#elsewhere.get(level)
      if (found === undefined) {
        const isElsewhere = (peer: Peer): boolean => peer.domains[level] !== self.domains[level] && peer.liveness === 'alive' && peer.freeBytes > 0
        found = [...peers.peers.values(), ...strangers.values()].some(isElsewhere)
        this.#elsewhere.set(level, found)
      }
      if (found) return true
      this.#crampedAt = now
    }
    return false
  }

  #roomNeed (view: ModelView, shard: number, seen: ShardLook): Need | undefined {
    const { now, settings, wake, self } = this.#context
    if (view.kept || !this.#isFull()) return undefined
    if (this.#move !== undefined && now >= this.#move.until) this.#move = undefined
    if (this.#move !== undefined || (now < this.#lookAt && now !== this.#lookedAt)) { wake(this.#move?.until ?? this.#lookAt); return undefined }
    // All shards are looked at together, and one of them is moved.
    this.#lookedAt = now
    this.#lookAt = now + settings.rebalanceEveryMs
    wake(this.#lookAt)
    const bytes = view.bytes[shard] ?? 0
    return {
      why: 'spread',
      wanted: 1,
      dueAt: now,
      fits: peer => this.#move === undefined && peer.freeBytes - bytes >= MUCH_MORE * (this.#holding.freeBytes() + bytes) && distance(peer, seen.proven) >= distance(self, seen.proven),
      made: () => { this.#move = { view, shard, until: now + pullTimeoutMs(bytes) + BREAK_MS } }
    }
  }

  /** Summed up once a tick, not for each shard. */
  #isFull (): boolean {
    const { now, settings: { donateBytes, rebalanceShare } } = this.#context
    if (now === this.#measuredAt) return this.#moving
    this.#measuredAt = now
    const used = donateBytes === 0 ? 0 : this.#holding.bytes(Own.Committed, Own.Pulling, Own.Broken) / donateBytes
    this.#moving = used > (this.#moving ? rebalanceShare - HYSTERESIS : rebalanceShare)
    return this.#moving
  }

  #moves (view: ModelView, shard: number): boolean { return this.#move?.view === view && this.#move.shard === shard }
}
