/**
 * Rendezvous (highest random weight) hashing: everybody ranks the same peers for a shard in the same order without
 * talking (Thaler and Ravishankar 1998). Not cryptographic: who grinds a peer id to rank first only gets work to do.
 */

/** 32 bits of a name, computed once for each peer and model (FNV-1a with a final mix). */
export function nameHash (name: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193)
  return mix(hash)
}

/** The weight of a peer for a shard of a model, in (0, 1): the highest ranks first. */
export function weight (modelHash: number, shard: number, peerHash: number): number {
  return (mix(mix(modelHash ^ Math.imul(shard + 1, 0x9e3779b1)) ^ peerHash) + 0.5) / 0x1_0000_0000
}

export interface Ranked { readonly id: string, readonly hash: number }

/** The `count` that rank highest, the highest first, without those that are excepted. One look at each: it is made for each of thousands of shards. */
export function highest<P extends Ranked> (modelHash: number, shard: number, peers: readonly P[], { count, except }: { count: number, except: (id: string) => boolean }): P[] {
  const found: P[] = []
  const weights: number[] = []
  for (const peer of peers) {
    const theirs = weight(modelHash, shard, peer.hash)
    if (found.length >= count && theirs <= (weights[found.length - 1] ?? 0)) continue
    if (except(peer.id)) continue
    let at = Math.min(found.length, count - 1)
    for (; at > 0 && theirs > (weights[at - 1] ?? 0); at--) {
      found[at] = found[at - 1] as P
      weights[at] = weights[at - 1] ?? 0
    }
    found[at] = peer
    weights[at] = theirs
  }
  return found
}

/** The same with a share: of two peers, one with twice the share comes first twice as often. */
export function weightedScore (weight: number, share: number): number {
  return share / -Math.log(weight)
}

/** The finalizer of MurmurHash3 (public domain). */
function mix (value: number): number {
  let hash = value
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
