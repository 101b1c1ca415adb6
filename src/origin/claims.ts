/**
 * Who fetches a model from the upstream, decided by everybody alone and by all alike: what peers say of themselves and of
 * others goes in, what to do next comes out. Pure.
 */
import { ORIGIN_CLAIMS_KEPT_MAX, ORIGIN_CLAIMS_MAX, ORIGIN_KEYS_MAX } from '../base/index.ts'
import { nameHash, weight } from '../replication/rendezvous.ts'

/** want: would fetch it; fetching: does; have: has it whole, and what is in it was compared with the upstream's word. */
export type ClaimState = 'want' | 'fetching' | 'have'

export interface Claim {
  peerId: string
  state: ClaimState
  /** The model CID: of `have` alone. */
  cid: string | undefined
  /** Bytes that came and that were cut into blocks, of both together: twice the model. */
  bytesDone: number
  bytesTotal: number
}

export type Decision =
  { do: 'load', claim: Claim } |
  { do: 'follow', claim: Claim } |
  /** Somebody of a higher rank is about to. */
  { do: 'wait' } |
  { do: 'fetch' }

/** Not heard of again for this long, a claim is void: its peer may be dead. */
export const CLAIM_MS = 15_000
/** Each who ranks higher and only wants gets this long to begin. */
export const RANK_DELAY_MS = 5_000

/** Higher comes first, and for everybody the same. */
export function rankOf (key: string, peerId: string): number {
  return weight(nameHash(key), 0, nameHash(peerId))
}

/** `waitedMs`: since this node wants it. `others` are claims of other peers that are not known to be wrong. */
export function decide (key: string, self: string, others: Iterable<Claim>, waitedMs: number): Decision {
  const sorted = best(key, others)
  const [first] = sorted
  if (first?.state === 'have') return { do: 'load', claim: first }
  if (first?.state === 'fetching') return { do: 'follow', claim: first }
  const own = rankOf(key, self)
  const before = sorted.filter(({ peerId }) => rankOf(key, peerId) > own).length
  return waitedMs >= before * RANK_DELAY_MS ? { do: 'fetch' } : { do: 'wait' }
}

/** Two fetch at once: who has nothing yet lets go, else the lower rank. `bytesDone` of this node. */
export function yieldsTo (key: string, self: string, others: Iterable<Claim>, bytesDone: number): Claim | undefined {
  const own = rankOf(key, self)
  const isAhead = (other: Claim): boolean => (other.bytesDone > 0) === (bytesDone > 0) ? rankOf(key, other.peerId) > own : other.bytesDone > 0
  return best(key, others).find(other => other.state === 'have' || (other.state === 'fetching' && isAhead(other)))
}

const ORDER: Record<ClaimState, number> = { have: 0, fetching: 1, want: 2 }

/** The furthest first, and by rank among those. */
export function best (key: string, claims: Iterable<Claim>): Claim[] {
  return [...claims].sort((a, b) => ORDER[a.state] - ORDER[b.state] || rankOf(key, b.peerId) - rankOf(key, a.peerId))
}

/** The oldest of those that only want it, or of all when none does. */
function leastOf (claims: ReadonlyMap<string, Kept>): string {
  for (const [peerId, { claim }] of claims) if (claim.state === 'want') return peerId
  const [oldest = ''] = claims.keys()
  return oldest
}

interface Kept { claim: Claim, at: number }

/** What this node heard, each claim from its own peer: told to whoever asks about the same model. */
export class ClaimTable {
  readonly #byKey = new Map<string, Map<string, Kept>>()

  /** Undefined: it makes no claim any more. */
  note (key: string, peerId: string, claim: Claim | undefined, now: number): void {
    const claims = this.#byKey.get(key) ?? new Map<string, Kept>()
    this.#byKey.delete(key)
    claims.delete(peerId)
    if (claim !== undefined) claims.set(peerId, { claim, at: now })
    for (const [other, { at }] of claims) if (now - at > CLAIM_MS) claims.delete(other)
    // What is remembered for others is who fetches it and who has it; those who want it ask again.
    while (claims.size > ORIGIN_CLAIMS_KEPT_MAX) claims.delete(leastOf(claims))
    if (claims.size > 0) this.#byKey.set(key, claims)
    for (const oldest of this.#byKey.keys()) {
      if (this.#byKey.size <= ORIGIN_KEYS_MAX) break
      this.#byKey.delete(oldest)
    }
  }

  /** The best ones, but not of `except`. */
  of (key: string, now: number, except: string): Claim[] {
    const claims = [...this.#byKey.get(key)?.values() ?? []].filter(({ claim, at }) => now - at <= CLAIM_MS && claim.peerId !== except)
    return best(key, claims.map(({ claim }) => claim)).slice(0, ORIGIN_CLAIMS_MAX)
  }

  /** A peer that is gone fetches nothing. */
  forget (peerId: string): void {
    for (const [key, claims] of this.#byKey) {
      claims.delete(peerId)
      if (claims.size === 0) this.#byKey.delete(key)
    }
  }
}
