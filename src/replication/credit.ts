/** When something was last believed of a peer on its word alone, and not shown since. */
export interface Spent { claimed: number, pending: number }

const NOTHING: Spent = { claimed: -Infinity, pending: -Infinity }

/**
 * What a peer says of a shard and has not shown is believed once in the lifetime of a proof: a node that starts again and again, or says now this and
 * now that, and answers no challenge, would else keep the others from repair for ever.
 */
export class Credit {
  readonly #shards: number
  readonly #before: Spent
  /** By shard; made when first needed. */
  #claimedAt: Float64Array | undefined
  #pendingAt: Float64Array | undefined

  /** `before`: spent on any shard by what it said before it had nothing to say for a while. */
  constructor (shards: number, before: Spent = NOTHING) {
    this.#shards = shards
    this.#before = before
  }

  /** It says that it has it, again or from now on: is that worth waiting for a proof? */
  claims (shard: number, now: number, ttlMs: number): boolean {
    this.#claimedAt ??= new Float64Array(this.#shards).fill(this.#before.claimed)
    if (now - (this.#claimedAt[shard] ?? -Infinity) < ttlMs) return false
    this.#claimedAt[shard] = now
    return true
  }

  /** It says that it fetches it, and did not say so a moment ago. */
  fetches (shard: number, now: number, ttlMs: number): void {
    this.#pendingAt ??= new Float64Array(this.#shards).fill(this.#before.pending)
    if (now - (this.#pendingAt[shard] ?? -Infinity) >= ttlMs) this.#pendingAt[shard] = now
  }

  /** Since when its word for that counts; -Infinity when it never gave it. */
  fetchesSince (shard: number): number { return this.#pendingAt?.[shard] ?? -Infinity }

  /** It has shown that it has it. */
  proven (shard: number): void {
    if (this.#claimedAt !== undefined) this.#claimedAt[shard] = -Infinity
    if (this.#pendingAt !== undefined) this.#pendingAt[shard] = -Infinity
  }

  /** Of all shards together, to be remembered when the rest is not. */
  get spent (): Spent {
    const last = (times: Float64Array | undefined, before: number): number => times?.reduce((most, at) => Math.max(most, at), -Infinity) ?? before
    return { claimed: last(this.#claimedAt, this.#before.claimed), pending: last(this.#pendingAt, this.#before.pending) }
  }
}
