import { REPLICA_DOUBTS_MAX, REPLICA_PROOFS_PEERS_MAX, REPLICA_PROOFS_PER_PEER_MAX } from '../base/index.ts'

/** Who challenged has compared the answer with its own bytes after so long, or asked again. */
const DISPUTE_MS = 2 * 60_000
/** A shard that was re-hashed is not again because of a doubt. */
const LOOK_EVERY_MS = 10 * 60_000

/**
 * Whose word that a shard here is bad is taken, and how often one is re-hashed for that: a word costs its sender nothing, and this node up to 256 MiB of
 * reading.
 */
export class Doubts {
  /** Challenges that were answered lately, by who asked. */
  readonly #answered = new Map<string, Array<{ model: string, shards: readonly number[], at: number }>>()
  readonly #lookedAt = new Map<string, number>()

  answered (asker: string, model: string, shards: readonly number[], now: number): void {
    const answers = (this.#answered.get(asker) ?? []).filter(({ at }) => now - at < DISPUTE_MS)
    answers.push({ model, shards, at: now })
    this.#answered.delete(asker)
    this.#answered.set(asker, answers.slice(-REPLICA_PROOFS_PER_PEER_MAX))
    for (const oldest of this.#answered.keys()) {
      if (this.#answered.size <= REPLICA_PROOFS_PEERS_MAX) break
      this.#answered.delete(oldest)
    }
  }

  /** It was shown this shard a moment ago, and may have found it wrong. */
  mayDispute (peer: string, model: string, shard: number, now: number): boolean {
    return this.#answered.get(peer)?.some(answer => answer.model === model && answer.shards.includes(shard) && now - answer.at < DISPUTE_MS) === true
  }

  /** It is time to look at this shard, which counts as done then. */
  mayLook (model: string, shard: number, now: number): boolean {
    const key = `${model}/${shard}`
    // In the order of looking: what is old comes first.
    for (const [old, at] of this.#lookedAt) {
      if (now - at < LOOK_EVERY_MS) break
      this.#lookedAt.delete(old)
    }
    if (this.#lookedAt.has(key) || this.#lookedAt.size >= REPLICA_DOUBTS_MAX) return false
    this.#lookedAt.set(key, now)
    return true
  }

  /** It was bad: what comes in its place has not been looked at. */
  lost (model: string, shard: number): void { this.#lookedAt.delete(`${model}/${shard}`) }
}
